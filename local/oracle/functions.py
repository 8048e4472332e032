"""Oracle's scalar functions, those that a closing needs: each by name, with the types it takes and gives.

A function gets its arguments already converted to the types in `takes` (the last one repeats; 'ANY' leaves a value
as it is) and, if it `needs_run`, the running statement first. A NULL argument is a NULL result.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import NamedTuple

from . import values
from .formats import date_text
from .model import OracleError


class Function(NamedTuple):
    """One function; `gives` is a type name."""

    call: Callable
    takes: tuple[str, ...]
    gives: str
    least: int
    most: int
    needs_run: bool = False


def _substr(text: str, start: Decimal, length: Decimal | None = None) -> str | None:
    """Return a part of a text: positions count from 1, or from the end if negative; 0 is taken for 1."""
    start = int(start)
    first = start - 1 if start > 0 else max(len(text) + start, -1) if start else 0
    if first < 0 or (length is not None and length < 1):
        return None
    return text[first : None if length is None else first + int(length)] or None


def _to_char(run, value: object, model: str | None = None) -> str | None:
    """Convert a value to text, a date also by a format."""
    if model is None:
        return values.text(value, run.nls)
    if not isinstance(value, datetime):
        raise OracleError(1481, "invalid number format model: the stand-in knows formats of dates only")
    return date_text(value, model)


def _utc(value: datetime) -> datetime:
    return values.local(value).astimezone(timezone.utc).replace(tzinfo=None)


TABLE = {
    "LENGTH": Function(lambda text: Decimal(len(text)), ("VARCHAR2",), "NUMBER", 1, 1),
    "RTRIM": Function(lambda text: text.rstrip(" ") or None, ("VARCHAR2",), "VARCHAR2", 1, 1),
    "SQLCODE": Function(lambda run: Decimal(run.session.error_code), (), "NUMBER", 0, 0, needs_run=True),
    "SUBSTR": Function(_substr, ("VARCHAR2", "NUMBER"), "VARCHAR2", 2, 3),
    "SYSDATE": Function(lambda run: values.whole_seconds(run.now), (), "DATE", 0, 0, needs_run=True),
    "SYSTIMESTAMP": Function(lambda run: run.now, (), "TIMESTAMP WITH TIME ZONE", 0, 0, needs_run=True),
    "SYS_EXTRACT_UTC": Function(_utc, ("TIMESTAMP WITH TIME ZONE",), "TIMESTAMP", 1, 1),
    "TO_CHAR": Function(_to_char, ("ANY", "VARCHAR2"), "VARCHAR2", 1, 2, needs_run=True),
    "USER": Function(lambda run: run.session.user, (), "VARCHAR2", 0, 0, needs_run=True),
}
WITHOUT_PARENTHESES = [name for name, function in TABLE.items() if function.least == 0]
