"""PL/SQL's control statements: each reads its words from the parser `self` and gives the step that runs it."""

from __future__ import annotations

from collections.abc import Callable

from . import plsql_sql
from .model import OracleError
from .plsql_names import Names, Step, not_compiled, unexpected
from .sql import Interrupted


def sequence(steps: list[Step]) -> Step:
    """Return one step that runs several, one after the other."""
    if len(steps) == 1:
        return steps[0]

    def run_all(run) -> None:
        for step in steps:
            step(run)

    return run_all


def guarded(body: Step, handlers: list[tuple[list[int | None], Step]]) -> Step:
    """Return a block's body with its exception handlers; the key None is OTHERS, which an interrupted call skips."""

    def run_guarded(run) -> None:
        try:
            body(run)
        except Interrupted:
            raise
        except OracleError as error:
            for keys, handler in handlers:
                if None in keys or error.code in keys:
                    with run.session.handling(error):
                        return handler(run)
            raise

    return run_guarded


def _if(self) -> Step:
    branches, default = [], None
    while not branches or self.skip("ELSIF"):
        test = self.condition(self.until("THEN"))
        self.take("THEN")
        branches.append((test, self.statements("ELSIF", "ELSE", "END")))
    if self.skip("ELSE"):
        default = self.statements("END")
    for word in ("END", "IF", ";"):
        self.take(word)

    def run_if(run) -> None:
        for holds, step in branches:
            if holds((), run):
                return step(run)
        return default(run) if default else None

    return run_if


def _for(self) -> Step:
    """Compile FOR record IN (SELECT …) LOOP … END LOOP."""
    outer, self.names = self.names, Names(self.names)
    name = self.take().word
    self.take("IN")
    words = self.until("LOOP")
    if not words or words[0].bare != "(":
        raise unexpected(words[0] if words else self.token, self.token)
    turns = plsql_sql.query_turns(self, name, words)
    self.take("LOOP")
    body = self.statements("END")
    for word in ("END", "LOOP", ";"):
        self.take(word)
    self.names = outer

    def run_loop(run) -> None:
        for _ in turns(run):
            run.check()
            body(run)

    return run_loop


def _unknown(self) -> Step:
    token = self.words[self.at - 1]
    raise not_compiled(token, "PLS-00103", f"the stand-in does not know {token.word} here")


def _raise(self) -> Step:
    if self.word != ";":
        raise not_compiled(self.token, "PLS-00103", f"the stand-in does not know RAISE {self.token.word}")
    self.take(";")
    return lambda run: run.session.raise_again()


def _nothing(self) -> Step:
    self.take(";")
    return lambda run: None


def _transaction(end: str) -> Callable[..., Step]:
    def build(self) -> Step:
        self.skip("WORK")
        self.take(";")
        return lambda run: getattr(run.session, end)()

    return build


STATEMENTS: dict[str, Callable[..., Step]] = {
    "IF": _if,
    "FOR": _for,
    "RAISE": _raise,
    "NULL": _nothing,
    "COMMIT": _transaction("commit"),
    "ROLLBACK": _transaction("rollback"),
    **dict.fromkeys(("CASE", "CONTINUE", "EXECUTE", "EXIT", "LOOP", "RETURN", "WHILE"), _unknown),
}
