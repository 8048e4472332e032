"""Format models: TO_CHAR, TO_DATE and TO_NUMBER in the elements that Oracle's reports use."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal

from .model import OracleError

MONTHS = ["JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE"]
MONTHS += ["JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER", "DECEMBER"]
DAYS = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]
_ELEMENT = re.compile(
    r'"[^"]*"|FM|FX|SYYYY|YYYY|RRRR|YYY|YY|RR|IYYY|Y|MONTH|MON|MM|MI|DAY|DDD|DD|DY|D|HH24|HH12|HH|SSSSS|SS|FF\d?|'
    r"A\.M\.|P\.M\.|AM|PM|TZH|TZM|TZR|WW|IW|Q|J|CC|X|[-/,.;: ]+",
    re.IGNORECASE,
)


def elements(model: str) -> list[str]:
    """Cut a date format into its elements; ORA-01821 for what is none."""
    found, at = [], 0
    while at < len(model):
        match = _ELEMENT.match(model, at)
        if match is None:
            raise OracleError(1821, "date format not recognized")
        found.append(match.group())
        at = match.end()
    return found


def _offset(value: datetime) -> tuple[str, int, int]:
    minutes = int((value.utcoffset() or timedelta()).total_seconds() // 60)
    return ("-" if minutes < 0 else "+", *divmod(abs(minutes), 60))


def _zone(value: datetime) -> str:
    return "{}{:02d}:{:02d}".format(*_offset(value))


_SHOW: dict[str, Callable[[datetime], str]] = {
    "YYYY": lambda v: f"{v.year:04d}",
    "SYYYY": lambda v: f" {v.year:04d}",
    "RRRR": lambda v: f"{v.year:04d}",
    "IYYY": lambda v: f"{v.isocalendar()[0]:04d}",
    "YYY": lambda v: f"{v.year % 1000:03d}",
    "YY": lambda v: f"{v.year % 100:02d}",
    "RR": lambda v: f"{v.year % 100:02d}",
    "Y": lambda v: str(v.year % 10),
    "CC": lambda v: f"{(v.year + 99) // 100:02d}",
    "MM": lambda v: f"{v.month:02d}",
    "MONTH": lambda v: f"{MONTHS[v.month - 1]:<9}",
    "MON": lambda v: MONTHS[v.month - 1][:3],
    "DD": lambda v: f"{v.day:02d}",
    "DDD": lambda v: f"{v.timetuple().tm_yday:03d}",
    "D": lambda v: str(v.isoweekday() % 7 + 1),
    "DAY": lambda v: f"{DAYS[v.weekday()]:<9}",
    "DY": lambda v: DAYS[v.weekday()][:3],
    "HH24": lambda v: f"{v.hour:02d}",
    "HH12": lambda v: f"{(v.hour + 11) % 12 + 1:02d}",
    "HH": lambda v: f"{(v.hour + 11) % 12 + 1:02d}",
    "MI": lambda v: f"{v.minute:02d}",
    "SS": lambda v: f"{v.second:02d}",
    "SSSSS": lambda v: f"{v.hour * 3600 + v.minute * 60 + v.second:05d}",
    "FF": lambda v: f"{v.microsecond:06d}",
    "X": lambda v: ".",
    "Q": lambda v: str((v.month + 2) // 3),
    "WW": lambda v: f"{(v.timetuple().tm_yday + 6) // 7:02d}",
    "IW": lambda v: f"{v.isocalendar()[1]:02d}",
    "J": lambda v: str(v.toordinal() + 1721425),
    "TZH": lambda v: "{}{:02d}".format(*_offset(v)[:2]),
    "TZM": lambda v: f"{_offset(v)[2]:02d}",
    "TZR": _zone,
    **dict.fromkeys(("AM", "PM"), lambda v: "AM" if v.hour < 12 else "PM"),
    **dict.fromkeys(("A.M.", "P.M."), lambda v: "A.M." if v.hour < 12 else "P.M."),
}


def _cased(text: str, element: str) -> str:
    if element.isupper() or not element.isalpha():
        return text
    return text.capitalize() if element[0].isupper() else text.lower()


def date_text(value: datetime, model: str, nls: dict[str, str]) -> str:
    """Format a time by a format model; numbers in it lose their zeros after FM."""
    parts, fill = [], True
    for element in elements(model):
        name = element.upper()
        if name in ("FM", "FX"):
            fill = fill != (name == "FM")
        elif element[0] == '"':
            parts.append(element[1:-1])
        elif name.startswith("FF") and name[2:]:
            parts.append(f"{value.microsecond:06d}000"[: int(name[2:])])
        elif name in _SHOW:
            shown = _cased(_SHOW[name](value), element)
            parts.append(shown if fill else shown.strip().lstrip("0") or "0")
        else:
            parts.append(element)
    return "".join(parts)


_READ = {
    **dict.fromkeys(("YYYY", "RRRR", "SYYYY"), ("year", r"\d{1,4}")),
    **dict.fromkeys(("YY", "RR"), ("short_year", r"\d{1,4}")),
    "MM": ("month", r"\d{1,2}"),
    **dict.fromkeys(("MON", "MONTH"), ("month_name", r"[A-Za-z]{3,9}")),
    "DD": ("day", r"\d{1,2}"),
    "DDD": ("year_day", r"\d{1,3}"),
    "HH24": ("hour", r"\d{1,2}"),
    **dict.fromkeys(("HH", "HH12"), ("half_hour", r"\d{1,2}")),
    "MI": ("minute", r"\d{1,2}"),
    "SS": ("second", r"\d{1,2}"),
    "SSSSS": ("day_second", r"\d{1,5}"),
    "TZH": ("zone_hour", r"[-+]?\d{1,2}"),
    "TZM": ("zone_minute", r"\d{1,2}"),
    "TZR": ("zone", r"[-+]\d{1,2}:\d{2}|UTC|GMT"),
    "X": ("point", r"[.,]?"),
    **dict.fromkeys(("AM", "PM", "A.M.", "P.M."), ("half", r"[AP]\.?M\.?")),
    **dict.fromkeys(("DY", "DAY"), ("week_day", r"[A-Za-z]{3,9}")),
}


def parse_date(text: str, model: str) -> datetime:
    """Parse a time from text; an unnamed month is the current one, as in Oracle. Raises ORA-018xx."""
    found, at, text = {}, 0, text.strip()
    for element in elements(model):
        name = element.upper()
        if name in ("FM", "FX"):
            continue
        field, pattern = ("fraction", r"\d{0,9}") if name.startswith("FF") else _READ.get(name, ("", r"[^\w]*"))
        pattern = re.escape(element[1:-1]) if element[0] == '"' else pattern
        match = re.compile(pattern, re.IGNORECASE).match(text, at)
        if match is None and at >= len(text):
            break
        if match is None:
            raise _misread(field)
        found[field], at = match.group(), match.end()
    if at < len(text):
        raise OracleError(1830, "date format picture ends before converting entire input string")
    return _assembled(found)


def _misread(field: str) -> OracleError:
    if field == "month_name":
        return OracleError(1843, "not a valid month")
    if field in ("year", "short_year"):
        return OracleError(1841, "(full) year must be between -4713 and +9999, and not be 0")
    return OracleError(1858, "a non-numeric character was found where a numeric was expected")


def _assembled(found: dict[str, str]) -> datetime:
    now = datetime.now()
    year = _year(found, now)
    month = _month(found, now)
    hour = int(found.get("hour") or 0)
    if "half_hour" in found:
        hour = int(found["half_hour"]) % 12 + (12 if found.get("half", "A")[0] in "pP" else 0)
    if hour > 23:
        raise OracleError(1850, "hour must be between 0 and 23")
    minute, second = int(found.get("minute") or 0), int(found.get("second") or 0)
    if minute > 59 or second > 59:
        raise OracleError(1851 if minute > 59 else 1852, "minutes and seconds must be between 0 and 59")
    micro = int((found.get("fraction") or "0").ljust(6, "0")[:6])
    try:
        value = datetime(year, month, int(found.get("day") or 1), hour, minute, second, micro, _read_zone(found))
    except ValueError:
        raise OracleError(1839 if int(found["day"]) <= 31 else 1847, "date not valid for month specified") from None
    if "year_day" in found:
        value = value.replace(month=1) + timedelta(days=int(found["year_day"]) - 1)
    return value + timedelta(seconds=int(found.get("day_second") or 0))


def _year(found: dict[str, str], now: datetime) -> int:
    if "year" in found:
        return int(found["year"]) or 1
    if "short_year" not in found:
        return now.year
    year = int(found["short_year"])
    return year if year > 99 else year + (2000 if year < 50 else 1900)


def _month(found: dict[str, str], now: datetime) -> int:
    if "month_name" in found:
        named = [i for i, month in enumerate(MONTHS, 1) if month[:3] == found["month_name"][:3].upper()]
        if not named:
            raise OracleError(1843, "not a valid month")
        return named[0]
    month = int(found.get("month") or now.month)
    if not 1 <= month <= 12:
        raise OracleError(1843, "not a valid month")
    return month


def _read_zone(found: dict[str, str]) -> timezone | None:
    zone = found.get("zone") or found.get("zone_hour")
    if not zone:
        return None
    if zone.upper() in ("UTC", "GMT"):
        return timezone.utc
    hours, _, minutes = zone.partition(":")
    span = timedelta(hours=abs(int(hours)), minutes=int(minutes or found.get("zone_minute") or 0))
    return timezone(-span if zone[0] == "-" else span)


def number_by_model(value: Decimal, model: str) -> str:
    """Format a NUMBER by a model of 9, 0, comma, point, S, MI, PR, $ and FM; hashes if it does not fit."""
    name = model.upper()
    if name in ("TM", "TM9"):
        return format(value.normalize(), "f")
    fill = "FM" not in name
    name = name.replace("FM", "")
    digits = re.sub(r"MI|PR|[S$L]", "", name)
    if not re.fullmatch(r"[90,.DG]*", digits):
        raise OracleError(1481, "invalid number format model")
    digits = digits.replace("G", ",").replace("D", ".")
    whole, _, decimals = digits.partition(".")
    rounded = abs(value).quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP)
    head, _, tail = format(rounded, "f").partition(".")
    if len(head.lstrip("0")) > len(whole.replace(",", "")):
        return "#" * (len(name) + 1)
    shown = _grouped(head.lstrip("0"), whole, bool(decimals) and not whole.endswith("0")) + (
        f".{_trimmed(tail, decimals) if not fill else tail}" if "." in digits else ""
    )
    if "$" in name:
        shown = "$" + shown
    shown = _signed(shown, value < 0, name, fill)
    return shown.rjust(len(name) + (not re.search("S|MI|PR", name))) if fill else shown


def _trimmed(tail: str, model: str) -> str:
    keep = model.rfind("0") + 1
    return tail[:keep] + tail[keep:].rstrip("0")


def _grouped(head: str, model: str, may_be_empty: bool) -> str:
    zeros = len(model[model.index("0") :].replace(",", "")) if "0" in model else 0
    head = head.rjust(zeros, "0") or ("" if may_be_empty else "0")
    parts, left = [], list(head)
    for sign in reversed(model):
        if not left:
            break
        parts.append("," if sign == "," else left.pop())
    return "".join(reversed(parts))


def _signed(shown: str, negative: bool, model: str, fill: bool) -> str:
    if model.startswith("S"):
        return ("-" if negative else "+") + shown
    if model.endswith(("S", "MI")):
        plus = "+" if model.endswith("S") else " " * fill
        return shown + ("-" if negative else plus)
    if model.endswith("PR"):
        return f"<{shown}>" if negative else f" {shown} " if fill else shown
    return ("-" if negative else " " * fill) + shown
