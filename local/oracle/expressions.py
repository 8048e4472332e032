"""Expressions compiled to closures: a tree goes in, a function of (row, run) with a type comes out.

A condition gives True, False or None, as SQL's logic has it. Everything is resolved at compile time: names to
positions in the row, functions to Python's, types to the conversions between them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from sqlglot import exp

from . import conditions, functions, operations, values
from .expr import Expr, constant, converted
from .grammar import TYPES, name_of, position, unknown
from .model import Column, OracleError


class Scope:
    """The names that one query block sees: its row's columns, and after GROUP BY the groups instead."""

    def __init__(self):
        self.columns: list[tuple[str, Column]] = []
        self.groups: list[tuple[exp.Expression, Expr]] | None = None
        self.single_group = False

    def find(self, table: str, name: str) -> int | None:
        """Return a column's place in the row; ORA-00918 if it could be two."""
        found = [i for i, (alias, c) in enumerate(self.columns) if c.name == name and table in ("", alias)]
        if len(found) > 1:
            raise OracleError(918, "column ambiguously defined")
        return found[0] if found else None


class Names(NamedTuple):
    """The names of a statement besides columns: binds and PL/SQL variables, each as a compiled expression."""

    bind: Callable[[str], Expr]
    variable: Callable[[str], Expr | None]
    plsql: bool = False


class Compiler:
    """Compiles the expressions of one statement; `query` compiles a subquery in a scope."""

    def __init__(self, names: Names, query: Callable):
        self.names = names
        self.query = query

    def compile(self, node: exp.Expression, scope: Scope) -> Expr:
        """Compile a tree as an expression; raises ORA-00904 and its like with the position in the parsed text."""
        if scope.groups is not None:
            for grouped, expr in scope.groups:
                if node == grouped:
                    return expr
        handler = _HANDLERS.get(type(node))
        if handler is None:
            raise unknown(node)
        return handler(self, node, scope)

    def all(self, nodes: list[exp.Expression], scope: Scope) -> list[Expr]:
        """Compile several trees as expressions."""
        return [self.compile(node, scope) for node in nodes]

    def condition(self, node: exp.Expression, scope: Scope) -> Callable:
        """Compile a tree as the closure of a condition."""
        expr = self.compile(node, scope)
        if expr.type not in ("BOOLEAN", "NULL"):
            raise OracleError(920, "invalid relational operator", position(node))
        return expr.fn


def _column(self: Compiler, node: exp.Column, scope: Scope) -> Expr:
    name, table = name_of(node.this), name_of(node.args.get("table"))
    index = scope.find(table, name)
    if index is not None:
        return _from_row(node, scope, index)
    found = self.names.variable(f"{table}.{name}" if table else name)
    if found is not None:
        return found
    if not table and name in functions.WITHOUT_PARENTHESES:
        return _call(self, name, [], node, scope)
    shown = f'"{table}"."{name}"' if table else f'"{name}"'
    raise OracleError(904, f"{shown}: invalid identifier", position(node))


def _from_row(node: exp.Expression, scope: Scope, index: int) -> Expr:
    if node.args.get("join_mark"):
        raise OracleError(900, "invalid SQL statement: the stand-in does not know (+)", position(node))
    if scope.groups is not None:
        for grouped, expr in scope.groups:
            if (
                isinstance(grouped, exp.Column)
                and scope.find(name_of(grouped.args.get("table")), name_of(grouped.this)) == index
            ):
                return expr
        if scope.single_group:
            raise OracleError(937, "not a single-group group function", position(node))
        raise OracleError(979, "not a GROUP BY expression", position(node))
    column = scope.columns[index][1]
    return Expr(lambda row, run: row[index], *column[1:5], index=index, nullable=column.nullable)


def _literal(self: Compiler, node: exp.Literal, scope: Scope) -> Expr:
    if node.is_string:
        return constant(node.this or None, "VARCHAR2" if node.this else "NULL", len(node.this))
    return constant(Decimal(node.this), "NUMBER")


def _placeholder(self: Compiler, node: exp.Placeholder, scope: Scope) -> Expr:
    return self.names.bind(node.name)


def _boolean(self: Compiler, node: exp.Boolean, scope: Scope) -> Expr:
    if not self.names.plsql:
        raise OracleError(904, f'"{str(node.this).upper()}": invalid identifier', position(node))
    return constant(bool(node.this), "BOOLEAN")


def _interval(self: Compiler, node: exp.Interval, scope: Scope) -> Expr:
    size = _UNITS.get(node.args["unit"].name.upper())
    if size is None:
        raise unknown(node)
    span = timedelta(microseconds=int(values.number(node.this.this) * size * 1_000_000))
    return constant(span, "INTERVAL DAY TO SECOND")


