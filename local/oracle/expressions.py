"""Expressions compiled to closures: a tree goes in, a function of (row, run) with a type comes out.

A condition gives True, False or None, as SQL's logic has it. Everything is resolved at compile time: names to
positions in the row, functions to Python's, types to the conversions between them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from sqlglot import exp

from . import conditions, functions, operations, values
from .expr import Expr, choice, constant, converted
from .grammar import TYPES, name_of, position, unknown
from .model import Column, OracleError
from .operations import compared


class Scope:
    """The names that one query block sees: its row's columns, and beyond them those of the block around it."""

    def __init__(self, parent: Scope | None = None):
        self.parent = parent
        self.depth = parent.depth + 1 if parent else 0
        self.columns: list[tuple[str, Column]] = []
        self.correlated = False
        self.groups: list[tuple[exp.Expression, Expr]] | None = None
        self.single_group = False

    def find(self, table: str, name: str) -> int | None:
        """Return a column's place in the row; ORA-00918 if it could be two."""
        found = [i for i, (alias, c) in enumerate(self.columns) if c.name == name and table in ("", alias)]
        if len(found) > 1:
            raise OracleError(918, "column ambiguously defined")
        return found[0] if found else None


class Names(NamedTuple):
    """What a statement may name besides columns: binds and PL/SQL variables, each as a compiled expression."""

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
    level: Scope | None = scope
    while level is not None:
        index = level.find(table, name)
        if index is not None:
            return _from_row(node, level, scope, index)
        level = level.parent
    found = self.names.variable(f"{table}.{name}" if table else name)
    if found is not None:
        return found
    if not table and name in functions.WITHOUT_PARENTHESES:
        return _call(self, name, [], node, scope)
    shown = f'"{table}"."{name}"' if table else f'"{name}"'
    raise OracleError(904, f"{shown}: invalid identifier", position(node))


def _from_row(node: exp.Expression, level: Scope, scope: Scope, index: int) -> Expr:
    if level.groups is not None and level is scope:
        for grouped, expr in level.groups:
            if (
                isinstance(grouped, exp.Column)
                and level.find(name_of(grouped.args.get("table")), name_of(grouped.this)) == index
            ):
                return expr
        if level.single_group:
            raise OracleError(937, "not a single-group group function", position(node))
        raise OracleError(979, "not a GROUP BY expression", position(node))
    column = level.columns[index][1]
    facts = (column.type, column.size, column.precision, column.scale)
    if level is scope:
        return Expr(_getter(index), *facts, index=index, nullable=column.nullable)
    inner: Scope | None = scope
    while inner is not level:
        inner.correlated = True
        inner = inner.parent
    depth = level.depth
    return Expr(lambda row, run: run.rows[depth][index], *facts)


def _getter(index: int) -> Callable:
    return lambda row, run: row[index]


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


def _date_literal(self: Compiler, node: exp.Expression, scope: Scope) -> Expr:
    text = node.this.this
    try:
        if isinstance(node, exp.DateStrToDate):
            return constant(datetime.strptime(text, "%Y-%m-%d"), "DATE")
        found = datetime.fromisoformat(re.sub(r"\s+([-+]\d)", r"\1", re.sub(r"\.\d+", _six_digits, text)))
    except ValueError:
        raise OracleError(1861, "literal does not match format string", position(node)) from None
    return constant(found, "TIMESTAMP WITH TIME ZONE" if found.tzinfo else "TIMESTAMP")


def _six_digits(match: re.Match) -> str:
    return match.group().ljust(7, "0")[:7]


def _interval(self: Compiler, node: exp.Interval, scope: Scope) -> Expr:
    text, unit = node.this.this, node.args["unit"]
    if isinstance(unit, exp.IntervalSpan):
        match = re.fullmatch(r"([-+]?)(\d+)(?: (\d+)(?::(\d+)(?::(\d+(?:\.\d+)?))?)?)?", text)
        if match is None or unit.this.name.upper() != "DAY":
            raise OracleError(1867, "the interval is invalid", position(node))
        sign, *parts = match.groups()
        day, hour, minute = (int(part or 0) for part in parts[:3])
        span = timedelta(days=day, hours=hour, minutes=minute, seconds=float(parts[3] or 0))
        return constant(-span if sign == "-" else span, "INTERVAL DAY TO SECOND")
    span = functions.numtodsinterval(values.number(text), unit.name)
    return constant(span, "INTERVAL DAY TO SECOND")


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
    kind = inner.type if values.family(inner.type) in ("interval", "double") else "NUMBER"
    fn = converted(inner, kind)

    def negative(row, run):
        value = fn(row, run)
        return None if value is None else -value

    return Expr(negative, kind, constant=inner.constant)


