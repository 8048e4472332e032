"""The plain values that the Oracle Net side and the engine side of the stand-in exchange."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class OracleError(Exception):
    """An error as Oracle reports it.

    code: the number after ORA-; text: without that prefix; offset: position in the statement, in characters.
    """

    def __init__(self, code: int, text: str, offset: int = 0):
        super().__init__(f"ORA-{code:05d}: {text}")
        self.code = code
        self.text = text
        self.offset = offset


class Column(NamedTuple):
    """One column of a result.

    type: NUMBER, VARCHAR2, CHAR, DATE, TIMESTAMP, TIMESTAMP WITH TIME ZONE, INTERVAL DAY TO SECOND, RAW,
    or LONG; size: characters of text, bytes of RAW; a NUMBER without precision has 0, -127.
    """

    name: str
    type: str
    size: int = 0
    precision: int = 0
    scale: int = -127
    nullable: bool = True


class Bind(NamedTuple):
    """One bind value as it came over the wire.

    name: upper case, without the colon; type: as in Column, or BOOLEAN; size: the bytes the client set aside;
    value: None, Decimal or int, str, datetime (aware for TIMESTAMP WITH TIME ZONE), timedelta, bytes, float, bool.
    """

    name: str
    type: str
    value: object
    size: int = 0


class Result(NamedTuple):
    """The result of one execution.

    columns and rows are set for a query; rows yields tuples as long as columns. rowcount counts the rows that
    DML touched. out: index of a bind -> its value after a PL/SQL call, for each bind that the block may write.
    """

    columns: list[Column] | None = None
    rows: Iterator[tuple] | None = None
    rowcount: int = 0
    out: dict[int, object] | None = None
