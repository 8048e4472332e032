"""Format models of dates: those of a session's NLS settings, and YYYY-MM-DD HH24:MI:SS."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from .model import OracleError

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def _zone(value: datetime) -> str:
    minutes = int((value.utcoffset() or timedelta()).total_seconds() // 60)
    return "{}{:02d}:{:02d}".format("-" if minutes < 0 else "+", *divmod(abs(minutes), 60))


_SHOW: dict[str, Callable[[datetime], str]] = {
    "YYYY": lambda v: f"{v.year:04d}",
    "RR": lambda v: f"{v.year % 100:02d}",
    "MON": lambda v: MONTHS[v.month - 1],
    "MM": lambda v: f"{v.month:02d}",
    "MI": lambda v: f"{v.minute:02d}",
    "DD": lambda v: f"{v.day:02d}",
    "HH24": lambda v: f"{v.hour:02d}",
    "HH": lambda v: f"{(v.hour + 11) % 12 + 1:02d}",
    "SS": lambda v: f"{v.second:02d}",
    "X": lambda v: ".",
    "FF": lambda v: f"{v.microsecond:06d}",
    "AM": lambda v: "AM" if v.hour < 12 else "PM",
    "TZR": _zone,
}
_ELEMENT = re.compile(f"{'|'.join(_SHOW)}|[-/,.;: ]+")


def elements(model: str) -> list[str]:
    """Cut a date format into its elements, in upper case; ORA-01821 for one that is not known here."""
    found, at, model = [], 0, model.upper()
    while at < len(model):
        match = _ELEMENT.match(model, at)
        if match is None:
            raise OracleError(1821, f"date format not recognized: the stand-in knows {', '.join(_SHOW)}")
        found.append(match.group())
        at = match.end()
    return found


def date_text(value: datetime, model: str) -> str:
    """Format a time by a format model; names are in capitals."""
    return "".join(_SHOW[element](value) if element in _SHOW else element for element in elements(model))
