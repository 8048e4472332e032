"""SELECT, from its tree to an iterator of rows: joins, filters, groups, sets and order.

Rows are tuples; a join's row is the rows of its tables one after the other, and ROWNUM or LEVEL one more place at
the end. Without a group, a DISTINCT or an order, rows come out as they are read, so a large result costs no memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from sqlglot import exp

from . import aggregates, joins
from .expr import Expr
from .expressions import Compiler, Names, Scope
from .grammar import name_of, position, unknown
from .model import Column, OracleError
from .operations import compared

ROWNUM, LEVEL = Column("ROWNUM", "NUMBER"), Column("LEVEL", "NUMBER")


class Plan(NamedTuple):
    """A compiled query: its columns, how its rows are made, and whether they depend on a row of the query around it."""

    columns: list[Column]
    rows: Callable
    correlated: bool = False


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
        self.inlines: dict[str, Inline] = {}

    def plan(self, tree: exp.Expression, parent: Scope | None = None) -> Plan:
        """Compile a query as a plan; raises what Oracle raises, at the position in the parsed text."""
        if isinstance(tree, exp.Subquery) and not tree.args.get("joins"):
            return self.plan(tree.this, parent)
        common = tree.args.get("with_")
        for table in common.expressions if common else []:
            self.inlines[name_of(table.args["alias"].this)] = Inline(self.plan(table.this, parent))
        if isinstance(tree, exp.SetOperation):
            return _set_operation(self, tree, parent)
        if not isinstance(tree, exp.Select):
            raise unknown(tree)
        return _Block(self, tree, parent).plan()

    def source(self, node: exp.Expression, parent: Scope | None) -> tuple[str, object]:
        """Return the alias and the source of one item of a FROM list."""
        alias = name_of(node.alias)
        if isinstance(node, exp.Subquery):
            return alias, Inline(self.plan(node.this, parent))
        plain = isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier)
        if not plain or any(value for name, value in node.args.items() if name not in ("this", "db", "alias", "joins")):
            raise unknown(node)
        owner, name = name_of(node.args.get("db")), name_of(node.this)
        if not owner and name in self.inlines:
            return alias or name, self.inlines[name]
        try:
            return alias or name, self.table(owner, name)
        except OracleError as error:
            raise OracleError(error.code, error.text, position(node)) from None

    def scalar(self, node: exp.Expression, scope: Scope) -> Expr:
        """Compile a subquery as a value: ORA-01427 for a second row."""
        plan, values = self._nested(node, scope)
        if len(plan.columns) != 1:
            raise OracleError(913, "too many values", position(node))

        def value(row, run):
            found = values(row, run)
            if len(found) > 1:
                raise OracleError(1427, "single-row subquery returns more than one row")
            return found[0][0] if found else None

        return Expr(value, *plan.columns[0][1:5])

    def exists(self, node: exp.Exists, scope: Scope) -> Expr:
        """Compile EXISTS: only a first row is read."""
        values = self._nested(node.this, scope, limit=1)[1]
        return Expr(lambda row, run: bool(values(row, run)), "BOOLEAN")

    def membership(self, node: exp.In, scope: Scope) -> Expr:
        """Compile `x IN (SELECT …)`, also of several columns."""
        plan, values = self._nested(node.args["query"], scope)
        parts = node.this.expressions if isinstance(node.this, exp.Tuple) else [node.this]
        if len(parts) != len(plan.columns):
            raise OracleError(913 if len(parts) < len(plan.columns) else 947, "too many values", position(node))
        sides = self.compiler.all(parts, scope)
        tests = [
            compared(operator.eq, side._replace(fn=_first_of_pair(side.fn)), _of_pair(i, column))
            for i, (side, column) in enumerate(zip(sides, plan.columns))
        ]

        def contained(row, run):
            found = [[test((row, other), run) for test in tests] for other in values(row, run)]
            if any(all(matches) for matches in found):
                return True
            return None if any(False not in matches for matches in found) else False

        return Expr(contained, "BOOLEAN")

    def _nested(self, node: exp.Expression, scope: Scope, limit: int | None = None) -> tuple[Plan, Callable]:
        plan, key, depth = self.plan(node, scope), object(), scope.depth

        def values(row, run):
            if not plan.correlated and key in run.cache:
                return run.cache[key]
            run.rows[depth] = row
            found = list(islice(plan.rows(run), limit))
            if not plan.correlated:
                run.cache[key] = found
            return found

        return plan, values


def _first_of_pair(fn: Callable) -> Callable:
    return lambda pair, run: fn(pair[0], run)


def _of_pair(index: int, column: Column) -> Expr:
    return Expr(lambda pair, run: pair[1][index], *column[1:5])


class _Block:
    """One SELECT … FROM … WHERE … GROUP BY … ORDER BY while it is compiled."""

    def __init__(self, queries: Queries, tree: exp.Select, parent: Scope | None):
        for refused in ("laterals", "qualify", "windows", "sample", "match", "pivots", "locks", "into"):
            if tree.args.get(refused):
                raise unknown(tree)
        self.queries, self.tree, self.parent = queries, tree, parent
        self.compiler = queries.compiler
        self.scope = Scope(parent)

    def plan(self) -> Plan:
        if not self.tree.args.get("from_"):
            raise OracleError(923, "FROM keyword not found where expected", position(self.tree))
        rows = self._with_rownum(joins.compile_from(self.queries, self.tree, self.scope))
        rows = self._grouped(rows)
        names, outputs = self._outputs()
        ordering = self._ordering(names, outputs)
        project = _projection(outputs)
        columns = [output.column(name) for name, output in zip(names, outputs)]
        return Plan(columns, self._finished(rows, project, ordering), self.scope.correlated)

    def _with_rownum(self, source: joins.Joined) -> Callable:
        rows, late = source
        connect = self.tree.args.get("connect")
        if connect:
            rows = self._levels(rows, connect)
        uses = any(name_of(node.this) == "ROWNUM" for node in self.tree.find_all(exp.Column) if not node.table)
        if not uses:
            tests = [self.compiler.condition(node, self.scope) for node in late]
            return lambda run: joins.filtered(rows(run), tests, run) if tests else rows(run)
        self.scope.columns.append(("", ROWNUM))
        tests = [self.compiler.condition(node, self.scope) for node in late]
        limits = [test for test, node in zip(tests, late) if _only_rownum(node)]
        others = [test for test, node in zip(tests, late) if not _only_rownum(node)]
        return lambda run: joins.numbered(rows(run), others, limits, run)

    def _levels(self, rows: Callable, connect: exp.Connect) -> Callable:
        if connect.args.get("start") or connect.find(exp.Prior):
            raise unknown(connect)
        self.scope.columns.append(("", LEVEL))
        test = self.compiler.condition(connect.args["connect"], self.scope)
        return lambda run: joins.levels(rows(run), test, run)

    def _grouped(self, rows: Callable) -> Callable:
        tree, group = self.tree, self.tree.args.get("group")
        places = [*tree.expressions, tree.args.get("having"), tree.args.get("order")]
        calls = aggregates.find([place for place in places if place is not None])
        if not group and not calls:
            return rows
        if group and any(value for name, value in group.args.items() if name != "expressions"):
            raise unknown(group)
        keys = list(group.expressions) if group else []
        rows = aggregates.compile_groups(self.compiler, self.scope, keys, calls, rows)
        having = tree.args.get("having")
        if having is None:
            return rows
        test = self.compiler.condition(having.this, self.scope)
        return lambda run: joins.filtered(rows(run), [test], run)

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
            if (table and alias != table) or column in (ROWNUM, LEVEL):
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

    def _finished(self, rows: Callable, project: Callable, ordering: list) -> Callable:
        distinct = bool(self.tree.args.get("distinct"))
        if not distinct and not ordering:
            return lambda run: project(rows(run), run)

        def finished(run):
            found: Iterable = rows(run)
            if distinct:
                found = {shown: row for row in found for shown in project([row], run)}.values()
            return project(ordered(found, ordering, run), run)

        return finished


def _only_rownum(node: exp.Expression) -> bool:
    if not isinstance(node, (exp.LT, exp.LTE, exp.EQ)):
        return False
    columns = list(node.find_all(exp.Column))
    return len(columns) == 1 and node.this is columns[0] and name_of(columns[0].this) == "ROWNUM"


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


def _set_operation(queries: Queries, tree: exp.SetOperation, parent: Scope | None) -> Plan:
    left, right = queries.plan(tree.this, parent), queries.plan(tree.expression, parent)
    if len(left.columns) != len(right.columns):
        raise OracleError(1789, "query block has incorrect number of result columns", position(tree))
    columns = [_wider(a, b) for a, b in zip(left.columns, right.columns)]
    combine = _combination(tree)
    ordering = _set_ordering(tree.args.get("order"), columns)

    def rows(run) -> Iterator[tuple]:
        found = combine(left.rows(run), right.rows(run))
        return iter(ordered(found, ordering, run)) if ordering else iter(found)

    return Plan(columns, rows, left.correlated or right.correlated)


def _wider(left: Column, right: Column) -> Column:
    if left.type != right.type and {left.type, right.type} & {"NUMBER", "DATE"} and left.size + right.size:
        raise OracleError(1790, "expression must have same datatype as corresponding expression")
    same = (left.precision, left.scale) == (right.precision, right.scale)
    exact = {} if same else {"precision": 0, "scale": -127}
    return left._replace(size=max(left.size, right.size), nullable=left.nullable or right.nullable, **exact)


def _combination(tree: exp.SetOperation) -> Callable:
    if isinstance(tree, exp.Union):
        return chain if not tree.args.get("distinct") else lambda a, b: dict.fromkeys(chain(a, b))
    if isinstance(tree, exp.Except):
        return lambda a, b: (
            [row for row in dict.fromkeys(a) if row not in set(b)] if (b := set(b)) else dict.fromkeys(a)
        )
    return lambda a, b: [row for row in dict.fromkeys(a) if row in b] if (b := set(b)) else []


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
