"""Oracle's types: how their values are converted, compared and used in arithmetic.

A NUMBER is a Decimal, DATE and TIMESTAMP a naive datetime, TIMESTAMP WITH TIME ZONE an aware
one, INTERVAL DAY TO SECOND a timedelta, text a str that is never empty, and NULL is None.
"""

from __future__ import annotations

import decimal
from datetime import datetime, timedelta
from decimal import Decimal

from .formats import date_text
from .model import OracleError

NUMBERS = decimal.Context(prec=40, rounding=decimal.ROUND_HALF_UP, Emin=-130, Emax=125)
TEXTS = ("VARCHAR2", "CHAR", "LONG")
DATES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
FAMILIES = {
    **dict.fromkeys(TEXTS, "text"),
    **dict.fromkeys(DATES, "date"),
    "NUMBER": "number",
    "INTERVAL DAY TO SECOND": "interval",
    "RAW": "raw",
    "BOOLEAN": "boolean",
    "NULL": "null",
}
MICROSECONDS = 86_400_000_000


def family(type_name: str) -> str:
    """Return the kind of a type: types of one family compare without conversion."""
    return FAMILIES[type_name]


def use_numbers() -> None:
    """Make this thread compute as NUMBER does."""
    if decimal.getcontext().prec != NUMBERS.prec:
        decimal.setcontext(NUMBERS.copy())


def number(value: object) -> Decimal | None:
    """Convert anything that Oracle takes for a NUMBER; ORA-01722 if it is not one."""
    if value is None or isinstance(value, Decimal):
        return value
    if isinstance(value, str):
        try:
            found = Decimal(value.strip().replace("_", "x"))
        except decimal.InvalidOperation:
            raise OracleError(1722, "invalid number") from None
        if not found.is_finite():
            raise OracleError(1722, "invalid number")
        return found
    if isinstance(value, (bool, int, float)):
        return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    raise OracleError(932, f"inconsistent datatypes: expected NUMBER got {type_of(value)}")


def number_text(value: Decimal) -> str:
    """Format a NUMBER as TO_CHAR without a format does: no zero before the point, at most 40 digits."""
    value = NUMBERS.normalize(value)
    if value == 0:
        return "0"
    digits = len(value.as_tuple().digits)
    if -40 <= value.adjusted() < 40 and digits - value.adjusted() <= 41:
        text = format(value, "f")
        return text.replace("0.", ".", 1) if abs(value) < 1 else text
    return f"{value:E}".replace("E+", "E+").upper()


def text(value: object, nls: dict[str, str]) -> str | None:
    """Format anything as text, dates in the session's formats."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, Decimal):
        return number_text(value)
    if isinstance(value, datetime):
        return date_text(value, nls[_format_of(value)])
    if isinstance(value, timedelta):
        return interval_text(value)
    if isinstance(value, bytes):
        return value.hex().upper() or None
    if isinstance(value, bool):
        raise OracleError(6502, "PL/SQL: numeric or value error")
    return number_text(number(value))


def _format_of(value: datetime) -> str:
    if value.tzinfo is not None:
        return "NLS_TIMESTAMP_TZ_FORMAT"
    return "NLS_TIMESTAMP_FORMAT" if value.microsecond else "NLS_DATE_FORMAT"


def interval_text(value: timedelta) -> str:
    """Format an interval as Oracle does: +DD HH:MI:SS.FFFFFF."""
    sign, value = ("-", -value) if value < timedelta() else ("+", value)
    minutes, seconds = divmod(value.seconds, 60)
    return f"{sign}{value.days:02d} {minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{value.microseconds:06d}"


def type_of(value: object) -> str:
    """Return the type that a value would have as a bind."""
    if isinstance(value, datetime):
        return "DATE" if value.tzinfo is None else "TIMESTAMP WITH TIME ZONE"
    kinds = {str: "VARCHAR2", Decimal: "NUMBER", int: "NUMBER", bytes: "RAW"}
    return {**kinds, timedelta: "INTERVAL DAY TO SECOND", bool: "BOOLEAN"}.get(type(value), "NULL")


def local(value: datetime | None) -> datetime | None:
    """Return a time with a zone: the session's, if it had none."""
    return value if value is None or value.tzinfo is not None else value.astimezone()


def whole_seconds(value: datetime | None) -> datetime | None:
    """Cut a time to what DATE keeps: local, without a fraction."""
    if value is None:
        return None
    return value.replace(microsecond=0, tzinfo=None)


def naive(value: datetime | None) -> datetime | None:
    """Cut a time to what TIMESTAMP keeps: without its zone."""
    return None if value is None else value.replace(tzinfo=None)


def convert(value: object, type_name: str, nls: dict[str, str]) -> object:
    """Convert a value to another type; raises what Oracle raises if that cannot be."""
    if value is None or type_name == "NULL":
        return value
    if type_name in TEXTS:
        return text(value, nls)
    if type_name == "NUMBER":
        return number(value)
    if type_name in DATES:
        if not isinstance(value, datetime):
            known = f"expected {type_name} got {type_of(value)}: the stand-in reads no dates from text"
            raise OracleError(932, f"inconsistent datatypes: {known}")
        return {"DATE": whole_seconds, "TIMESTAMP": naive}.get(type_name, local)(value)
    if type_name == "RAW":
        return bytes.fromhex(value) if isinstance(value, str) else value
    if type(value) is not {"INTERVAL DAY TO SECOND": timedelta, "BOOLEAN": bool}[type_name]:
        raise OracleError(932, f"inconsistent datatypes: expected {type_name} got {type_of(value)}")
    return value


def days(value: timedelta) -> Decimal:
    """Return a span as DATE arithmetic gives it: a NUMBER of days."""
    return Decimal(value // timedelta(microseconds=1)) / MICROSECONDS


def span(value: Decimal) -> timedelta:
    """Return a NUMBER of days as a span, to the second, as DATE arithmetic rounds it."""
    return timedelta(seconds=int((value * 86_400).to_integral_value(decimal.ROUND_HALF_UP)))
