"""Oracle's scalar functions: each by name, with the types it takes and gives.

A function gets its arguments already converted to the types in `takes` (the last one repeats; 'ANY' leaves a value
as it is) and, if it `needs_run`, the running statement first. A NULL argument is a NULL result, unless `nulls`.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import NamedTuple

from . import values
from .formats import date_text, number_by_model, parse_date
from .model import OracleError


class Function(NamedTuple):
    """One function; `gives` is a type name, or 'SAME' for the type of the first argument."""

    call: Callable
    takes: tuple[str, ...]
    gives: str
    least: int
    most: int
    nulls: bool = False
    needs_run: bool = False


TABLE: dict[str, Function] = {}


def _known(name: str, takes: str, gives: str, least: int, most: int | None = None, **options: bool):
    def register(call: Callable) -> Callable:
        TABLE[name] = Function(call, tuple(takes.split(",")), gives, least, most or least, **options)
        return call

    return register


def _simple(name: str, takes: str, gives: str, count: int, call: Callable) -> None:
    TABLE[name] = Function(call, tuple(takes.split(",")), gives, count, count)


_simple("UPPER", "VARCHAR2", "VARCHAR2", 1, str.upper)
_simple("LOWER", "VARCHAR2", "VARCHAR2", 1, str.lower)
_simple("INITCAP", "VARCHAR2", "VARCHAR2", 1, lambda t: re.sub(r"\w+", lambda m: m.group().capitalize(), t))
_simple("LENGTH", "VARCHAR2", "NUMBER", 1, lambda t: Decimal(len(t)))
_simple("LENGTHB", "VARCHAR2", "NUMBER", 1, lambda t: Decimal(len(t.encode())))
_simple("ASCII", "VARCHAR2", "NUMBER", 1, lambda t: Decimal(ord(t[0])))
_simple("CHR", "NUMBER", "VARCHAR2", 1, lambda n: chr(int(n)))
_simple("ABS", "NUMBER", "NUMBER", 1, abs)
_simple("SIGN", "NUMBER", "NUMBER", 1, lambda n: Decimal((n > 0) - (n < 0)))
_simple("CEIL", "NUMBER", "NUMBER", 1, lambda n: n.to_integral_value("ROUND_CEILING"))
_simple("FLOOR", "NUMBER", "NUMBER", 1, lambda n: n.to_integral_value("ROUND_FLOOR"))
_simple("POWER", "NUMBER", "NUMBER", 2, lambda a, b: a**b)
_simple("SQRT", "NUMBER", "NUMBER", 1, lambda n: n.sqrt())
_simple("MOD", "NUMBER", "NUMBER", 2, lambda a, b: a % b if b else a)
_simple("RAWTOHEX", "RAW", "VARCHAR2", 1, lambda r: r.hex().upper())
_simple("HEXTORAW", "VARCHAR2", "RAW", 1, bytes.fromhex)
_simple("TO_CLOB", "VARCHAR2", "CLOB", 1, str)
_simple("TO_BINARY_DOUBLE", "BINARY_DOUBLE", "BINARY_DOUBLE", 1, float)
_simple("LAST_DAY", "DATE", "DATE", 1, lambda d: d.replace(day=calendar.monthrange(d.year, d.month)[1]))


@_known("SUBSTR", "VARCHAR2,NUMBER", "VARCHAR2", 2, 3)
def substr(text: str, start: Decimal, length: Decimal | None = None) -> str | None:
    """Return a part of a text: positions count from 1, or from the end if negative; 0 is taken for 1."""
    start = int(start)
    first = start - 1 if start > 0 else max(len(text) + start, -1) if start else 0
    if first < 0 or (length is not None and length < 1):
        return None
    return text[first : None if length is None else first + int(length)] or None


@_known("INSTR", "VARCHAR2,VARCHAR2,NUMBER", "NUMBER", 2, 4)
def instr(text: str, part: str, start: Decimal = Decimal(1), nth: Decimal = Decimal(1)) -> Decimal:
    """Return the nth occurrence from a position on, or backwards from the end if it is negative; 0 if none."""
    starts = [i for i in range(len(text) - len(part) + 1) if text.startswith(part, i)]
    if start < 0:
        found = [i for i in reversed(starts) if i <= len(text) + int(start)]
    else:
        found = [i for i in starts if i >= int(start) - 1]
    return Decimal(found[int(nth) - 1] + 1) if len(found) >= nth else Decimal(0)


@_known("REPLACE", "VARCHAR2", "VARCHAR2", 2, 3, nulls=True)
def replace(text: str | None, part: str | None, new: str | None = None) -> str | None:
    return text.replace(part, new or "") or None if text and part else text


@_known("TRANSLATE", "VARCHAR2", "VARCHAR2", 3)
def translate(text: str, old: str, new: str) -> str | None:
    table = {ord(c): new[i] if i < len(new) else None for i, c in reversed(list(enumerate(old)))}
    return text.translate(table) or None


@_known("LPAD", "VARCHAR2,NUMBER,VARCHAR2", "VARCHAR2", 2, 3)
def lpad(text: str, length: Decimal, fill: str = " ") -> str | None:
    missing = int(length) - len(text)
    return (_repeat(fill, missing) + text)[: max(int(length), 0)] or None


@_known("RPAD", "VARCHAR2,NUMBER,VARCHAR2", "VARCHAR2", 2, 3)
def rpad(text: str, length: Decimal, fill: str = " ") -> str | None:
    return (text + _repeat(fill, int(length) - len(text)))[: max(int(length), 0)] or None


def _repeat(fill: str, length: int) -> str:
    if length > 32_767:
        raise OracleError(6502, "PL/SQL: numeric or value error: character string buffer too small")
    return (fill * (length // len(fill) + 1))[: max(length, 0)]


@_known("LTRIM", "VARCHAR2", "VARCHAR2", 1, 2)
def ltrim(text: str, letters: str = " ") -> str | None:
    return text.lstrip(letters) or None


@_known("RTRIM", "VARCHAR2", "VARCHAR2", 1, 2)
def rtrim(text: str, letters: str = " ") -> str | None:
    return text.rstrip(letters) or None


@_known("CONCAT", "VARCHAR2", "VARCHAR2", 2, nulls=True)
def concat(left: str | None, right: str | None) -> str | None:
    return (left or "") + (right or "") or None


@_known("REGEXP_LIKE", "VARCHAR2", "BOOLEAN", 2, 3)
def regexp_like(text: str, pattern: str, flags: str = "") -> bool:
    return re.search(pattern, text, re.IGNORECASE if "i" in flags else 0) is not None


@_known("ROUND", "ANY", "SAME", 1, 2)
def round_(value: object, to: object = None) -> object:
    """Round a number to so many decimals, or a time to the nearest unit of a format."""
    if isinstance(value, datetime):
        return _truncated(value + timedelta(hours=12), "DD") if to is None else _truncated(value, to)
    return _decimals(values.number(value), to, ROUND_HALF_UP)


@_known("TRUNC", "ANY", "SAME", 1, 2)
def trunc(value: object, to: object = None) -> object:
    """Cut a number to so many decimals, or a time to the start of a unit of a format."""
    if isinstance(value, datetime):
        return _truncated(value, "DD" if to is None else to)
    return _decimals(values.number(value), to, ROUND_DOWN)


def _decimals(value: Decimal, places: object, rounding: str) -> Decimal:
    exponent = -int(values.number(places) or 0)
    if value.as_tuple().exponent >= exponent:
        return value
    return value.quantize(Decimal(1).scaleb(exponent), rounding) + 0


def _truncated(value: datetime, unit: str) -> datetime:
    day = values.whole_seconds(value).replace(hour=0, minute=0, second=0)
    if unit.upper() in ("DD", "DDD", "J"):
        return day
    starts = {
        **dict.fromkeys(("YYYY", "YEAR", "YY", "RRRR", "RR", "Y"), lambda: day.replace(month=1, day=1)),
        **dict.fromkeys(("MM", "MON", "MONTH"), lambda: day.replace(day=1)),
        "Q": lambda: day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1),
        **dict.fromkeys(("IW", "DAY", "D", "DY"), lambda: day - timedelta(days=day.weekday())),
        **dict.fromkeys(("HH", "HH24", "HH12"), lambda: day.replace(hour=value.hour)),
        "MI": lambda: day.replace(hour=value.hour, minute=value.minute),
    }
    if unit.upper() not in starts:
        raise OracleError(1898, "too many precision specifiers")
    return starts[unit.upper()]()


@_known("ADD_MONTHS", "DATE,NUMBER", "DATE", 2)
def add_months(value: datetime, count: Decimal) -> datetime:
    """Add months to a time; the last day of a month leads to the last day of the other."""
    months = value.year * 12 + value.month - 1 + int(count)
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    was_last = value.day == calendar.monthrange(value.year, value.month)[1]
    return value.replace(year=year, month=month + 1, day=last if was_last else min(value.day, last))


@_known("MONTHS_BETWEEN", "DATE", "NUMBER", 2)
def months_between(left: datetime, right: datetime) -> Decimal:
    months = Decimal((left.year - right.year) * 12 + left.month - right.month)
    ends = [value.day == calendar.monthrange(value.year, value.month)[1] for value in (left, right)]
    if left.day == right.day or all(ends):
        return months
    seconds = [v.day * 86_400 + v.hour * 3600 + v.minute * 60 + v.second for v in (left, right)]
    return months + Decimal(seconds[0] - seconds[1]) / (31 * 86_400)


@_known("TO_CHAR", "ANY,VARCHAR2", "VARCHAR2", 1, 3, needs_run=True)
def to_char(run, value: object, model: str | None = None, _nls: str | None = None) -> str | None:
    """Convert a date, a number or text to text."""
    if model is None or isinstance(value, bytes):
        return values.text(value, run.nls)
    if isinstance(value, datetime):
        return date_text(value, model, run.nls)
    if isinstance(value, timedelta):
        return values.interval_text(value)
    return number_by_model(values.number(value), model)


@_known("TO_NUMBER", "ANY,VARCHAR2", "NUMBER", 1, 3)
def to_number(value: object, model: str | None = None, _nls: str | None = None) -> Decimal:
    """Convert text to a number; with a format its group marks and signs of currency are allowed."""
    if model and isinstance(value, str):
        value = re.sub(r"[,$\s]", "", value)
    return values.number(value)


@_known("TO_DATE", "ANY,VARCHAR2", "DATE", 1, 3, needs_run=True)
def to_date(run, value: object, model: str | None = None, _nls: str | None = None) -> datetime:
    return values.whole_seconds(_read(run, value, model, "DATE"))


@_known("TO_TIMESTAMP", "ANY,VARCHAR2", "TIMESTAMP", 1, 3, needs_run=True)
def to_timestamp(run, value: object, model: str | None = None, _nls: str | None = None) -> datetime:
    return values.naive(_read(run, value, model, "TIMESTAMP"))


@_known("TO_TIMESTAMP_TZ", "ANY,VARCHAR2", "TIMESTAMP WITH TIME ZONE", 1, 3, needs_run=True)
def to_timestamp_tz(run, value: object, model: str | None = None, _nls: str | None = None) -> datetime:
    return values.local(_read(run, value, model, "TIMESTAMP WITH TIME ZONE"))


def _read(run, value: object, model: str | None, kind: str) -> datetime:
    if model is None:
        return values.date(value, run.nls, kind)
    return parse_date(values.text(value, run.nls), model)


@_known("SYS_EXTRACT_UTC", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP", 1)
def sys_extract_utc(value: datetime) -> datetime:
    return values.local(value).astimezone(timezone.utc).replace(tzinfo=None)


@_known("NUMTODSINTERVAL", "NUMBER,VARCHAR2", "INTERVAL DAY TO SECOND", 2)
def numtodsinterval(count: Decimal, unit: str) -> timedelta:
    sizes = {"DAY": 86_400, "HOUR": 3600, "MINUTE": 60, "SECOND": 1}
    if unit.upper() not in sizes:
        raise OracleError(1760, "illegal argument for function")
    return timedelta(microseconds=int(count * sizes[unit.upper()] * 1_000_000))


@_known("SYS_CONTEXT", "VARCHAR2", "VARCHAR2", 2, 3, needs_run=True)
def sys_context(run, namespace: str, parameter: str, _length: str | None = None) -> str | None:
    """Return a parameter of USERENV, the only namespace; an unknown one is ORA-02003, as in Oracle."""
    known = run.session.userenv()
    if namespace.upper() != "USERENV":
        return None
    if parameter.upper() not in known:
        raise OracleError(2003, "invalid USERENV parameter")
    return known[parameter.upper()]


@_known("SQLERRM", "NUMBER", "VARCHAR2", 0, 1, nulls=True, needs_run=True)
def sqlerrm(run, code: Decimal | None = None) -> str:
    """Return the message of the error being handled; of another code only its number is known here."""
    return run.session.error_text if code is None else f"ORA-{abs(int(code)):05d}: Message {abs(int(code))} not found"


def _moment(name: str, gives: str, call: Callable) -> None:
    TABLE[name] = Function(call, (), gives, 0, 0, needs_run=True)


_moment("SYSDATE", "DATE", lambda run: values.whole_seconds(run.now))
_moment("CURRENT_DATE", "DATE", lambda run: values.whole_seconds(run.now))
_moment("LOCALTIMESTAMP", "TIMESTAMP", lambda run: values.naive(run.now))
_moment("SYSTIMESTAMP", "TIMESTAMP WITH TIME ZONE", lambda run: run.now)
_moment("CURRENT_TIMESTAMP", "TIMESTAMP WITH TIME ZONE", lambda run: run.now)
_moment("USER", "VARCHAR2", lambda run: run.session.user)
_moment("UID", "NUMBER", lambda run: Decimal(run.session.number))
_moment("DBTIMEZONE", "VARCHAR2", lambda run: date_text(run.now, "TZR", {}))
_moment("SESSIONTIMEZONE", "VARCHAR2", lambda run: date_text(run.now, "TZR", {}))
_moment("SQLCODE", "NUMBER", lambda run: Decimal(run.session.error_code))
WITHOUT_PARENTHESES = [name for name, function in TABLE.items() if function.least == 0]
