"""SQL and packages in PL/SQL: SELECT INTO, changes of rows, loops over queries, calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import islice

from . import packages, sql
from .expr import constant
from .lexer import Token, split
from .model import Column, OracleError
from .plsql_names import Step, held, not_compiled, undeclared, unexpected

STARTS = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


class Compiling:
    """A context that reports SQL's errors as ORA-06550 at a token; an unknown name is PLS-00201."""

    def __init__(self, token: Token, sql_statement: bool = False):
        self.token, self.sql_statement = token, sql_statement

    def __enter__(self) -> Compiling:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if not isinstance(error, OracleError) or error.code in (6550, 1008):
            return
        if error.code == 904 and not self.sql_statement:
            raise undeclared(self.token, error.text.partition(":")[0].replace('"', "")) from None
        ignored = "SQL Statement" if self.sql_statement else "Statement"
        raise not_compiled(self.token, "PL/SQL", f"ORA-{error.code:05d}: {error.text}", ignored) from None


def bind_setter(place: int, kind: str, size: int) -> Callable:
    """Return the assignment to a bind: of the client's type, and no longer than the client's room."""
    column = Column("", kind, size if kind in ("VARCHAR2", "CHAR") and size else 0)

    def assign(run, value: object) -> None:
        run.binds[place] = held(value, column._replace(type="VARCHAR2") if kind == "CHAR" else column, run)

    return assign


def _compiled(parser, words: list[Token]) -> sql.Statement:
    with Compiling(words[0], sql_statement=True):
        return sql.compile_sql(parser.source(words), parser.session, parser.sql_names(), parser.numbers)


def statement(parser) -> Step:
    """Compile SELECT … INTO, or a change of rows."""
    words = parser.until(";")
    parser.take(";")
    compiled = _compiled(parser, words)
    setters = [parser.target(target) for target in compiled.into]
    counted = parser.rowcount
    if compiled.rows is None:
        return lambda run: counted.assign(run, Decimal(sql.execute(compiled, run.again()).rowcount))
    if not setters:
        raise not_compiled(words[0], "PLS-00428", "an INTO clause is expected in this SELECT statement")
    if len(setters) != len(compiled.columns):
        few = len(setters) < len(compiled.columns)
        text = "PL/SQL: ORA-00913: too many values" if few else "PL/SQL: ORA-00947: not enough values"
        raise not_compiled(words[0], *text.split(": ", 1), "SQL Statement")

    def select_into(run) -> None:
        _store_row(compiled.rows(run.again()), setters, run)
        counted.assign(run, Decimal(1))

    return select_into


def _store_row(rows: Iterator[tuple], setters: list[Callable], run) -> None:
    found = list(islice(rows, 2))
    if not found:
        raise OracleError(1403, "no data found")
    if len(found) > 1:
        raise OracleError(1422, "exact fetch returns more than requested number of rows")
    for setter, value in zip(setters, found[0]):
        setter(run, value)


def query_turns(parser, name: str, words: list[Token]) -> Callable:
    """Compile FOR record IN (SELECT …): a turn for each row, its columns as record.column."""
    compiled = _compiled(parser, words[1:-1])
    fields = [parser.names.declare(f"{name}.{column.name}", column) for column in compiled.columns or []]

    def turns(run) -> Iterator[None]:
        for row in compiled.rows(run.again()):
            for field, value in zip(fields, row):
                run.frame[field.slot] = value
            yield

    return turns


def call(parser) -> Step:
    """Compile procedure(a, name => b, …); with its OUT arguments stored afterwards."""
    first = parser.token
    if first.kind not in ("name", "quoted"):
        raise unexpected(first, first)
    words = parser.until("(", ";")
    name = "".join(word.word for word in words)
    procedure = packages.find(name)
    if procedure is None or not parser.session.database.privileges.may_call(parser.session.user, procedure.name):
        raise undeclared(first, name)
    given = []
    if parser.skip("("):
        given = split(parser.until(")"))
        parser.take(")")
    parser.take(";")
    matched = _matched(procedure, given, first)
    ins, outs = [], []
    for parameter in procedure.parameters:
        words = matched.get(parameter.name)
        if parameter.out and words:
            outs.append((parameter.name, parser.target(words)))
        else:
            ins.append((parameter, _argument(parser, parameter, words, first)))
    return lambda run: _called(procedure, ins, outs, run)


def _matched(procedure: packages.Procedure, given: list[list[Token]], first: Token) -> dict[str, list[Token]]:
    """Return arguments by parameter; PLS-00306 if they do not match."""
    matched: dict[str, list[Token]] = {}
    names = [parameter.name for parameter in procedure.parameters]
    for i, words in enumerate(given):
        named = len(words) > 1 and words[1].bare == "=>"
        name = words[0].word if named else names[i] if i < len(names) else ""
        if name not in names or name in matched or (not named and len(matched) < i):
            raise _wrong(procedure, first)
        matched[name] = words[2:] if named else words
    if any(p.default is packages.REQUIRED and p.name not in matched for p in procedure.parameters):
        raise _wrong(procedure, first)
    return matched


def _wrong(procedure: packages.Procedure, token: Token) -> OracleError:
    last = procedure.name.rpartition(".")[2]
    return not_compiled(token, "PLS-00306", f"wrong number or types of arguments in call to '{last}'")


def _argument(parser, parameter: packages.Parameter, words: list[Token] | None, first: Token) -> Callable:
    if words is None:
        return constant(parameter.default, "NULL").fn
    expr = parser.expression(words)
    if expr.type == "NULL":
        return expr.fn
    if (parameter.type == "BOOLEAN") != (expr.type == "BOOLEAN"):
        raise not_compiled(first, "PLS-00306", f"wrong number or types of arguments in call for '{parameter.name}'")
    column = Column(parameter.name, parameter.type)
    return lambda row, run: held(expr.fn(row, run), column, run)


def _called(procedure: packages.Procedure, ins: list, outs: list, run) -> None:
    given = {parameter.name: fn((), run) for parameter, fn in ins}
    try:
        results = procedure.call(run.again(), given) or {}
    except OracleError as error:
        error.where = [*procedure.where, *getattr(error, "where", [])]
        raise
    for name, setter in outs:
        setter(run, results.get(name))
