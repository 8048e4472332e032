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
from .plsql_names import Names, Return, Step, not_compiled, simple_type, undeclared, unexpected
from .query import Queries
from .sql import bind_expr, bound

_TESTS = {"FOUND": " > 0", "NOTFOUND": " = 0"}


class Block(NamedTuple):
    """A compiled block: run(run) executes it; slots is the size of its frame, writes the binds that it may write."""

    run: Step
    slots: int
    writes: list[int]


def compile_block(text: str, session, types: list[tuple[str, int]]) -> Block:
    """Compile an anonymous block, or a CALL; types are those of its binds, by first appearance."""
    words = tokens(text)
    parser = Parser(text, words, session, types)
    step = parser.call_statement() if words[0].bare == "CALL" else parser.whole_block()
    return Block(step, len(parser.names.slots), sorted(parser.writes))


class Parser:
    """One pass over a block's words."""

    def __init__(self, text: str, words: list[Token], session, types: list[tuple[str, int]]):
        self.text, self.words, self.session, self.types = text, words, session, types
        self.at = 0
        names = dict.fromkeys(bind_name(word) for word in words if word.kind == "bind")
        self.numbers = {name: i for i, name in enumerate(names)}
        self.writes: set[int] = set()
        self.names = Names()
        # The label of the loop that comes next, and those of the loops around.
        self.label, self.labels = "", []
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
        if variable.constant:
            raise not_compiled(first, "PLS-00363", f"expression '{name}' cannot be used as an assignment target")
        return variable.assign

    # --- blocks

    def whole_block(self) -> Step:
        """Compile the block that was sent, to its last word."""
        step = self.labelled() if self.word == "<<" else self.block()
        self.skip("/")
        if self.at < len(self.words):
            raise unexpected(self.token, self.token)

        def run_block(run) -> None:
            try:
                step(run)
            except Return:
                return

        return run_block

    def call_statement(self) -> Step:
        """Compile CALL procedure(…)."""
        self.take("CALL")
        self.words.append(Token("mark", ";", len(self.text), len(self.text), 1, len(self.text)))
        return self.traced(self.token, plsql_sql.call(self))

    def block(self) -> Step:
        """Compile [DECLARE …] BEGIN … [EXCEPTION …] END [name];"""
        outer, self.names = self.names, Names(self.names)
        setup = self.declarations() if self.skip("DECLARE") else []
        self.take("BEGIN")
        body = self.statements("EXCEPTION", "END")
        handlers = self.handlers() if self.skip("EXCEPTION") else []
        self.take("END")
        if self.word != ";":
            self.take()
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
            constant = self.skip("CONSTANT")
            kind = self.until(":=", "DEFAULT", ";", "NOT")
            if [word.bare for word in kind] == ["EXCEPTION"]:
                self.names.exceptions[name] = object()
                self.take(";")
                continue
            steps.append(self.variable(name, kind, constant))
        return steps

    def variable(self, name: str, kind: list[Token], constant: bool) -> Step:
        """Compile one variable; its default is computed each time that the block is entered."""
        column = self.declared_type(kind)
        if self.skip("NOT"):
            self.take("NULL")
            column = column._replace(nullable=False)
        start = self.token
        default = self.expression(self.until(";")).fn if self.skip(":=") or self.skip("DEFAULT") else None
        self.take(";")
        variable = self.names.declare(name, column, constant)
        if default is None:
            return lambda run: run.frame.__setitem__(variable.slot, None)
        return self.traced(start, lambda run: variable.assign(run, default((), run)))

    def declared_type(self, words: list[Token]) -> Column:
        """Return a type by name, or another's by %TYPE."""
        spelled = [word.word for word in words]
        if spelled[-2:] == ["%", "TYPE"]:
            path = [part for part in spelled[:-2] if part != "."]
            known = self.names.variable(".".join(path))
            if known:
                return known.column
            with self.compiling(words[0]):
                source = self.session.table(path[0] if len(path) == 3 else "", path[-2])
                found = [column for column in source.columns if column.name == path[-1]]
            if found:
                return found[0]._replace(nullable=True)
        column = simple_type(words) if words else None
        if column is None:
            raise undeclared(words[0] if words else self.token, "".join(spelled))
        return column

    def pragma(self) -> None:
        """Compile PRAGMA EXCEPTION_INIT(name, code); another is ignored, as it changes no result."""
        words = self.until(";")
        self.take(";")
        if words[0].bare != "EXCEPTION_INIT":
            return
        name, number = words[2].word, "".join(word.text for word in words[4:-1])
        if name not in self.names.exceptions:
            raise undeclared(words[2], name)
        self.names.exceptions[name] = 1403 if number == "100" else -int(number)

    def handlers(self) -> list[tuple[list[object], Step]]:
        """Compile WHEN name OR name THEN …; the key None means OTHERS."""
        found = []
        while self.skip("WHEN"):
            keys = [self.exception_key(self.take())]
            while self.skip("OR"):
                keys.append(self.exception_key(self.take()))
            self.take("THEN")
            found.append((keys, self.statements("WHEN", "END")))
        return found

    def exception_key(self, token: Token) -> object | None:
        """Resolve the name of an exception."""
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
        if word == "<<":
            return self.labelled()
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

    def labelled(self) -> Step:
        """Compile <<label>> statement; only a loop's means anything here."""
        self.take("<<")
        label = self.take().word
        self.take(">>")
        self.label = label if self.word in ("LOOP", "WHILE", "FOR") else ""
        return self.statement()

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
