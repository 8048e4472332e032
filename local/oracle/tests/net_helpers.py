"""A small engine that obeys the tests, and ways to ask it over a real socket."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import in_process_server
import oracledb
import pytest

from local.oracle.faults import Faults
from local.oracle.model import Bind, Column, OracleError, Result

PASSWORD = "ti ger-Ä1"
SIZES = {"VARCHAR2": 4000, "RAW": 2000, "CHAR": 10}


class FakeSession:
    """A session that knows a few statements, listed in `FakeDatabase`."""

    def __init__(self, database: FakeDatabase, user: str):
        self.database = database
        self.user = user
        self.pending: list[tuple] = []

    @property
    def in_transaction(self) -> bool:
        return bool(self.pending)

    def execute(self, sql: str, binds: list[Bind], cancel: threading.Event) -> Result:
        self.database.calls.append((sql, binds))
        for pattern, answer in self.SENTENCES:
            if found := re.search(pattern, sql, re.IGNORECASE):
                return answer(self, found, binds, cancel)
        raise OracleError(900, "invalid SQL statement", offset=3)

    def describe(self, sql: str) -> list[Column] | None:
        return [Column("N", "NUMBER")] if sql.lower().startswith("select") else None

    def commit(self) -> None:
        self.database.committed += self.pending
        self.pending = []

    def rollback(self) -> None:
        self.pending = []

    def close(self) -> None:
        self.pending = []
        self.database.closed.append(self.user)

    def _fail(self, found: re.Match, binds: list[Bind], cancel: threading.Event) -> Result:
        raise OracleError(int(found[1]), "as you wish", offset=int(found[2] or 0))

    def _bug(self, *_: object) -> Result:
        raise KeyError("a bug in the engine")

    def _sleep(self, found: re.Match, binds: list[Bind], cancel: threading.Event) -> Result:
        self.database.asleep.set()
        if cancel.wait(float(found[1])):
            self.database.woken.set()
            raise OracleError(1013, "user requested cancel of current operation")
        self.database.slept += 1
        return Result()

    def _table(self, found: re.Match, binds: list[Bind], cancel: threading.Event) -> Result:
        columns, rows = self.database.tables[found[1].lower()]
        return Result(columns=columns, rows=iter(rows))

    def _rows(self, found: re.Match, binds: list[Bind], cancel: threading.Event) -> Result:
        columns = [Column("N", "NUMBER", precision=9, scale=0), Column("T", "VARCHAR2", 40)]
        return Result(columns=columns, rows=((n, f"row {n}") for n in range(int(found[1]))))

    def _echo(self, found: re.Match, binds: list[Bind], cancel: threading.Event) -> Result:
        columns = [Column(f"C{i}", bind.type, SIZES.get(bind.type, 0)) for i, bind in enumerate(binds)]
        return Result(columns=columns, rows=iter([tuple(bind.value for bind in binds)]))

    def _count(self, *_: object) -> Result:
        rows = self.database.committed + self.pending
        return Result(columns=[Column("N", "NUMBER")], rows=iter([(len(rows),)]))

    def _insert(self, found: re.Match, binds: list[Bind], cancel: threading.Event) -> Result:
        if any(bind.value == "bad" for bind in binds):
            raise OracleError(1, "unique constraint (ADM.T_PK) violated")
        self.pending.append(tuple(bind.value for bind in binds))
        return Result(rowcount=1)

    def _block(self, found: re.Match, binds: list[Bind], cancel: threading.Event) -> Result:
        """Run `:a := :b` and `:a := twice(:b)`, one after another; lists of numbers too."""
        values = {bind.name: bind.value for bind in binds}
        places = {bind.name: place for place, bind in enumerate(binds)}
        out = {}
        for target, twice, source in re.findall(r":(\w+) := (twice)?\(?:(\w+)", found[0]):
            value = values[source.upper()]
            out[places[target.upper()]] = values[target.upper()] = value * 2 if twice and value is not None else value
        return Result(out=out)

    SENTENCES = (
        (r"fail (\d+)(?: at (\d+))?", _fail),
        (r"\bbug\b", _bug),
        (r"sleep\(([\d.]+)\)", _sleep),
        (r"select (\d+) rows", _rows),
        (r"select count", _count),
        (r"select \* from (\w+)", _table),
        (r"^\s*select", _echo),
        (r"insert", _insert),
        (r"(?s)begin.*end", _block),
    )


class FakeDatabase:
    """The engine's side of the contract, as small as the tests of the wire can have it."""

    def __init__(self, data: Path):
        self.faults = Faults(data)
        self.service = "GENIUS"
        self.users = {"ADM": PASSWORD}
        self.tables: dict[str, tuple[list[Column], list[tuple]]] = {}
        self.calls: list[tuple[str, list[Bind]]] = []
        self.committed: list[tuple] = []
        self.closed: list[str] = []
        self.asleep, self.woken = threading.Event(), threading.Event()
        self.slept = 0

    def session(self, user: str) -> FakeSession:
        return FakeSession(self, user)

    def close(self) -> None:
        pass


class ConnectableServer(in_process_server.InProcessServer):
    """A server with a short way to connect to it."""

    def connect(self, **options: object) -> oracledb.Connection:
        settings = {"user": "adm", "password": PASSWORD, "dsn": self.dsn(), "tcp_connect_timeout": 10, **options}
        connection = oracledb.connect(**settings)
        # Bytes that are missing on the wire make a test fail, not wait for ever.
        connection.call_timeout = 8_000
        return connection


def one(connection: oracledb.Connection, *values: object) -> tuple:
    """Return the values after a round trip: bound, echoed by the engine, fetched."""
    places = ", ".join(f":{index}" for index in range(1, len(values) + 1))
    with connection.cursor() as cursor:
        return cursor.execute(f"select {places} from dual", values).fetchone()


def failure(call: object, *args: object, **kwargs: object) -> oracledb._Error:
    """Return the driver's error of a call that must fail."""
    with pytest.raises(oracledb.Error) as raised:
        call(*args, **kwargs)
    return raised.value.args[0]
