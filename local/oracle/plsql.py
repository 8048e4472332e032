"""PL/SQL: anonymous blocks, read once and turned into closures, then run.

The parser goes down by recursion and gives for each statement a function of the running block. Expressions and
SQL between PL/SQL's own words go to the compilers of SQL, with the block's variables in scope. What does not compile
is ORA-06550 before anything has run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import plsql_sql
from .expr import Expr
from .expressions import Compiler, Scope
from .expressions import Names as SqlNames
from .grammar import parse
from .lexer import Token, bind_name, tokens
from .model import Column, OracleError
from .plsql_control import STATEMENTS, guarded, sequence
from .plsql_names import Names, Step, not_compiled, simple_type, undeclared, unexpected
from .query import Queries
from .sql import bind_expr, bound

_TESTS = {"FOUND": " > 0", "NOTFOUND": " = 0"}


class Block(NamedTuple):
    """A compiled block: run(run) executes it; slots is the size of its frame, writes the binds that it may write."""

    run: Step
    slots: int
    writes: list[int]


def compile_block(text: str, session, types: list[tuple[str, int]]) -> Block:
    """Compile an anonymous block; types are those of its binds, by first appearance."""
    parser = Parser(text, tokens(text), session, types)
    return Block(parser.whole_block(), len(parser.names.slots), sorted(parser.writes))


class Parser:
    """One pass over a block's words."""

    def __init__(self, text: str, words: list[Token], session, types: list[tuple[str, int]]):
        self.text, self.words, self.session, self.types = text, words, session, types
        self.at = 0
        names = dict.fromkeys(bind_name(word) for word in words if word.kind == "bind")
        self.numbers = {name: i for i, name in enumerate(names)}
        self.writes: set[int] = set()
        self.names = Names()
        self.rowcount = self.names.declare("SQL%ROWCOUNT", Column("", "NUMBER"))
        self.bind = bind_expr(types)

    # --- words

    @property
    def word(self) -> str:
        """Return the next bare word, '' at the end or before anything else."""
        return self.words[self.at].bare if self.at < len(self.words) else ""

    @property
    def token(self) -> Token:
        """Return the next token; at the end it raises the error that something is missing."""
        if self.at >= len(self.words):
            raise unexpected(None, self.words[-1])
        return self.words[self.at]

    def take(self, *expected: str) -> Token:
        """Take the next token, which must be one of these words if any are given."""
        token = self.token
        if expected and token.bare not in expected:
            raise unexpected(token, token)
        self.at += 1
        return token

    def skip(self, word: str) -> bool:
        """Take a word if it is next."""
        if self.word != word:
            return False
        self.at += 1
        return True

    def until(self, *ends: str) -> list[Token]:
        """Take the tokens before one of these words outside parentheses and CASE … END."""
        start, depth, cases = self.at, 0, 0
        while depth or cases or self.token.bare not in ends:
            word = self.take().bare
            depth += (word == "(") - (word == ")")
            cases += (word == "CASE") - (word == "END" and cases > 0)
            if depth < 0:
                raise unexpected(self.words[self.at - 1], self.words[self.at - 1])
        return self.words[start : self.at]

    def source(self, words: list[Token]) -> str:
        """Return the text of some tokens, with attributes such as SQL%ROWCOUNT as one quoted name."""
        parts, at = [], words[0].start
        for i, word in enumerate(words):
            attribute = [w.bare for w in words[i : i + 3]]
            if attribute[:2] == ["SQL", "%"] and attribute[2:]:
                parts += [self.text[at : word.start], '"SQL%ROWCOUNT"', _TESTS.get(attribute[2], "")]
                at = words[i + 2].end
        return "".join([*parts, self.text[at : words[-1].end]])

    # --- expressions

    def sql_names(self) -> SqlNames:
        """Return the block's names as the SQL side wants them."""
        return SqlNames(self.bind, self.names.expr, plsql=True)

    def expression(self, words: list[Token]) -> Expr:
        """Compile an expression in the scope of the block's variables."""
        if not words:
            raise unexpected(self.token, self.token)
        queries = Queries(self.sql_names(), self.session.table)
        with self.compiling(words[0]):
            tree = parse(f"SELECT {self.source(words)} FROM DUAL", self.numbers).tree
            if len(tree.expressions) != 1:
                raise unexpected(words[0], words[0])
            return Compiler(self.sql_names(), queries).compile(tree.expressions[0].unalias(), Scope())

    def condition(self, words: list[Token]) -> Callable:
        """Compile an expression that must be a BOOLEAN."""
        expr = self.expression(words)
        if expr.type not in ("BOOLEAN", "NULL"):
            raise not_compiled(words[0], "PLS-00382", "expression is of wrong type")
        return expr.fn

    def compiling(self, token: Token) -> plsql_sql.Compiling:
        """Open a context in which SQL's errors become those of a block that does not compile."""
        return plsql_sql.Compiling(token)

    def target(self, words: list[Token]) -> Callable:
        """Compile the target of an assignment: the setter of a variable or bind, called with the run and a value."""
        first = words[0] if words else self.token
        if first.kind == "bind" and len(words) == 1:
            place = self.numbers[bind_name(first)]
            self.writes.add(place)
            return plsql_sql.bind_setter(place, *bound(self.types, place))
        name = "".join(word.word for word in words)
        variable = self.names.variable(name)
        if variable is None:
            raise undeclared(first, name)
        return variable.assign

    # --- blocks

    def whole_block(self) -> Step:
        """Compile the block that was sent, to its last word."""
        step = self.block()
        self.skip("/")
        if self.at < len(self.words):
            raise unexpected(self.token, self.token)
        return step

    def block(self) -> Step:
        """Compile [DECLARE …] BEGIN … [EXCEPTION …] END [name];"""
        outer, self.names = self.names, Names(self.names)
        setup = self.declarations() if self.skip("DECLARE") else []
        self.take("BEGIN")
        body = self.statements("EXCEPTION", "END")
        handlers = self.handlers() if self.skip("EXCEPTION") else []
        self.take("END")
        self.take(";")
        self.names = outer
        return guarded(sequence([*setup, body]), handlers) if handlers else sequence([*setup, body])

    def declarations(self) -> list[Step]:
        """Compile the declarations between DECLARE and BEGIN; the steps give variables their defaults."""
        steps = []
        while self.word != "BEGIN":
            if self.skip("PRAGMA"):
                self.pragma()
                continue
            name = self.take().word
            kind = self.until(":=", ";")
            if [word.bare for word in kind] == ["EXCEPTION"]:
                # Until PRAGMA EXCEPTION_INIT no error has this number, as no RAISE names an exception here.
                self.names.exceptions[name] = 0
                self.take(";")
                continue
            steps.append(self.variable(name, kind))
        return steps

    def variable(self, name: str, kind: list[Token]) -> Step:
        """Compile one variable; its default is computed each time that the block is entered."""
        column = self.declared_type(kind)
        start = self.token
        default = self.expression(self.until(";")).fn if self.skip(":=") else None
        self.take(";")
        variable = self.names.declare(name, column)
        if default is None:
            return lambda run: run.frame.__setitem__(variable.slot, None)
        return self.traced(start, lambda run: variable.assign(run, default((), run)))

    def declared_type(self, words: list[Token]) -> Column:
        """Return a type by its name."""
        column = simple_type(words) if words else None
        if column is None:
            raise undeclared(words[0] if words else self.token, " ".join(word.word for word in words))
        return column

    def pragma(self) -> None:
        """Compile PRAGMA EXCEPTION_INIT(name, code)."""
        words = self.until(";")
        self.take(";")
        if not words or words[0].bare != "EXCEPTION_INIT":
            raise unexpected(words[0] if words else self.token, self.token)
        name, number = words[2].word, "".join(word.text for word in words[4:-1])
        if name not in self.names.exceptions:
            raise undeclared(words[2], name)
        self.names.exceptions[name] = 1403 if number == "100" else -int(number)

    def handlers(self) -> list[tuple[list[int | None], Step]]:
        """Compile WHEN name OR name THEN …; the key None means OTHERS."""
        found = []
        while self.skip("WHEN"):
            keys = [self.exception_key(self.take())]
            while self.skip("OR"):
                keys.append(self.exception_key(self.take()))
            self.take("THEN")
            found.append((keys, self.statements("WHEN", "END")))
        return found

    def exception_key(self, token: Token) -> int | None:
        """Resolve the name of an exception to the error's number; None for OTHERS."""
        if token.bare == "OTHERS":
            return None
        key = self.names.exception(token.word)
        if key is None:
            raise undeclared(token, token.word)
        return key

    # --- statements

    def statements(self, *ends: str) -> Step:
        """Compile statements up to one of these words; there must be one at least."""
        steps = []
        while self.word not in ends or not steps:
            start = self.token
            if start.bare in ends:
                raise unexpected(start, start)
            steps.append(self.traced(start, self.statement()))
        return sequence(steps)

    def statement(self) -> Step:
        """Compile one statement with its semicolon."""
        word = self.word
        if word in ("BEGIN", "DECLARE"):
            return self.block()
        if word in STATEMENTS and not self._is_assignment():
            self.at += 1
            return STATEMENTS[word](self)
        if word in plsql_sql.STARTS:
            return plsql_sql.statement(self)
        if self._is_assignment():
            return self.assignment()
        return plsql_sql.call(self)

    def _is_assignment(self) -> bool:
        """Return whether a name or bind, perhaps with dots, and := follow."""
        at, marks = self.at + 1, [word.bare for word in self.words]
        while marks[at : at + 1] == ["."]:
            at += 2
        return marks[at : at + 1] == [":="]

    def assignment(self) -> Step:
        """Compile target := expression;"""
        setter = self.target(self.until(":="))
        self.take(":=")
        value = self.expression(self.until(";")).fn
        self.take(";")
        return lambda run: setter(run, value((), run))

    def traced(self, token: Token, step: Step) -> Step:
        """Return a statement whose errors know its line: the innermost one's, for the backtrace."""
        line = token.line

        def run_traced(run) -> None:
            run.check()
            try:
                step(run)
            except OracleError as error:
                if not getattr(error, "line", None):
                    error.line = line
                raise

        return run_traced
