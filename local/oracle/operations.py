"""Operators on values of Oracle's types: comparison, arithmetic, LIKE, NVL, DECODE, the fit of a column."""

from __future__ import annotations

import decimal
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

from . import values
from .expr import Expr, choice, converted
from .functions import Function
from .model import Column, OracleError


def mismatch(expected: str, got: str, offset: int = 0) -> OracleError:
    """Return the error of two types that nothing converts between."""
    return OracleError(932, f"inconsistent datatypes: expected {expected} got {got}", offset)


def aligned(left, right, offset: int = 0) -> tuple[Callable, Callable]:
    """Return the closures of two expressions, converted so that their values can be compared."""
    kinds = values.family(left.type), values.family(right.type)
    if "null" in kinds:
        return left.fn, right.fn
    if kinds[0] == kinds[1]:
        return _within_family(left, right, kinds[0])
    for target in ("number", "date", "interval", "raw", "boolean"):
        if target in kinds:
            other = kinds[1] if kinds[0] == target else kinds[0]
            if other == "text" and target not in ("interval", "boolean"):
                name = {"number": "NUMBER", "raw": "RAW"}.get(target)
                name = name or (left.type if kinds[0] == target else right.type)
                return converted(left, name), converted(right, name)
    raise mismatch(left.type, right.type, offset)


def _within_family(left, right, kind: str) -> tuple[Callable, Callable]:
    if kind == "date" and left.type != right.type and "TIMESTAMP WITH TIME ZONE" in (left.type, right.type):
        return tuple(_then(expr.fn, values.local) for expr in (left, right))
    if kind == "text" and "CHAR" in (left.type, right.type):
        return tuple(_then(expr.fn, lambda t: t and t.rstrip(" ")) for expr in (left, right))
    return left.fn, right.fn


def _then(fn: Callable, after: Callable) -> Callable:
    return lambda row, run: after(fn(row, run))


def compared(test: Callable, left: Expr, right: Expr, offset: int = 0) -> Callable:
    """Return the closure of a comparison: of converted values, and None if one is NULL."""
    first, second = aligned(left, right, offset)

    def comparison(row, run):
        a, b = first(row, run), second(row, run)
        return None if a is None or b is None else test(a, b)

    return comparison


@lru_cache(maxsize=512)
def like_pattern(pattern: str, escape: str | None) -> re.Pattern:
    """Compile a LIKE pattern to a regular expression; ORA-01424 for a wrong escape."""
    parts, letters = [], iter(pattern)
    for letter in letters:
        if escape and letter == escape:
            following = next(letters, "")
            if not following or following not in ("%", "_", escape):
                raise OracleError(1424, "missing or illegal character following the escape character")
            parts.append(re.escape(following))
        else:
            parts.append({"%": ".*", "_": "."}.get(letter) or re.escape(letter))
    return re.compile("".join(parts), re.DOTALL)


def any_of(tests: list[Callable]) -> Callable:
    """Return True if one test holds, None if none does and one is unknown."""

    def any_holds(row, run):
        unknown = False
        for test in tests:
            holds = test(row, run)
            if holds:
                return True
            unknown = unknown or holds is None
        return None if unknown else False

    return any_holds


_PLAIN = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv}


def arithmetic(name: str, left, right, offset: int) -> tuple[Callable, str]:
    """Return the closure and type of `left name right`; ORA-00932 if Oracle knows no such operation."""
    kinds = tuple(
        "number" if k in ("text", "null") else k for k in (values.family(left.type), values.family(right.type))
    )
    if set(kinds) == {"number"}:
        return _numeric(_PLAIN[name], converted(left, "NUMBER"), converted(right, "NUMBER")), "NUMBER"
    found = _with_time(name, left, right, kinds)
    if found is None:
        raise mismatch("NUMBER", left.type if kinds[0] != "number" else right.type, offset)
    operation, kind = found
    sides = [converted(e, "NUMBER") if k == "number" else e.fn for e, k in zip((left, right), kinds)]
    return _of_both(operation, *sides), kind


def _numeric(operation: Callable, left: Callable, right: Callable) -> Callable:
    def computed(row, run):
        a, b = left(row, run), right(row, run)
        if a is None or b is None:
            return None
        try:
            return operation(a, b)
        except ZeroDivisionError:
            raise OracleError(1476, "divisor is equal to zero") from None
        except decimal.InvalidOperation:
            raise OracleError(1476, "divisor is equal to zero") from None
        except decimal.Overflow:
            raise OracleError(1426, "numeric overflow") from None

    return computed


def _of_both(operation: Callable, left: Callable, right: Callable) -> Callable:
    def computed(row, run):
        a, b = left(row, run), right(row, run)
        return None if a is None or b is None else operation(a, b)

    return computed


def _with_time(name: str, left, right, kinds: tuple[str, str]) -> tuple[Callable, str] | None:
    plain = _PLAIN[name]
    if kinds == ("date", "date") and name == "Sub":
        if left.type == right.type == "DATE":
            return lambda a, b: values.days(a - b), "NUMBER"
        return lambda a, b: values.local(a) - values.local(b), "INTERVAL DAY TO SECOND"
    if kinds == ("date", "number") and name in ("Add", "Sub"):
        return lambda a, b: plain(values.whole_seconds(a), values.span(b)), "DATE"
    if kinds == ("date", "interval") and name in ("Add", "Sub"):
        return plain, left.type
    return None


def applied(function: Function, args: list[Callable]) -> Callable:
    """Return the closure of a call: NULL for a NULL argument."""
    call, needs_run = function.call, function.needs_run

    def called(row, run):
        given = [arg(row, run) for arg in args]
        if None in given:
            return None
        try:
            return call(run, *given) if needs_run else call(*given)
        except (ValueError, ArithmeticError, OverflowError):
            raise OracleError(1760, "illegal argument for function") from None

    return called


def _nvl(args: list):
    if len(args) != 2:
        raise OracleError(938 if len(args) < 2 else 939, "not enough, or too many, arguments for function")
    return choice([_then(args[0].fn, lambda value: value is not None)], args)


FORMS = {"NVL": _nvl}


def fitted(value: object, column: Column) -> object:
    """Fit a value into a column: rounded to its scale; ORA-12899 or ORA-01438 if it is too large for it."""
    if value is None:
        return None
    if column.type in ("VARCHAR2", "CHAR"):
        if column.size and len(value) > column.size:
            text = f'value too large for column "{column.name}" (actual: {len(value)}, maximum: {column.size})'
            raise OracleError(12899, text)
        return value.ljust(column.size) if column.type == "CHAR" else value
    if column.type == "NUMBER" and column.precision:
        scale = max(column.scale, -84)
        value = value.quantize(Decimal(1).scaleb(-scale), decimal.ROUND_HALF_UP) + 0
        if value and value.adjusted() >= column.precision - scale:
            raise OracleError(1438, "value larger than specified precision allowed for this column")
    return value
