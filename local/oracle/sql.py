"""One SQL statement from its text to a Result: parsed and compiled once, run with binds and a snapshot each time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlglot import exp

from . import changes, values
from .expr import Expr
from .expressions import Names
from .grammar import Parsed, name_of, parse, unknown
from .lexer import Token
from .model import Bind, Column, OracleError, Result
from .query import Queries


class Interrupted(OracleError):
    """The call was cancelled, or its job stopped; no exception handler of PL/SQL sees it."""

    def __init__(self):
        super().__init__(1013, "user requested cancel of current operation")


class Run:
    """One execution of one statement: what its closures can read."""

    __slots__ = ("binds", "cache", "cancel", "frame", "nls", "now", "session", "snapshot")

    def __init__(self, session, binds: list, cancel: threading.Event, frame: list | None = None):
        self.session, self.nls = session, session.nls
        self.now = datetime.now().astimezone()
        self.binds, self.frame = binds, frame
        self.snapshot = session.transaction.snapshot
        self.cancel = cancel
        self.cache: dict[object, list] = {}

    def again(self) -> Run:
        """Return a run for the next statement of the same call, with the time and the snapshot of now."""
        return Run(self.session, self.binds, self.cancel, self.frame)

    def check(self) -> None:
        """Raise Interrupted if it was requested."""
        if self.cancel.is_set():
            raise Interrupted


class Statement(NamedTuple):
    """A compiled statement. A query has columns and rows(run), a change has apply(run), DDL has act(run)."""

    into: list[list[Token]]
    columns: list[Column] | None = None
    rows: Callable | None = None
    apply: Callable | None = None
    act: Callable | None = None


def bind_value(bind: Bind) -> object:
    """Return a bind as the engine keeps values: '' is NULL, and a NUMBER is Decimal."""
    if bind.value == "":
        return None
    if isinstance(bind.value, int) and not isinstance(bind.value, bool):
        return Decimal(bind.value)
    if isinstance(bind.value, float) and bind.type == "NUMBER":
        return Decimal(repr(bind.value))
    return bind.value


def bound(types: list[tuple[str, int]], place: int) -> tuple[str, int]:
    """Return type and size of a bind; ORA-01008 for one that was not sent."""
    if place >= len(types):
        raise OracleError(1008, "not all variables bound")
    return types[place]


def bind_expr(types: list[tuple[str, int]]) -> Callable[[str], Expr]:
    """Return a bind's name in a statement: b0, b1, …"""

    def expr(name: str) -> Expr:
        place = int(name[1:])
        kind, size = bound(types, place)
        return Expr(lambda row, run: run.binds[place], kind, size, constant=True)

    return expr


def compile_sql(text: str, session, names: Names, numbers: dict[str, int] | None = None) -> Statement:
    """Compile one statement for a session's user; errors have their position in the text that was sent."""
    parsed = parse(text, numbers)
    try:
        return _compiled(parsed, session, names)
    except OracleError as error:
        raise OracleError(error.code, error.text, parsed.text.origin(error.offset)) from None


def _compiled(parsed: Parsed, session, names: Names) -> Statement:
    tree, into = parsed.tree, parsed.into
    queries = Queries(names, session.table)
    if isinstance(tree, (exp.Select, exp.SetOperation, exp.Subquery)):
        plan = queries.plan(tree)
        return Statement(into, plan.columns, plan.rows)
    for kind, compile_change in _CHANGES.items():
        if isinstance(tree, kind):
            return Statement(into, apply=compile_change(queries, tree))
    for kind, compile_act in _ACTS.items():
        if isinstance(tree, kind):
            return Statement(into, act=compile_act(tree, session))
    raise unknown(tree)


def _create(tree: exp.Create, session) -> Callable:
    definition = changes.created_table(tree, session.user, session.schema)
    return lambda run: run.session.database.tables.create(definition)


def _drop(tree: exp.Drop, session) -> Callable:
    if tree.args.get("kind") != "TABLE":
        raise OracleError(900, "invalid SQL statement")
    owner, name = _table_name(tree.args["tables"][0], session)
    return lambda run: run.session.database.tables.drop(owner, name)


def _table_name(node: exp.Table, session) -> tuple[str, str]:
    return name_of(node.args.get("db")) or session.schema, name_of(node.this)


_CHANGES = {exp.Insert: changes.insert, exp.Update: changes.update}
_ACTS = {exp.Create: _create, exp.Drop: _drop}


def execute(statement: Statement, run: Run) -> Result:
    """Run a compiled statement. The rows of a query are computed when they are fetched, from the snapshot of now."""
    if statement.rows is not None:
        return Result(columns=statement.columns, rows=_fetched(statement.rows(run)))
    if statement.apply is not None:
        return Result(rowcount=statement.apply(run))
    run.session.commit()
    statement.act(run)
    return Result()


def _fetched(rows: Iterable[tuple]) -> Iterator[tuple]:
    values.use_numbers()
    yield from rows
