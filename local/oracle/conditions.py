"""Conditions compiled to closures: comparisons, LIKE, IN, and the logic of True, False and None that joins them.

Each function gets the compiler of expressions as `self`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from sqlglot import exp

from . import operations
from .expr import Expr, converted
from .grammar import position, unknown
from .model import OracleError
from .operations import compared


def _not(self, node: exp.Not, scope) -> Expr:
    inner = self.condition(node.this, scope)

    def negation(row, run):
        value = inner(row, run)
        return None if value is None else not value

    return Expr(negation, "BOOLEAN")


def _logic(self, node: exp.And | exp.Or, scope) -> Expr:
    left, right = self.condition(node.this, scope), self.condition(node.expression, scope)
    decisive = isinstance(node, exp.Or)

    def logic(row, run):
        first = left(row, run)
        if first is decisive:
            return decisive
        second = right(row, run)
        if second is decisive:
            return decisive
        return None if first is None or second is None else not decisive

    return Expr(logic, "BOOLEAN")


_COMPARISONS = {exp.EQ: operator.eq, exp.NEQ: operator.ne, exp.LT: operator.lt, exp.LTE: operator.le}
_COMPARISONS |= {exp.GT: operator.gt, exp.GTE: operator.ge}


def _compare(self, node: exp.Binary, scope) -> Expr:
    if isinstance(node.this, exp.Tuple) or isinstance(node.expression, (exp.All, exp.Any)):
        raise unknown(node)
    pair = self.compile(node.this, scope), self.compile(node.expression, scope)
    return Expr(compared(_COMPARISONS[type(node)], *pair, position(node)), "BOOLEAN")


def _is(self, node: exp.Is, scope) -> Expr:
    if not isinstance(node.expression, exp.Null):
        raise OracleError(908, "missing NULL keyword", position(node))
    fn = self.compile(node.this, scope).fn
    return Expr(lambda row, run: fn(row, run) is None, "BOOLEAN")


def _like(self, node: exp.Like, scope, escape: Expr | None = None) -> Expr:
    value, pattern = self.all([node.this, node.expression], scope)
    text, model = converted(value, "VARCHAR2"), converted(pattern, "VARCHAR2")
    mark = escape.fn if escape else lambda row, run: None

    wanted = not node.args.get("negate")

    def like(row, run):
        a, b = text(row, run), model(row, run)
        if a is None or b is None:
            return None
        return (operations.like_pattern(b, mark(row, run)).fullmatch(a) is not None) is wanted

    return Expr(like, "BOOLEAN")


def _escape(self, node: exp.Escape, scope) -> Expr:
    if not isinstance(node.this, exp.Like):
        raise unknown(node)
    return _like(self, node.this, scope, self.compile(node.expression, scope))


def _in(self, node: exp.In, scope) -> Expr:
    if node.args.get("query") is not None:
        return self.query.membership(node, scope)
    if not node.expressions:
        raise unknown(node)
    value = self.compile(node.this, scope)
    tests = [compared(operator.eq, value, self.compile(item, scope), position(node)) for item in node.expressions]
    return Expr(operations.any_of(tests), "BOOLEAN")


HANDLERS: dict[type, Callable] = {
    exp.Not: _not,
    exp.And: _logic,
    exp.Or: _logic,
    **dict.fromkeys(_COMPARISONS, _compare),
    exp.Is: _is,
    exp.Like: _like,
    exp.Escape: _escape,
    exp.In: _in,
}
