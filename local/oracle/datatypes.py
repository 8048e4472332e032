"""Encode and decode values of Oracle's data types.

An encoded value begins with its length, as in a row; None is the null of all types. Parsers get the bytes without the
length, and raise `Malformed` for bytes that are no value of their type.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache

from local.oracle.model import OracleError
from local.oracle.wire import LENGTH, LONGEST_SHORT, NULL, Malformed, clr, u32

TYPE_NUMBERS = {
    "VARCHAR2": 1,
    "NUMBER": 2,
    "LONG": 8,
    "DATE": 12,
    "RAW": 23,
    "CHAR": 96,
    "TIMESTAMP": 180,
    "TIMESTAMP WITH TIME ZONE": 181,
    "INTERVAL DAY TO SECOND": 183,
    "BOOLEAN": 252,
}
# Clients also bind these: BINARY_INTEGER, LONG RAW and TIMESTAMP WITH LOCAL TIME ZONE.
TYPE_NAMES = {number: name for name, number in TYPE_NUMBERS.items()} | {3: "NUMBER", 24: "RAW", 231: "TIMESTAMP"}


# A pair of decimal digits read as hexadecimal is one byte; these tables convert it to what Oracle writes, and back.
_BCD = [tens * 16 + ones for tens in range(10) for ones in range(10)]
_PLUS = bytes.maketrans(bytes(_BCD), bytes(range(1, 101)))
_MINUS = bytes.maketrans(bytes(_BCD), bytes(range(101, 1, -1)))
_FROM_PLUS = bytes.maketrans(bytes(range(1, 101)), bytes(_BCD))
_FROM_MINUS = bytes.maketrans(bytes(range(101, 1, -1)), bytes(_BCD))
_PLUS_DIGITS = frozenset(range(1, 101))
_MINUS_DIGITS = frozenset(range(2, 102))
_MOST_PAIRS = 20
_ZERO = b"\x01\x80"
# Length and exponent, by power of 100 and count of pairs; a negative number has a closing byte more.
_PLUS_HEAD = [[bytes((size + 1, 128 + power)) for size in range(21)] for power in range(128)]
_MINUS_HEAD = [[bytes((size + 2, 127 - power)) for size in range(20)] for power in range(128)]
_SMALL_NUMBERS: list[bytes] = []


def number(value: int | Decimal | float | None, text: str = "") -> bytes:
    """Encode NUMBER: an exponent and pairs of digits; exact up to 38 digits, rounded beyond 40.

    text: the value as text without an exponent, if it is known.

    Raises ORA-01426 for a value that does not fit, and ValueError for one that is not a number, such as a str of
    digits. A fetch spends most of its time here, so all digits are read at once, as hexadecimal. That fails for a
    text with an exponent.
    """
    if value is None:
        return NULL
    if value.__class__ is int and 0 <= value < 10000:
        return _SMALL_NUMBERS[value]
    text = text or str(value)
    if text is value:
        raise ValueError(f"not a number: {value!r}")
    minus = text < "."
    whole, _, fraction = (text[1:] if minus else text).partition(".")
    if len(fraction) & 1:
        fraction += "0"
    size = len(whole)
    try:
        packed = bytes.fromhex(f"0{whole}{fraction}" if size & 1 else whole + fraction)
    except ValueError:
        return number(value, _plain(value))
    power = 64 + (size + 1 >> 1)
    if not packed[0]:
        power += len(packed.lstrip(b"\0")) - len(packed)
        packed = packed.lstrip(b"\0")
    packed = packed.rstrip(b"\0")
    size = len(packed)
    if 0 < size < _MOST_PAIRS and 0 <= power < 128:
        if minus:
            return _MINUS_HEAD[power][size] + packed.translate(_MINUS) + b"\x66"
        return _PLUS_HEAD[power][size] + packed.translate(_PLUS)
    return _odd_number(value, packed, power, minus)


def _odd_number(value: int | Decimal | float | str, packed: bytes, power: int, minus: bool) -> bytes:
    """Encode the rare numbers: 0, too large, too small, or with the most digits that a NUMBER can have."""
    size = len(packed)
    if size > _MOST_PAIRS:
        return number(_rounded(value))
    if not size or power < 0:
        return _ZERO
    if power > 127:
        raise OracleError(1426, "numeric overflow")
    if minus:
        return _MINUS_HEAD[power][size - 1] + packed.translate(_MINUS)
    return _PLUS_HEAD[power][size] + packed.translate(_PLUS)


def _plain(value: Decimal | float) -> str:
    """Return a number's text without an exponent. Raises ValueError for a value that is not a number."""
    try:
        exact = Decimal(str(value))
    except ArithmeticError:
        raise ValueError(f"not a number: {value!r}") from None
    if not exact.is_finite():
        raise ValueError(f"not a number: {value!r}")
    if exact.adjusted() > 125:
        raise OracleError(1426, "numeric overflow")
    return "0" if exact.adjusted() < -130 else format(exact, "f")


def _rounded(value: int | Decimal | float) -> Decimal:
    """Cut a number to 20 pairs; a pair starts at an even power of ten, so that is 39 or 40 digits."""
    exact = Decimal(str(value))
    return exact.normalize(Context(prec=40 if exact.adjusted() % 2 else 39, rounding=ROUND_HALF_UP))


