"""The messages of the server as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, repeat

from local.oracle.datatypes import ENCODERS, TYPE_NUMBERS
from local.oracle.model import Column, OracleError
from local.oracle.requests import LONGEST_VARCHAR, Caps, Slot
from local.oracle.wire import AL32UTF8, clr, dalc, ub

ROW = b"\x07"
ROW_HEADER = b"\x06\0" + ub(0) * 2 + ub(1) + ub(0) * 3
IN_TRANSACTION = 2
NO_MORE_ROWS = OracleError(1403, "no data found")
# OCI reads the directions of binds only if this flag is set.
_DIRECTIONS_SET = 4
_IN, _IN_OUT = 32, 48
_SIZES = {
    "NUMBER": 22,
    "DATE": 7,
    "TIMESTAMP": 11,
    "TIMESTAMP WITH TIME ZONE": 13,
    "INTERVAL DAY TO SECOND": 11,
    "LONG": LONGEST_VARCHAR,
}
_TEXT = ("VARCHAR2", "CHAR", "LONG")
_SCALED = ("NUMBER", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "INTERVAL DAY TO SECOND")
_MICROSECONDS = 6

Encoder = Callable[[object], bytes]


def status(in_transaction: bool) -> bytes:
    """Encode the end of a call that gives nothing."""
    return b"\x09" + ub(IN_TRANSACTION if in_transaction else 0) + ub(0)


def end(
    caps: Caps,
    in_transaction: bool,
    error: OracleError | None = None,
    *,
    rows: int = 0,
    cursor: int = 0,
) -> bytes:
    """Encode the end of a call, with its error."""
    code = error.code if error else 0
    offset = min(error.offset, 32767) if error else 0
    head = b"\x04" + ub(IN_TRANSACTION if in_transaction else 0) + ub(0) + ub(rows) + ub(code) + ub(0) * 2
    rowid = ub(0) * 2 + b"\0" + ub(0) * 2
    middle = ub(cursor) + ub(offset) + bytes(6) + rowid + ub(0) + b"\0\0" + ub(0) * 3
    # No errors of single rows of an array.
    tail = ub(0) * 3 + ub(code) + ub(rows) + (ub(0) * 2 if caps.field_version >= 14 else b"")
    return head + middle + tail + (_message(error) if error else b"")


def _message(error: OracleError) -> bytes:
    return clr(f"{error}\n".encode())


def warning(code: int, text: str) -> bytes:
    """Encode the warning of a login that succeeds."""
    message = f"ORA-{code:05d}: {text}".encode()
    return b"\x0f" + ub(code) + ub(len(message)) + ub(0) + clr(message)


def describe(caps: Caps, columns: list[Column]) -> bytes:
    """Return the columns of a query after an empty text, the only form on which thin and thick agree."""
    body = b"".join(_column(caps, position, column) for position, column in enumerate(columns, 1))
    size = sum(buffer_size(column) for column in columns)
    count = len(columns)
    return b"\x10\0" + ub(size) + ub(count) + bytes((min(count, 255),)) + body + ub(0) * 6


def buffer_size(column: Column) -> int:
    """Return the bytes a client sets aside. Never 0: that would mean that the column is always null."""
    if column.type in ("VARCHAR2", "CHAR"):
        return max(1, column.size) * 4
    return _SIZES.get(column.type) or max(1, column.size)


def _scale(caps: Caps, column: Column) -> bytes:
    fixed = _MICROSECONDS if column.type in _SCALED else 0
    scale = column.scale if column.type == "NUMBER" else fixed
    return bytes((scale & 0xFF,)) if caps.raw_scale or column.type not in _SCALED else ub(scale)


def _column(caps: Caps, position: int, column: Column) -> bytes:
    is_text = column.type in _TEXT
    name = column.name.encode()
    return b"".join(
        (
            bytes((TYPE_NUMBERS[column.type], 0, column.precision & 0xFF)),
            _scale(caps, column),
            ub(buffer_size(column)) + ub(0) * 4,
            ub(AL32UTF8 if is_text else 0) + bytes((is_text,)),
            ub(column.size if is_text else 0) + (ub(0) if caps.field_version >= 8 else b""),
            bytes((column.nullable, min(len(name), 255))) + dalc(name),
            ub(0) * 2 + ub(position) + ub(0),
        )
    )


def rows(functions: list[Encoder], values: Iterable[tuple]) -> bytes:
    """Encode rows of a query; column by column, since that keeps the work out of Python's loops."""
    columns = [map(function, column) for function, column in zip(functions, zip(*values, strict=True), strict=True)]
    return b"".join(chain.from_iterable(zip(repeat(ROW), *columns)))


def directions(count: int, written: Iterable[int]) -> bytes:
    """Encode which binds of a block come back.

    All that do are IN OUT: a bind called OUT because its first value was null would lose its later ones.
    """
    flags = bytearray((_IN,)) * count
    for index in written:
        flags[index] = _IN_OUT
    return b"\x0b" + bytes((_DIRECTIONS_SET,)) + ub(count % 256) + ub(count // 256) + ub(1) + ub(0) * 3 + flags


def out_values(slots: list[Slot], out: dict[int, object]) -> bytes:
    """Encode the values of one block's OUT binds."""
    return ROW + b"".join(_out_value(slots[index], out[index]) for index in sorted(out))


def _out_value(slot: Slot, value: object) -> bytes:
    """Encode a value as the client's variable takes it, then its indicator."""
    if slot.type in _TEXT and value is not None:
        return _out_text(slot, value if isinstance(value, str) else _as_text(value)) + ub(0)
    encode = ENCODERS["RAW" if slot.type == "LONG" else slot.type]
    return encode(value) + ub(0)


def _as_text(value: object) -> str:
    if isinstance(value, (int, float)) or hasattr(value, "as_tuple"):
        return format(value)
    raise OracleError(6502, "PL/SQL: numeric or value error: a bind of the wrong type")


def _out_text(slot: Slot, value: str) -> bytes:
    data = value.encode("utf-16-be" if slot.form == 2 else "utf-8")
    if slot.size and len(data) > slot.size:
        raise OracleError(6502, "PL/SQL: numeric or value error: character string buffer too small")
    return clr(data)
