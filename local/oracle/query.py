"""SELECT of one table, from its tree to an iterator of rows: filters, groups, UNION and order.

Rows are tuples. Without a group or an order, rows come out as they are read, so a large result costs no memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from sqlglot import exp

from . import aggregates
from .expr import Expr
from .expressions import Compiler, Names, Scope
from .from_list import compile_from
from .grammar import name_of, position, unknown
from .model import Column, OracleError
from .operations import compared


class Plan(NamedTuple):
    """A compiled query: its columns, and how its rows are made."""

    columns: list[Column]
    rows: Callable


class Inline:
    """A query used as a table."""

    def __init__(self, plan: Plan):
        self.columns = plan.columns
        self.rows = lambda run, equal: plan.rows(run)


class Queries:
    """Compiles the queries of one statement; `table` finds a table or view by owner and name."""

    def __init__(self, names: Names, table: Callable[[str, str], object]):
        self.table = table
        self.compiler = Compiler(names, self)

    def plan(self, tree: exp.Expression) -> Plan:
        """Compile a query as a plan; raises what Oracle raises, at the position in the parsed text."""
        if isinstance(tree, exp.Subquery):
            _refuse_beyond(tree, ("this",))
            return self.plan(tree.this)
        if isinstance(tree, exp.Union):
            _refuse_beyond(tree, ("this", "expression", "distinct", "order"))
            return _union(self, tree)
        if not isinstance(tree, exp.Select):
            raise unknown(tree)
        return _Block(self, tree).plan()

    def source(self, node: exp.Expression) -> tuple[str, object]:
        """Return the alias and the source of what FROM names."""
        _refuse_beyond(node, ("this", "db", "alias"))
        alias = name_of(node.alias)
        if isinstance(node, exp.Subquery):
            return alias, Inline(self.plan(node.this))
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            raise unknown(node)
        owner, name = name_of(node.args.get("db")), name_of(node.this)
        try:
            return alias or name, self.table(owner, name)
        except OracleError as error:
            raise OracleError(error.code, error.text, position(node)) from None

    def membership(self, node: exp.In, scope: Scope) -> Expr:
        """Compile `x IN (SELECT …)`; the query is run once, because it uses no name of the outer query."""
        plan, key = self.plan(node.args["query"]), object()
        if isinstance(node.this, exp.Tuple):
            raise unknown(node.this)
        if len(plan.columns) != 1:
            raise OracleError(913, "too many values", position(node))
        side = self.compiler.compile(node.this, scope)
        test = compared(
            operator.eq,
            side._replace(fn=lambda pair, run: side.fn(pair[0], run)),
            Expr(lambda pair, run: pair[1][0], *plan.columns[0][1:5]),
        )

        def contained(row, run):
            if key not in run.cache:
                run.cache[key] = list(plan.rows(run))
            found = [test((row, other), run) for other in run.cache[key]]
            if any(found):
                return True
            return None if None in found else False

        return Expr(contained, "BOOLEAN")


def _refuse_beyond(tree: exp.Expression, known: tuple[str, ...]) -> None:
    """Refuse each clause that is not among the known ones; none is ignored."""
    for name, part in tree.args.items():
        if part and name not in known:
            raise unknown(part if isinstance(part, exp.Expression) else tree)


class _Block:
    """One SELECT … FROM … WHERE … GROUP BY … ORDER BY while it is compiled."""

    def __init__(self, queries: Queries, tree: exp.Select):
        _refuse_beyond(tree, ("expressions", "from_", "joins", "where", "group", "order"))
        self.queries, self.tree = queries, tree
        self.compiler = queries.compiler
        self.scope = Scope()

    def plan(self) -> Plan:
        if not self.tree.args.get("from_"):
            raise OracleError(923, "FROM keyword not found where expected", position(self.tree))
        rows = self._grouped(compile_from(self.queries, self.tree, self.scope))
        names, outputs = self._outputs()
        ordering = self._ordering(names, outputs)
        project = _projection(outputs)
        columns = [output.column(name) for name, output in zip(names, outputs)]
        if not ordering:
            return Plan(columns, lambda run: project(rows(run), run))
        return Plan(columns, lambda run: project(ordered(rows(run), ordering, run), run))

    def _grouped(self, rows: Callable) -> Callable:
        tree, group = self.tree, self.tree.args.get("group")
        order = [tree.args["order"]] if tree.args.get("order") else []
        calls = aggregates.find([*tree.expressions, *order])
        if not group and not calls:
            return rows
        if group and any(value for name, value in group.args.items() if name != "expressions"):
            raise unknown(group)
        keys = list(group.expressions) if group else []
        return aggregates.compile_groups(self.compiler, self.scope, keys, calls, rows)

    def _outputs(self) -> tuple[list[str], list[Expr]]:
        names, outputs = [], []
        for node in self.tree.expressions:
            if isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star)):
                table = name_of(node.args.get("table")) if isinstance(node, exp.Column) else ""
                found = self._star(table)
            else:
                inner = node.this if isinstance(node, exp.Alias) else node
                name = name_of(node.args["alias"]) if isinstance(node, exp.Alias) else self._default_name(inner)
                found = [(name, self.compiler.compile(inner, self.scope))]
            for name, output in found:
                if output.type == "BOOLEAN" and not self.compiler.names.plsql:
                    raise OracleError(923, "FROM keyword not found where expected", position(node))
                names.append(name)
                outputs.append(output)
        return names, outputs

    def _star(self, table: str) -> list[tuple[str, Expr]]:
        if self.scope.groups is not None:
            raise OracleError(979, "not a GROUP BY expression")
        found = []
        for i, (alias, column) in enumerate(self.scope.columns):
            if table and alias != table:
                continue
            place = Expr(lambda row, run, i=i: row[i], *column[1:5], index=i, nullable=column.nullable)
            found.append((column.name, place))
        if not found:
            raise OracleError(904, f'"{table}": invalid identifier')
        return found

    def _default_name(self, node: exp.Expression) -> str:
        if isinstance(node, exp.Column):
            return name_of(node.this)
        if isinstance(node, exp.CurrentTimestamp):
            return "SYSDATE"
        return node.sql(dialect="oracle").replace(" ", "").upper()[:30]

    def _ordering(self, names: list[str], outputs: list[Expr]) -> list[tuple[Callable, bool, bool]]:
        order = self.tree.args.get("order")
        return [_order_key(self, item, names, outputs) for item in order.expressions] if order else []


def _order_key(block: _Block, item: exp.Ordered, names: list[str], outputs: list[Expr]) -> tuple[Callable, bool, bool]:
    node, descending = item.this, bool(item.args.get("desc"))
    nulls_first = bool(item.args.get("nulls_first"))
    if isinstance(node, exp.Literal) and not node.is_string:
        place = int(node.this)
        if not 1 <= place <= len(outputs):
            raise OracleError(1785, "ORDER BY item must be the number of a SELECT-list expression", position(node))
        return outputs[place - 1].fn, descending, nulls_first
    if isinstance(node, exp.Column) and not node.table and names.count(name_of(node.this)) == 1:
        return outputs[names.index(name_of(node.this))].fn, descending, nulls_first
    return block.compiler.compile(node, block.scope).fn, descending, nulls_first


def ordered(rows: Iterable[tuple], ordering: list[tuple[Callable, bool, bool]], run) -> list[tuple]:
    """Sort rows by keys of (closure, descending, NULLs first), the first key above the others."""
    found = list(rows)
    for key, descending, nulls_first in reversed(ordering):
        nulls = [row for row in found if key(row, run) is None]
        rest = [row for row in found if key(row, run) is not None]
        rest.sort(key=lambda row, key=key: key(row, run), reverse=descending)
        found = nulls + rest if nulls_first else rest + nulls
    return found


def _projection(outputs: list[Expr]) -> Callable:
    places = [output.index for output in outputs]
    if None not in places and len(places) > 1:
        getter = operator.itemgetter(*places)
        return lambda rows, run: map(getter, rows)
    closures = [output.fn for output in outputs]
    if len(closures) == 1:
        only = closures[0]
        return lambda rows, run: ((only(row, run),) for row in rows)
    return lambda rows, run: (tuple([fn(row, run) for fn in closures]) for row in rows)


def _union(queries: Queries, tree: exp.Union) -> Plan:
    left, right = queries.plan(tree.this), queries.plan(tree.expression)
    if len(left.columns) != len(right.columns):
        raise OracleError(1789, "query block has incorrect number of result columns", position(tree))
    columns = [_wider(a, b) for a, b in zip(left.columns, right.columns)]
    distinct = tree.args.get("distinct")
    ordering = _set_ordering(tree.args.get("order"), columns)

    def rows(run) -> Iterator[tuple]:
        found: Iterable = chain(left.rows(run), right.rows(run))
        found = dict.fromkeys(found) if distinct else found
        return iter(ordered(found, ordering, run)) if ordering else iter(found)

    return Plan(columns, rows)


def _wider(left: Column, right: Column) -> Column:
    if left.type != right.type and {left.type, right.type} & {"NUMBER", "DATE"} and left.size + right.size:
        raise OracleError(1790, "expression must have same datatype as corresponding expression")
    same = (left.precision, left.scale) == (right.precision, right.scale)
    exact = {} if same else {"precision": 0, "scale": -127}
    return left._replace(size=max(left.size, right.size), nullable=left.nullable or right.nullable, **exact)


def _set_ordering(order: exp.Order | None, columns: list[Column]) -> list[tuple[Callable, bool, bool]]:
    ordering = []
    for item in order.expressions if order else []:
        names = [column.name for column in columns]
        named = isinstance(item.this, exp.Column) and name_of(item.this.this) in names
        if not named and not (isinstance(item.this, exp.Literal) and 1 <= int(item.this.this) <= len(columns)):
            raise OracleError(1785, "ORDER BY item must be the number of a SELECT-list expression", position(item))
        place = names.index(name_of(item.this.this)) if named else int(item.this.this) - 1
        nulls_first = bool(item.args.get("nulls_first"))
        ordering.append((lambda row, run, place=place: row[place], bool(item.args.get("desc")), nulls_first))
    return ordering
