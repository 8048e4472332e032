"""The FROM and the WHERE of one SELECT: what is read from its one table, and what is filtered where.

An equality with a constant goes down to the table, which may have its rows partitioned by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from sqlglot import exp

from .expr import Expr
from .expressions import Compiler, Scope
from .grammar import unknown
from .model import Column

BATCH = 1000


def watched(rows: Iterable[tuple], run) -> Iterator[tuple]:
    """Yield rows, checking the cancel flag from time to time."""
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        run.check()
        yield from batch


def conjuncts(node: exp.Expression | None) -> list[exp.Expression]:
    """Return the conditions that AND joins."""
    if node is None:
        return []
    if isinstance(node, exp.Paren):
        return conjuncts(node.this)
    return conjuncts(node.this) + conjuncts(node.expression) if isinstance(node, exp.And) else [node]


def compile_from(queries, tree: exp.Select, scope: Scope) -> Callable:
    """Compile FROM and WHERE of a SELECT as a stream of rows; fills the scope with the columns of its table."""
    node = tree.args["from_"].this
    for join in [*(node.args.get("joins") or []), *(tree.args.get("joins") or [])]:
        raise unknown(join)
    alias, source = queries.source(node)
    scope.columns = [(alias, column) for column in source.columns]
    where = tree.args.get("where")
    conditions = conjuncts(where.this if where else None)
    tests = [queries.compiler.condition(condition, scope) for condition in conditions]
    equal = _equalities(queries.compiler, conditions, scope)

    def rows(run) -> Iterable[tuple]:
        known = {place: expr.fn((), run) for place, expr in equal.items()}
        found = watched(source.rows(run, known), run)
        return (row for row in found if all(test(row, run) for test in tests)) if tests else found

    return rows


def _equalities(compiler: Compiler, conditions: list[exp.Expression], scope: Scope) -> dict[int, Expr]:
    found = {}
    for node in conditions:
        if not isinstance(node, exp.EQ):
            continue
        sides = compiler.compile(node.this, scope), compiler.compile(node.expression, scope)
        for column, other in (sides, sides[::-1]):
            if column.index is not None and other.constant:
                found[column.index] = other
    return found


class Single:
    """DUAL: one row, one column."""

    def __init__(self):
        self.columns = [Column("DUMMY", "VARCHAR2", 1)]

    def rows(self, run, equal: dict[int, object]) -> list[tuple]:
        """Return the one row."""
        return [("X",)]
