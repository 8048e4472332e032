"""GROUP BY and the functions over groups.

Rows are gathered by key, then each function runs over a group's rows: sums of a group of one row cost nothing, and
a group keeps references to rows that the table holds anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import reduce
from operator import add, itemgetter

from sqlglot import exp

from .expr import Expr, converted
from .expressions import Compiler, Scope
from .grammar import unknown

KINDS = (exp.Count, exp.Sum, exp.Min, exp.Max)


def find(places: list[exp.Expression]) -> list[exp.Expression]:
    """Return the calls of group functions in some trees, each once; not those of subqueries."""
    found: list[exp.Expression] = []
    for place in places:
        for node in place.walk(prune=lambda node: isinstance(node, (exp.Select, exp.SetOperation, *KINDS))):
            if isinstance(node, exp.Window):
                raise unknown(node)
            if isinstance(node, KINDS) and node not in found:
                found.append(node)
    return found


def compile_groups(compiler: Compiler, scope: Scope, keys: list, calls: list, rows: Callable) -> Callable:
    """Compile the groups of some rows as rows of keys and results; then the scope knows nothing else."""
    key_exprs = compiler.all(keys, scope)
    results = [_call(compiler, scope, call) for call in calls]
    groups = [*zip(keys, key_exprs), *zip(calls, results)]
    scope.single_group = not keys
    scope.groups = [(node, _place(i, expr)) for i, (node, expr) in enumerate(groups)]
    key_of = _key(key_exprs)
    functions = [result.fn for result in results]

    def grouped(run) -> Iterator[tuple]:
        found: dict[tuple, list] = {} if keys else {(): []}
        for row in rows(run):
            key = key_of(row, run)
            if key in found:
                found[key].append(row)
            else:
                found[key] = [row]
        return ((*key, *[function(members, run) for function in functions]) for key, members in found.items())

    return grouped


def _place(index: int, expr: Expr) -> Expr:
    return expr._replace(fn=lambda row, run: row[index], index=index, constant=False)


def _key(exprs: list[Expr]) -> Callable:
    closures = [expr.fn for expr in exprs]
    if len(closures) == 1:
        only = closures[0]
        return lambda row, run: (only(row, run),)
    places = [expr.index for expr in exprs]
    if closures and None not in places:
        getter = itemgetter(*places)
        return lambda row, run: getter(row)
    return lambda row, run: tuple([closure(row, run) for closure in closures])


def _call(compiler: Compiler, scope: Scope, node: exp.Expression) -> Expr:
    argument = node.this
    if isinstance(node, exp.Count) and isinstance(argument, exp.Star):
        return Expr(lambda rows, run: Decimal(len(rows)), "NUMBER")
    expr = compiler.compile(argument, scope)
    if isinstance(node, exp.Count):
        values = _values(expr.fn, expr.index)
        return Expr(lambda rows, run: Decimal(len(values(rows, run))), "NUMBER")
    if isinstance(node, (exp.Min, exp.Max)):
        best, values = (min if isinstance(node, exp.Min) else max), _values(expr.fn, expr.index)
        kept = (expr.type, expr.size, expr.precision, expr.scale)
        return Expr(lambda rows, run: best(values(rows, run), default=None), *kept)
    plain = expr.type == "NUMBER"
    values = _values(converted(expr, "NUMBER"), expr.index if plain else None)
    return Expr(lambda rows, run: _sum(values(rows, run)), "NUMBER")


def _values(fn: Callable, index: int | None) -> Callable:
    """Return the values of a group that are not NULL."""

    def by_place(rows, run):
        if len(rows) == 1:
            value = rows[0][index]
            return [] if value is None else [value]
        return [row[index] for row in rows if row[index] is not None]

    def by_closure(rows, run):
        return [value for row in rows if (value := fn(row, run)) is not None]

    return by_closure if index is None else by_place


def _sum(values: list) -> Decimal | None:
    return reduce(add, values) if values else None
