"""PL/SQL's control statements: each reads its words from the parser `self` and gives the step that runs it."""

from __future__ import annotations

import operator
from collections.abc import Callable

from . import plsql_sql
from .model import OracleError
from .operations import compared
from .plsql_names import Continue, Exit, Jump, Names, Return, Step, UserException, catches, undeclared
from .sql import Interrupted


def sequence(steps: list[Step]) -> Step:
    """Return one step that runs several, one after the other."""
    if len(steps) == 1:
        return steps[0]

    def run_all(run) -> None:
        for step in steps:
            step(run)

    return run_all


def guarded(body: Step, handlers: list[tuple[list[object], Step]]) -> Step:
    """Return a block's body with its exception handlers; the key None is OTHERS, which an interrupted call skips."""

    def run_guarded(run) -> None:
        try:
            body(run)
        except Interrupted:
            raise
        except OracleError as error:
            for keys, handler in handlers:
                if any(key is None or catches(key, error) for key in keys):
                    with run.session.handling(error):
                        return handler(run)
            raise

    return run_guarded


def _if(self) -> Step:
    branches, default = [], None
    test = self.condition(self.until("THEN"))
    self.take("THEN")
    branches.append((test, self.statements("ELSIF", "ELSE", "END")))
    while self.skip("ELSIF"):
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


def _case(self) -> Step:
    """Compile CASE [selector] WHEN … THEN …; without a match and ELSE it is ORA-06592."""
    subject = None if self.word == "WHEN" else self.expression(self.until("WHEN"))
    branches = []
    while self.skip("WHEN"):
        words = self.until("THEN")
        test = self.condition(words) if subject is None else compared(operator.eq, subject, self.expression(words))
        self.take("THEN")
        branches.append((test, self.statements("WHEN", "ELSE", "END")))
    default = self.statements("END") if self.skip("ELSE") else None
    for word in ("END", "CASE", ";"):
        self.take(word)

    def run_case(run) -> None:
        step = next((step for holds, step in branches if holds((), run)), default)
        if step is None:
            raise OracleError(6592, "CASE not found while executing CASE statement")
        step(run)

    return run_case


def _repeated(self, turns: Callable) -> Step:
    """Compile LOOP … END LOOP [label]: its body once for each turn that the generator `turns` yields."""
    label, self.label = self.label, ""
    self.take("LOOP")
    self.labels.append(label)
    body = self.statements("END")
    self.labels.pop()
    for word in ("END", "LOOP", *([label] if label and self.word != ";" else []), ";"):
        self.take(word)

    def run_loop(run) -> None:
        for _ in turns(run):
            run.check()
            try:
                body(run)
            except (Continue, Exit) as jump:
                if jump.label not in ("", label):
                    raise
                if isinstance(jump, Exit):
                    return

    return run_loop


def _loop(self) -> Step:
    self.at -= 1
    return _repeated(self, lambda run: iter(int, 1))


def _while(self) -> Step:
    test = self.condition(self.until("LOOP"))
    return _repeated(self, lambda run: iter(lambda: bool(test((), run)), False))


def _for(self) -> Step:
    outer, self.names = self.names, Names(self.names)
    name = self.take().word
    self.take("IN")
    reverse = self.skip("REVERSE")
    words = self.until("LOOP")
    turns = plsql_sql.query_turns(self, name, words) if words and words[0].bare == "(" else None
    step = _repeated(self, turns or plsql_sql.range_turns(self, name, words, reverse))
    self.names = outer
    return step


def _jump(kind: type[Jump]) -> Callable[..., Step]:
    """Compile EXIT and CONTINUE, of the innermost loop or of a labelled one."""

    def build(self) -> Step:
        token = self.token
        label = "" if self.word in ("WHEN", ";") else self.take().word
        if label not in ("", *self.labels):
            raise undeclared(token, label)
        test = self.condition(self.until(";")) if self.skip("WHEN") else None
        self.take(";")

        def leave(run) -> None:
            if test is None or test((), run):
                raise kind(label)

        return leave

    return build


def _return(self) -> Step:
    self.take(";")

    def leave(run) -> None:
        raise Return

    return leave


def _raise(self) -> Step:
    if self.skip(";"):
        return lambda run: run.session.raise_again()
    token = self.take()
    key = self.names.exception(token.word)
    if key is None:
        raise undeclared(token, token.word)
    self.take(";")

    def raise_named(run) -> None:
        if isinstance(key, int):
            raise OracleError(key, _MESSAGES.get(key, ""))
        raise UserException(key)

    return raise_named


_MESSAGES = {1403: "no data found", 1422: "exact fetch returns more than requested number of rows"}


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
    "LOOP": _loop,
    "WHILE": _while,
    "FOR": _for,
    "CASE": _case,
    "EXIT": _jump(Exit),
    "CONTINUE": _jump(Continue),
    "RETURN": _return,
    "RAISE": _raise,
    "NULL": _nothing,
    "COMMIT": _transaction("commit"),
    "ROLLBACK": _transaction("rollback"),
    "EXECUTE": plsql_sql.execute_immediate,
}
