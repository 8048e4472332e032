"""Tables that sessions create, with their transactions.

A committed state is an immutable Snapshot. A commit replaces it by a new one, so a statement, or a read-only
transaction, reads the one with which it began. Until the commit only the transaction itself sees its own rows. These
tables live as long as the process: what must survive it is in the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from .model import Column, OracleError

Name = tuple[str, str]
Rows = dict[int, tuple]


class Definition(NamedTuple):
    """The result of CREATE TABLE."""

    owner: str
    name: str
    columns: list[Column]


class Snapshot(NamedTuple):
    """One committed state: the rows of every table by row number, and who closed which period of the books when."""

    rows: dict[Name, Rows]
    closings: dict[str, dict]


class Tables:
    """All tables of a database, and the locks of the transactions that write them."""

    def __init__(self, closings: dict[str, dict]):
        self.definitions: dict[Name, Definition] = {}
        self.committed = Snapshot({}, closings)
        self.version = 0
        self.numbers = count(1)
        self.guard = threading.Lock()
        self.locks: dict[tuple[Name, int], object] = {}

    def find(self, owner: str, name: str) -> Definition:
        """Return a table; ORA-00942 if there is none."""
        found = self.definitions.get((owner, name))
        if found is None:
            raise OracleError(942, "table or view does not exist")
        return found

    def create(self, definition: Definition) -> None:
        """Create a new, empty table; ORA-00955 if its name is taken."""
        key = definition.owner, definition.name
        with self.guard:
            if key in self.definitions:
                raise OracleError(955, "name is already used by an existing object")
            self.definitions = {**self.definitions, key: definition}
            self.committed = self.committed._replace(rows={**self.committed.rows, key: {}})
            self.version += 1

    def drop(self, owner: str, name: str) -> None:
        """Remove a table."""
        self.find(owner, name)
        with self.guard:
            self.definitions = {k: v for k, v in self.definitions.items() if k != (owner, name)}
            rows = {k: v for k, v in self.committed.rows.items() if k != (owner, name)}
            self.committed = self.committed._replace(rows=rows)
            self.version += 1

    def close_period(self, period: str, mark: dict) -> None:
        """Record who closed a period of the books."""
        with self.guard:
            self.committed = self.committed._replace(closings={**self.committed.closings, period: mark})


class Transaction:
    """One session's changes: for each table, row number -> new row."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self.changes: dict[Name, Rows] = {}
        self.read_only: Snapshot | None = None
        self.locked = False

    @property
    def open(self) -> bool:
        """Return whether there is something to commit."""
        return bool(self.changes) or self.locked or self.read_only is not None

    @property
    def snapshot(self) -> Snapshot:
        """Return what this transaction's next statement sees of the others' work."""
        return self.read_only or self.tables.committed

    def rows(self, snapshot: Snapshot, key: Name) -> Rows:
        """Return a table's rows as this transaction sees them."""
        committed, own = snapshot.rows.get(key, {}), self.changes.get(key)
        return {**committed, **own} if own else committed

    def begin_write(self) -> None:
        """Raise ORA-01456 in a read-only transaction."""
        if self.read_only is not None:
            raise OracleError(1456, "may not perform insert/delete/update operation inside a READ ONLY transaction")

    def insert(self, definition: Definition, row: tuple) -> None:
        """Add a row that is already checked against its columns."""
        self.update(definition, {next(self.tables.numbers): row})

    def update(self, definition: Definition, changed: Rows) -> None:
        """Replace rows whose locks are held."""
        if changed:
            self.changes.setdefault((definition.owner, definition.name), {}).update(changed)

    def lock(self, definition: Definition, numbers: Iterable[int], run) -> None:
        """Take row locks all at once; a transaction that waits for another one checks the cancel flag."""
        keys = [((definition.owner, definition.name), number) for number in numbers]
        while True:
            with self.tables.guard:
                if all(self.tables.locks.get(key) in (None, self) for key in keys):
                    self.tables.locks.update(dict.fromkeys(keys, self))
                    self.locked = self.locked or bool(keys)
                    return
            run.check()
            time.sleep(0.005)

    def commit(self) -> None:
        """Make the changes visible to all sessions."""
        with self.tables.guard:
            rows = dict(self.tables.committed.rows)
            for key, own in self.changes.items():
                if key in rows:
                    rows[key] = {**rows[key], **own}
            if self.changes:
                self.tables.committed = self.tables.committed._replace(rows=rows)
        self._end()

    def rollback(self) -> None:
        """Forget the changes."""
        self._end()

    def _end(self) -> None:
        if self.locked:
            with self.tables.guard:
                self.tables.locks = {key: holder for key, holder in self.tables.locks.items() if holder is not self}
        self.changes, self.read_only, self.locked = {}, None, False


class TableSource:
    """A table as a query reads it."""

    def __init__(self, definition: Definition):
        self.definition = definition
        self.columns = definition.columns

    def rows(self, run, equal: dict[int, object]) -> Iterable[tuple]:
        """Return the rows that the running statement sees."""
        return run.session.transaction.rows(run.snapshot, (self.definition.owner, self.definition.name)).values()
