"""The FROM list and the WHERE of one SELECT: what is read, what is filtered where, and how tables are joined.

A condition is tested as early as it can be: an equality with a constant goes down to the table, which may have its
rows partitioned by it; a condition of one table filters that table; an equality of two tables makes a hash join.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import count, islice
from typing import NamedTuple

from sqlglot import exp

from .expr import Expr
from .expressions import Scope
from .grammar import name_of, position, unknown
from .model import Column
from .operations import aligned

BATCH = 1000


class Joined(NamedTuple):
    """The rows of a FROM list, and the conditions that can only be tested on the whole row."""

    rows: Callable
    late: list[exp.Expression]


class Item(NamedTuple):
    """One table of a FROM list; on and using are of its JOIN, outer if rows without a match stay."""

    alias: str
    source: object
    on: list[exp.Expression]
    outer: bool


def watched(rows: Iterable[tuple], run) -> Iterator[tuple]:
    """Yield rows, checking the cancel flag from time to time."""
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        run.check()
        yield from batch


def filtered(rows: Iterable[tuple], tests: list[Callable], run) -> Iterator[tuple]:
    """Return the rows for which every test is true."""
    if len(tests) == 1:
        only = tests[0]
        return (row for row in rows if only(row, run))
    return (row for row in rows if all(test(row, run) for test in tests))


def numbered(rows: Iterable[tuple], tests: list[Callable], limits: list[Callable], run) -> Iterator[tuple]:
    """Yield rows with ROWNUM: a row that fails takes no number; once a limit on ROWNUM alone fails, none follows."""
    number = 1
    for row in rows:
        candidate = (*row, Decimal(number))
        if not all(limit(candidate, run) for limit in limits):
            return
        if all(test(candidate, run) for test in tests):
            number += 1
            yield candidate


def levels(rows: Iterable[tuple], test: Callable, run) -> Iterator[tuple]:
    """Yield the rows of CONNECT BY without PRIOR over one row: it again at each level that holds the condition."""
    for row in islice(rows, 1):
        for level in count(1):
            candidate = (*row, Decimal(level))
            if level > 1 and not test(candidate, run):
                return
            if not level % BATCH:
                run.check()
            yield candidate


def conjuncts(node: exp.Expression | None) -> list[exp.Expression]:
    """Return the conditions that AND joins."""
    if node is None:
        return []
    if isinstance(node, exp.Paren):
        return conjuncts(node.this)
    return conjuncts(node.this) + conjuncts(node.expression) if isinstance(node, exp.And) else [node]


def compile_from(queries, tree: exp.Select, scope: Scope) -> Joined:
    """Compile the FROM list and WHERE of a SELECT as one stream of rows; fills the scope with its columns."""
    where = tree.args.get("where")
    open_conditions = conjuncts(where.this if where else None)
    items = _items(queries, tree, scope, open_conditions)
    spans, start = [], 0
    for item in items:
        scope.columns += [(item.alias, column) for column in item.source.columns]
        spans.append((start, len(scope.columns)))
        start = len(scope.columns)
    open_conditions = [node for node in open_conditions if not any(node is on for item in items for on in item.on)]
    rows = None
    for item, span in zip(items, spans):
        usable = _usable(queries, open_conditions, scope, span[1])
        mine = [node for node in usable if item.outer is False]
        own = [node for node in mine if _places(node, scope) and min(_places(node, scope)) >= span[0]]
        table = _table_rows(queries.compiler, item, own, scope, span)
        links = [*item.on, *(node for node in mine if not any(node is taken for taken in own))]
        rows = table if rows is None and not links else _join(queries.compiler, rows, table, item, links, scope, span)
        open_conditions = [node for node in open_conditions if not any(node is done for done in mine)]
    return Joined(rows, open_conditions)


def _items(queries, tree: exp.Select, scope: Scope, conditions: list[exp.Expression]) -> list[Item]:
    first = tree.args["from_"].this
    nodes = [(first, None), *((join.this, join) for join in (first.args.get("joins") or []))]
    nodes += [(join.this, join) for join in tree.args.get("joins") or []]
    items = []
    for node, join in nodes:
        alias, source = queries.source(node, scope.parent)
        marked = [c for c in conditions if _marked(c, alias)]
        side = (join.args.get("side") or "").upper() if join else ""
        if join and join.args.get("method"):
            raise unknown(join)
        if join and (side not in ("", "LEFT") or (join.args.get("kind") or "") not in ("", "INNER", "OUTER", "CROSS")):
            raise unknown(join)
        on = conjuncts(join.args.get("on")) if join else []
        on += _using(join, items, alias) if join else []
        items.append(Item(alias, source, on + marked, side == "LEFT" or bool(marked)))
    return items


def _marked(condition: exp.Expression, alias: str) -> bool:
    return any(
        c.args.get("join_mark") and name_of(c.args.get("table")) == alias for c in condition.find_all(exp.Column)
    )


def _using(join: exp.Join, items: list[Item], alias: str) -> list[exp.Expression]:
    made = []
    for name in join.args.get("using") or []:
        text = name_of(name)
        owner = next((i.alias for i in items if any(c.name == text for c in i.source.columns)), items[0].alias)
        pair = (
            exp.column(exp.to_identifier(text, quoted=True), table=exp.to_identifier(t, quoted=True))
            for t in (owner, alias)
        )
        made.append(exp.EQ(this=next(pair), expression=next(pair)))
    return made


def _places(node: exp.Expression, scope: Scope) -> set[int]:
    """Return the row places that a condition names."""
    found = set()
    for column in node.find_all(exp.Column):
        index = scope.find(name_of(column.args.get("table")), name_of(column.this))
        if index is not None:
            found.add(index)
    return found


def _usable(queries, conditions: list[exp.Expression], scope: Scope, end: int) -> list[exp.Expression]:
    """Return the conditions that need no more than the first `end` places, no subquery and no ROWNUM."""
    found = []
    for node in conditions:
        pseudo = any(name_of(c.this) in ("ROWNUM", "LEVEL") for c in node.find_all(exp.Column))
        if pseudo or node.find(exp.Select):
            continue
        places = _places(node, scope)
        if places and max(places) < end:
            found.append(node)
    return found


def _table_rows(compiler, item: Item, own: list[exp.Expression], scope: Scope, span: tuple[int, int]) -> Callable:
    start, end = span
    inner = Scope(scope.parent)
    inner.columns = scope.columns[start:end]
    tests = [compiler.condition(node, inner) for node in own]
    equal = _equalities(compiler, own, inner)
    scope.correlated = scope.correlated or inner.correlated
    source = item.source

    def rows(run) -> Iterable[tuple]:
        known = {place: expr.fn((), run) for place, expr in equal.items()}
        found = watched(source.rows(run, known), run)
        return filtered(found, tests, run) if tests else found

    return rows


def _equalities(compiler, own: list[exp.Expression], inner: Scope) -> dict[int, Expr]:
    found = {}
    for node in own:
        if not isinstance(node, exp.EQ):
            continue
        sides = compiler.compile(node.this, inner), compiler.compile(node.expression, inner)
        for column, other in (sides, sides[::-1]):
            if column.index is not None and other.constant:
                found[column.index] = other
    return found


def _join(compiler, left: Callable | None, right: Callable, item: Item, links: list, scope: Scope, span) -> Callable:
    whole = Scope(scope.parent)
    whole.columns = scope.columns[: span[1]]
    pairs, tests = [], []
    for node in links:
        pair = _hash_pair(compiler, node, whole, span[0])
        if pair:
            pairs.append(pair)
        else:
            tests.append(compiler.condition(node, whole))
    scope.correlated = scope.correlated or whole.correlated
    keys = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    nothing = (None,) * (span[1] - span[0])
    left = left or (lambda run: iter([()]))

    def rows(run) -> Iterator[tuple]:
        table: dict = {}
        pad = (None,) * span[0]
        for row in right(run):
            key = tuple([fn(pad + row, run) for fn in keys[1]])
            if None not in key:
                table.setdefault(key, []).append(row)
        for row in left(run):
            key = tuple([fn(row, run) for fn in keys[0]])
            found = (row + other for other in table.get(key, ()))
            matches = list(filtered(found, tests, run)) if tests else list(found)
            yield from matches
            if not matches and item.outer:
                yield row + nothing

    return rows


def _hash_pair(compiler, node: exp.Expression, whole: Scope, start: int) -> tuple[Callable, Callable] | None:
    if not isinstance(node, exp.EQ) or node.find(exp.Select):
        return None
    sides = [(_places(side, whole), compiler.compile(side, whole)) for side in (node.this, node.expression)]
    for (left_places, left), (right_places, right) in (sides, sides[::-1]):
        if left_places and right_places and max(left_places) < start <= min(right_places):
            return aligned(left, right, position(node))
    return None


class Single:
    """DUAL: one row, one column."""

    def __init__(self):
        self.columns = [Column("DUMMY", "VARCHAR2", 1)]

    def rows(self, run, equal: dict[int, object]) -> list[tuple]:
        """Return the one row."""
        return [("X",)]