_UNITS = {"DAY": 86_400, "HOUR": 3600, "MINUTE": 60, "SECOND": 1}


def _concat(self: Compiler, node: exp.DPipe, scope: Scope) -> Expr:
    pair = self.compile(node.this, scope), self.compile(node.expression, scope)
    left, right = (converted(expr, "VARCHAR2") for expr in pair)
    size = min(sum(expr.size or 40 for expr in pair), 4000)
    return Expr(lambda row, run: (left(row, run) or "") + (right(row, run) or "") or None, "VARCHAR2", size)


def _arithmetic(self: Compiler, node: exp.Binary, scope: Scope) -> Expr:
    left, right = self.compile(node.this, scope), self.compile(node.expression, scope)
    fn, kind = operations.arithmetic(type(node).__name__, left, right, position(node))
    return Expr(fn, kind, constant=left.constant and right.constant)


def _negative(self: Compiler, node: exp.Neg, scope: Scope) -> Expr:
    inner = self.compile(node.this, scope)
    kind = inner.type if values.family(inner.type) == "interval" else "NUMBER"
    fn = converted(inner, kind)

    def negative(row, run):
        value = fn(row, run)
        return None if value is None else -value

    return Expr(negative, kind, constant=inner.constant)


def column_type(kind: exp.DataType, name: str = "") -> Column:
    """Return a type, as it is written, as a column; ORA-00902 if there is none."""
    sort = kind.this.name if isinstance(kind.this, exp.DType) else "INTERVAL"
    params = [int(param.this.this) for param in kind.expressions if param.this.this.lstrip("-").isdigit()]
    if sort == "USERDEFINED" and str(kind.args.get("kind")).upper() == "RAW":
        return Column(name, "RAW", params[0] if params else 0)
    if sort not in TYPES:
        raise OracleError(902, "invalid datatype", position(kind))
    base = TYPES[sort]
    if base != "NUMBER":
        return Column(name, base, params[0] if params and base in values.TEXTS else int(base == "CHAR"))
    if sort != "DECIMAL":
        return Column(name, base, 0, 0 if sort == "FLOAT" else 38, -127 if sort == "FLOAT" else 0)
    return Column(name, base, 0, params[0] if params else 0, params[1] if params[1:] else 0 if params else -127)


def _named_call(self: Compiler, node: exp.Anonymous, scope: Scope) -> Expr:
    return _call(self, node.name.upper(), node.expressions, node, scope)


def _call(self: Compiler, name: str, nodes: list, node: exp.Expression, scope: Scope) -> Expr:
    args = self.all(nodes, scope)
    if name in operations.FORMS:
        return operations.FORMS[name](args)
    function = functions.TABLE.get(name)
    if function is None:
        known = f"the stand-in knows {', '.join([*operations.FORMS, *functions.TABLE])}"
        raise OracleError(904, f'"{name}": invalid identifier: {known}', position(node))
    if len(args) < function.least:
        raise OracleError(938, "not enough arguments for function", position(node))
    if len(args) > function.most:
        raise OracleError(939, "too many arguments for function", position(node))
    takes = function.takes + function.takes[-1:] * len(args)
    closures = [converted(arg, kind) for arg, kind in zip(args, takes)]
    kind = function.gives
    steady = all(arg.constant for arg in args) and not function.needs_run
    return Expr(operations.applied(function, closures), kind, 4000 if kind == "VARCHAR2" else 0, constant=steady)


def _moment(self: Compiler, node: exp.Expression, scope: Scope) -> Expr:
    return _call(self, "SYSTIMESTAMP" if isinstance(node, exp.Systimestamp) else "SYSDATE", [], node, scope)


def _paren(self: Compiler, node: exp.Paren, scope: Scope) -> Expr:
    return self.compile(node.this, scope)


def _aggregate(self: Compiler, node: exp.AggFunc, scope: Scope) -> Expr:
    raise OracleError(934, "group function is not allowed here", position(node))


_HANDLERS: dict[type, Callable] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Null: lambda self, node, scope: constant(None, "NULL"),
    exp.Boolean: _boolean,
    exp.Placeholder: _placeholder,
    exp.Interval: _interval,
    **conditions.HANDLERS,
    exp.DPipe: _concat,
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Div), _arithmetic),
    exp.Neg: _negative,
    exp.Systimestamp: _moment,
    exp.CurrentTimestamp: _moment,
    exp.Anonymous: _named_call,
    exp.Paren: _paren,
    **dict.fromkeys((exp.Count, exp.Sum, exp.Min, exp.Max), _aggregate),
}
