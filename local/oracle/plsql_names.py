"""The names of a PL/SQL block: typed variables and exceptions; and the errors of a block that does not compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import values
from .expr import Expr
from .lexer import Token
from .model import Column, OracleError
from .operations import fitted

PREDEFINED = {
    "NO_DATA_FOUND": 1403,
    "TOO_MANY_ROWS": 1422,
    "DUP_VAL_ON_INDEX": 1,
    "ZERO_DIVIDE": 1476,
    "VALUE_ERROR": 6502,
    "INVALID_NUMBER": 1722,
    "LOGIN_DENIED": 1017,
    "TIMEOUT_ON_RESOURCE": 51,
}
_INTEGERS = ["INTEGER", "INT", "SMALLINT", "PLS_INTEGER", "BINARY_INTEGER", "SIMPLE_INTEGER", "NATURAL", "POSITIVE"]
_SIMPLE = {
    **dict.fromkeys(("VARCHAR2", "VARCHAR", "NVARCHAR2", "STRING"), "VARCHAR2"),
    **dict.fromkeys(("CHAR", "NCHAR"), "CHAR"),
    **dict.fromkeys(("NUMBER", "DECIMAL", "NUMERIC", "FLOAT"), "NUMBER"),
    **{name: name for name in ("DATE", "BOOLEAN", "RAW", "LONG")},
}


class Variable(NamedTuple):
    """A variable's place in the frame and its type."""

    slot: int
    column: Column

    def expr(self) -> Expr:
        """Return the variable in an expression."""
        slot = self.slot
        return Expr(lambda row, run: run.frame[slot], *self.column[1:5], constant=True)

    def assign(self, run, value: object) -> None:
        """Convert and store; ORA-06502 for what does not fit."""
        run.frame[self.slot] = held(value, self.column, run)


def held(value: object, column: Column, run) -> object:
    """Return a value as a variable of a type holds it; ORA-06502 if it cannot."""
    try:
        return fitted(values.convert(value, column.type, run.nls), column)
    except OracleError as error:
        raise OracleError(6502, f"PL/SQL: numeric or value error{_WHY.get(error.code, '')}") from None


_WHY = {
    12899: ": character string buffer too small",
    1722: ": character to number conversion error",
    1438: ": number precision too large",
}


class Names:
    """The declarations of one block and of the blocks around it; all blocks share the slots of one frame."""

    def __init__(self, parent: Names | None = None):
        self.parent = parent
        self.slots: list[None] = parent.slots if parent else []
        self.variables: dict[str, Variable] = {}
        self.exceptions: dict[str, int] = {}

    def declare(self, name: str, column: Column) -> Variable:
        """Declare a new variable with a slot of its own."""
        self.slots.append(None)
        self.variables[name] = Variable(len(self.slots) - 1, column)
        return self.variables[name]

    def variable(self, name: str) -> Variable | None:
        """Return a variable by its name, `RECORD.FIELD` for a loop's record."""
        if name in self.variables:
            return self.variables[name]
        return self.parent.variable(name) if self.parent else None

    def exception(self, name: str) -> int | None:
        """Return the number of the error that a handler of that name catches."""
        if name in self.exceptions:
            return self.exceptions[name]
        return self.parent.exception(name) if self.parent else PREDEFINED.get(name)

    def expr(self, name: str) -> Expr | None:
        """Return a variable as an expression, for the compiler of expressions."""
        found = self.variable(name)
        return found.expr() if found else None


_LENGTH = ("(", ",", ")", "BYTE", "CHAR")


def simple_type(words: list[Token], name: str = "") -> Column | None:
    """Return a declared type such as VARCHAR2(30) or TIMESTAMP WITH TIME ZONE; None if it is none."""
    first = words[0].bare
    if first not in ("TIMESTAMP", "INTERVAL") and any(
        word.kind != "number" for word in words[1:] if word.bare not in _LENGTH
    ):
        return None
    numbers = [int(word.text) for word in words[1:] if word.kind == "number"]
    text = " ".join(word.bare for word in words if word.kind == "name")
    if first == "TIMESTAMP":
        kind = "TIMESTAMP WITH TIME ZONE" if text.endswith("TIME ZONE") else "TIMESTAMP"
        return Column(name, kind)
    if first == "INTERVAL":
        return Column(name, "INTERVAL DAY TO SECOND") if text == "INTERVAL DAY TO SECOND" else None
    if first in _INTEGERS:
        return Column(name, "NUMBER", 0, 38, 0)
    kind = _SIMPLE.get(first)
    if kind == "NUMBER" and numbers:
        return Column(name, kind, 0, numbers[0], numbers[1] if numbers[1:] else 0)
    return Column(name, kind, numbers[0] if numbers else int(kind == "CHAR")) if kind else None


def not_compiled(token: Token, code: str, text: str, ignored: str = "Statement") -> OracleError:
    """Return ORA-06550 in Oracle's words: the place, the error, and the statement that was ignored."""
    where = f"line {token.line}, column {token.column}:"
    return OracleError(6550, f"{where}\n{code}: {text}\nORA-06550: {where}\nPL/SQL: {ignored} ignored", token.start)


def undeclared(token: Token, name: str) -> OracleError:
    """Return PLS-00201 in its ORA-06550."""
    return not_compiled(token, "PLS-00201", f"identifier '{name}' must be declared")


def unexpected(token: Token | None, last: Token) -> OracleError:
    """Return PLS-00103 in its ORA-06550."""
    if token is None:
        text = 'Encountered the symbol "end-of-file" when expecting one of the following:'
        return OracleError(6550, f"line {last.line}, column {last.column}:\nPLS-00103: {text}", last.start)
    text = f'Encountered the symbol "{token.word}" when expecting one of the following:'
    return OracleError(6550, f"line {token.line}, column {token.column}:\nPLS-00103: {text}", token.start)


Step = Callable[[object], None]