def parse_number(data: bytes) -> int | Decimal:
    """Decode a NUMBER: an int if it is whole, else a Decimal."""
    if data == b"\x80":
        return 0
    minus = data[0] < 0x80
    digits = data[1:]
    if minus and digits.endswith(b"\x66"):
        digits = digits[:-1]
    if not digits or not (_MINUS_DIGITS if minus else _PLUS_DIGITS).issuperset(digits):
        raise Malformed(f"not a NUMBER: {data[:24].hex()}")
    power = (62 - data[0] if minus else data[0] - 193) - len(digits) + 1
    text = digits.translate(_FROM_MINUS if minus else _FROM_PLUS).hex()
    if power >= 0:
        whole = int(text) * 100**power
        return -whole if minus else whole
    return Decimal(f"{'-' if minus else ''}{text}E{2 * power}")


_SMALL_NUMBERS += [number(Decimal(value)) for value in range(10000)]


def text(value: str | None) -> bytes:
    """Encode VARCHAR2 and CHAR: UTF-8; the empty string is null. Lone surrogates are bytes of invalid UTF-8."""
    if not value:
        return NULL
    data = value.encode("utf-8", "surrogateescape")
    return LENGTH[len(data)] + data if len(data) <= LONGEST_SHORT else clr(data)


def _moment(value: datetime) -> bytes:
    century, year = divmod(value.year, 100)
    return bytes(
        (century + 100, year + 100, value.month, value.day, value.hour + 1, value.minute + 1, value.second + 1)
    )


@lru_cache(8192)
def date(value: datetime | None) -> bytes:
    """Encode DATE: seconds, without a zone."""
    return NULL if value is None else b"\x07" + _moment(value)


def timestamp(value: datetime | None) -> bytes:
    """Encode TIMESTAMP; the fraction is left out if it is 0."""
    if value is None:
        return NULL
    if not value.microsecond:
        return b"\x07" + _moment(value)
    return b"\x0b" + _moment(value) + u32(value.microsecond * 1000)


def timestamp_tz(value: datetime | None) -> bytes:
    """Encode TIMESTAMP WITH TIME ZONE: the moment in UTC and the offset; a naive value counts as UTC."""
    if value is None:
        return NULL
    offset = int((value.utcoffset() or timedelta()).total_seconds()) // 60
    moment = value.astimezone(timezone.utc) if value.tzinfo else value
    sign = -1 if offset < 0 else 1
    hours, minutes = divmod(abs(offset), 60)
    zone = bytes((20 + sign * hours, 60 + sign * minutes))
    return b"\x0d" + _moment(moment) + u32(moment.microsecond * 1000) + zone


def interval(value: timedelta | None) -> bytes:
    """Encode INTERVAL DAY TO SECOND; every part carries the sign."""
    if value is None:
        return NULL
    micros = (value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds
    sign = -1 if micros < 0 else 1
    seconds, micros = divmod(abs(micros), 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = bytes(60 + sign * part for part in (hours, minutes, seconds))
    return b"\x0b" + u32(sign * days + 2**31) + parts + u32(sign * micros * 1000 + 2**31)


def raw(value: bytes | None) -> bytes:
    """Encode RAW; empty is null."""
    return clr(value)


def boolean(value: bool | None) -> bytes:
    """Encode BOOLEAN, which only PL/SQL knows."""
    return NULL if value is None else b"\x02\x01\x01" if value else b"\x01\x00"


def long_text(value: str | None) -> bytes:
    """Encode LONG: the text, then two fields for null and truncation."""
    return text(value) + b"\0\0"


def parse_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("text that is not UTF-8") from None


def parse_datetime(data: bytes) -> datetime:
    """Decode DATE, TIMESTAMP and TIMESTAMP WITH TIME ZONE by their length; the last becomes aware."""
    if len(data) not in (7, 11, 13):
        raise Malformed(f"a date of {len(data)} bytes")
    micros = int.from_bytes(data[7:11], "big") // 1000
    year = (data[0] - 100) * 100 + data[1] - 100
    try:
        moment = datetime(year, data[2], data[3], data[4] - 1, data[5] - 1, data[6] - 1, micros)
        if len(data) < 13:
            return moment
        zone = timezone(timedelta(hours=data[11] - 20, minutes=data[12] - 60))
        return moment.replace(tzinfo=timezone.utc).astimezone(zone)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"not a date: {error}") from None


def parse_timestamp_tz(data: bytes) -> datetime:
    moment = parse_datetime(data)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def parse_interval(data: bytes) -> timedelta:
    if len(data) != 11:
        raise Malformed(f"an interval of {len(data)} bytes")
    days, hours, minutes, seconds, nanos = struct.unpack(">IBBBI", data)
    try:
        return timedelta(
            days=days - 2**31,
            hours=hours - 60,
            minutes=minutes - 60,
            seconds=seconds - 60,
            microseconds=int((nanos - 2**31) / 1000),
        )
    except OverflowError as error:
        raise Malformed(f"not an interval: {error}") from None


ENCODERS = {
    "VARCHAR2": text,
    "CHAR": text,
    "NUMBER": number,
    "LONG": long_text,
    "DATE": date,
    "RAW": raw,
    "TIMESTAMP": timestamp,
    "TIMESTAMP WITH TIME ZONE": timestamp_tz,
    "INTERVAL DAY TO SECOND": interval,
    "BOOLEAN": boolean,
}

PARSERS = {
    "VARCHAR2": parse_text,
    "CHAR": parse_text,
    "LONG": parse_text,
    "NUMBER": parse_number,
    "DATE": parse_datetime,
    "RAW": bytes,
    "TIMESTAMP": parse_datetime,
    "TIMESTAMP WITH TIME ZONE": parse_timestamp_tz,
    "INTERVAL DAY TO SECOND": parse_interval,
    # 01 00 for false and 02 01 01 for true from drivers of release 3, without the first byte from later ones.
    "BOOLEAN": lambda data: data[-1:] != b"\x00",
}
