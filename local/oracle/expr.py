"""A compiled expression: a function of (row, run), and the type of its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import values
from .model import Column


class Expr(NamedTuple):
    """A compiled expression; index: its place in the row if it is only a column; constant: it needs no row."""

    fn: Callable
    type: str
    size: int = 0
    precision: int = 0
    scale: int = -127
    index: int | None = None
    constant: bool = False
    nullable: bool = True

    def column(self, name: str) -> Column:
        """Return the expression as a column of a result."""
        kind = "VARCHAR2" if self.type == "NULL" else self.type
        size = (self.size or 4000) if kind in ("VARCHAR2", "CHAR", "RAW") and self.type != "NULL" else self.size
        return Column(name, kind, size, self.precision, self.scale, self.nullable)


def constant(value: object, type_name: str, size: int = 0) -> Expr:
    """Return the expression of a value that no row changes."""
    return Expr(lambda row, run: value, type_name, size, constant=True)


def converted(expr: Expr, type_name: str) -> Callable:
    """Return the expression's closure, giving values of another type."""
    fn = expr.fn
    if expr.type in (type_name, "NULL") or type_name in ("ANY", "NULL"):
        return fn
    if expr.type in values.TEXTS and type_name in values.TEXTS:
        return fn
    return lambda row, run: values.convert(fn(row, run), type_name, run.nls)


def choice(tests: list[Callable], results: list[Expr]) -> Expr:
    """Return an expression for the first result whose test is true, or else the last one.

    Each result is converted to the first known type.
    """
    kind = common_type(results)
    closures = [converted(result, kind.type) for result in results]
    pairs, default = list(zip(tests, closures)), closures[-1]

    def chosen(row, run):
        for test, result in pairs:
            if test(row, run):
                return result(row, run)
        return default(row, run)

    return Expr(chosen, kind.type, kind.size)


def common_type(results: list[Expr]) -> Expr:
    """Return the first result of a known type, as wide as the widest."""
    known = [result for result in results if result.type != "NULL"] or results
    return known[0]._replace(size=max(result.size for result in known))