def _case(self: Compiler, node: exp.Case, scope: Scope) -> Expr:
    subject = self.compile(node.this, scope) if node.this else None
    tests = []
    for branch in node.args["ifs"]:
        if subject is None:
            tests.append(self.condition(branch.this, scope))
        else:
            tests.append(compared(operator.eq, subject, self.compile(branch.this, scope)))
    results = [self.compile(branch.args["true"], scope) for branch in node.args["ifs"]]
    default = self.compile(node.args["default"], scope) if node.args.get("default") else constant(None, "NULL")
    return choice(tests, [*results, default])


def _cast(self: Compiler, node: exp.Cast, scope: Scope) -> Expr:
    inner, column = self.compile(node.this, scope), column_type(node.args["to"])
    fn = converted(inner, column.type)
    return Expr(
        lambda row, run: operations.fitted(fn(row, run), column, cut=True), *column[1:5], constant=inner.constant
    )


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


def _extract(self: Compiler, node: exp.Extract, scope: Scope) -> Expr:
    fn, part = self.compile(node.expression, scope).fn, node.this.name.upper()
    if part not in operations.PARTS:
        raise OracleError(907, "missing right parenthesis", position(node))
    return Expr(lambda row, run: operations.extract(fn(row, run), part), "NUMBER")


def _trim(self: Compiler, node: exp.Trim, scope: Scope) -> Expr:
    side, removed = (node.args.get("position") or "BOTH").upper(), node.args.get("expression")
    text = converted(self.compile(node.this, scope), "VARCHAR2")
    letters = converted(self.compile(removed, scope), "VARCHAR2") if removed else lambda row, run: " "
    strip = {"BOTH": str.strip, "LEADING": str.lstrip, "TRAILING": str.rstrip}[side]

    def trimmed(row, run):
        value = text(row, run)
        return None if value is None else strip(value, letters(row, run)) or None

    return Expr(trimmed, "VARCHAR2", 4000)


def _named_call(self: Compiler, node: exp.Anonymous, scope: Scope) -> Expr:
    return _call(self, node.name.upper(), node.expressions, node, scope)


def _call(self: Compiler, name: str, nodes: list, node: exp.Expression, scope: Scope) -> Expr:
    args = self.all(nodes, scope)
    if name in operations.FORMS:
        return operations.FORMS[name](args)
    function = functions.TABLE.get(name)
    if function is None:
        raise OracleError(904, f'"{name}": invalid identifier', position(node))
    if len(args) < function.least:
        raise OracleError(938, "not enough arguments for function", position(node))
    if len(args) > function.most:
        raise OracleError(939, "too many arguments for function", position(node))
    takes = function.takes + function.takes[-1:] * len(args)
    closures = [converted(arg, kind) for arg, kind in zip(args, takes)]
    kind = (args[0].type if args[0].type != "NULL" else "NUMBER") if function.gives == "SAME" else function.gives
    if function.gives == "SAME":
        kind = {"TIMESTAMP": "DATE", "TIMESTAMP WITH TIME ZONE": "DATE", "VARCHAR2": "NUMBER"}.get(kind, kind)
    steady = all(arg.constant for arg in args) and not function.needs_run
    return Expr(operations.applied(function, closures), kind, 4000 if kind == "VARCHAR2" else 0, constant=steady)


def _moment(self: Compiler, node: exp.Expression, scope: Scope) -> Expr:
    return _call(self, "SYSTIMESTAMP" if isinstance(node, exp.Systimestamp) else "SYSDATE", [], node, scope)


def _paren(self: Compiler, node: exp.Paren, scope: Scope) -> Expr:
    return self.compile(node.this, scope)


def _subquery(self: Compiler, node: exp.Expression, scope: Scope) -> Expr:
    return self.query.scalar(node, scope)


def _exists(self: Compiler, node: exp.Exists, scope: Scope) -> Expr:
    return self.query.exists(node, scope)


def _aggregate(self: Compiler, node: exp.AggFunc, scope: Scope) -> Expr:
    raise OracleError(934, "group function is not allowed here", position(node))


_HANDLERS: dict[type, Callable] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Null: lambda self, node, scope: constant(None, "NULL"),
    exp.Boolean: _boolean,
    exp.Placeholder: _placeholder,
    exp.DateStrToDate: _date_literal,
    exp.StrToTime: _date_literal,
    exp.Interval: _interval,
    **conditions.HANDLERS,
    exp.DPipe: _concat,
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Div), _arithmetic),
    exp.Neg: _negative,
    exp.Case: _case,
    exp.Cast: _cast,
    exp.Extract: _extract,
    exp.Trim: _trim,
    exp.Systimestamp: _moment,
    exp.CurrentTimestamp: _moment,
    exp.Anonymous: _named_call,
    exp.Paren: _paren,
    exp.Subquery: _subquery,
    exp.Select: _subquery,
    exp.Exists: _exists,
    **dict.fromkeys((exp.Count, exp.Sum, exp.Min, exp.Max, exp.Avg), _aggregate),
}
