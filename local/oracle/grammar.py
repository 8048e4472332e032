"""Parse Oracle's SQL to trees by sqlglot's Oracle dialect, without its translation to other databases.

sqlglot rewrites functions and formats so that other databases understand them. Here every function but the
aggregates stays a call by name, since functions.py defines its meaning in Oracle.
"""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.dialects.oracle import Oracle

from .lexer import Plain, Token, cut_into, plain, tokens
from .model import OracleError

_AGGREGATES = {"COUNT": exp.Count, "SUM": exp.Sum, "MIN": exp.Min, "MAX": exp.Max}
STARTS = ("SELECT", "WITH", "(", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "TRUNCATE")
TYPES = {
    "DECIMAL": "NUMBER",
    "INT": "NUMBER",
    "BIGINT": "NUMBER",
    "SMALLINT": "NUMBER",
    "FLOAT": "NUMBER",
    "VARCHAR": "VARCHAR2",
    "NVARCHAR": "VARCHAR2",
    "CHAR": "CHAR",
    "NCHAR": "CHAR",
    "DATE": "DATE",
    "DATETIME": "DATE",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "INTERVAL": "INTERVAL DAY TO SECOND",
}


def _aggregate(kind: type[exp.Expression]):
    def build(args: list) -> exp.Expression:
        if len(args) != 1:
            raise OracleError(909, "invalid number of arguments")
        return kind(this=args[0])

    return build


class Genius(Oracle):
    """The dialect that this engine reads."""

    class Parser(Oracle.Parser):
        FUNCTIONS: ClassVar = {name: _aggregate(kind) for name, kind in _AGGREGATES.items()}
        FUNCTION_PARSERS: ClassVar = {}
        NO_PAREN_FUNCTIONS: ClassVar = {
            word: kind for word, kind in Oracle.Parser.NO_PAREN_FUNCTIONS.items() if kind is exp.Systimestamp
        }


class Parsed(NamedTuple):
    """A statement as a tree, the targets of its INTO, and the way back to positions in the text sent."""

    tree: exp.Expression
    into: list[list[Token]]
    text: Plain


def parse(sql: str, numbers: dict[str, int] | None = None) -> Parsed:
    """Parse one SQL statement; binds are numbered by occurrence unless `numbers` has their names.

    Raises what Oracle raises, with the position if that is known.
    """
    words = tokens(sql)
    if not words or words[0].bare not in STARTS:
        raise OracleError(900, "invalid SQL statement")
    if words[-1].bare == ";":
        raise OracleError(911, "invalid character", words[-1].start)
    words, into = cut_into(words)
    text = plain(sql, words, numbers)
    try:
        trees = sqlglot.parse(text.text, dialect=Genius)
    except sqlglot.errors.SqlglotError as error:
        raise _complaint(error, text, sql) from None
    if len(trees) != 1 or trees[0] is None or isinstance(trees[0], exp.Command):
        raise OracleError(900, "invalid SQL statement")
    _refuse_later_syntax(trees[0])
    for name in trees[0].find_all(exp.Identifier):
        name.set("this", name_of(name))
    return Parsed(trees[0], into, text)


def _refuse_later_syntax(tree: exp.Expression) -> None:
    for node in tree.find_all(exp.Fetch, exp.Offset, exp.Limit):
        raise OracleError(933, "SQL command not properly ended", position(node))


def _complaint(error: Exception, text: Plain, sql: str) -> OracleError:
    details = (getattr(error, "errors", None) or [{}])[0]
    where = len(details.get("start_context") or "")
    reason = str(details.get("description") or error)
    found = details.get("highlight") or ""
    if where >= 100:
        where = text.text.find(found, _absolute(details, text.text))
    offset = text.origin(max(where, 0)) if found else len(sql)
    if "Expected table name" in reason:
        return OracleError(903, "invalid table name", offset)
    if "Expecting )" in reason:
        return OracleError(907, "missing right parenthesis", offset)
    if re.search("Required argument|Expected", reason) or not found:
        return OracleError(936, "missing expression", offset)
    return OracleError(933, "SQL command not properly ended", offset)


def _absolute(details: dict, text: str) -> int:
    """Return the position of the wrong word; sqlglot gives line and column of its end."""
    lines = text.splitlines(keepends=True)
    line, col = details.get("line") or 1, details.get("col") or 1
    return max(sum(map(len, lines[: line - 1])) + col - len(details.get("highlight") or ""), 0)


def position(node: exp.Expression) -> int:
    """Return the position of a node's first name or literal in the parsed text; 0 if it is unknown."""
    starts = [part.meta["start"] for part in node.walk() if "start" in part.meta]
    return min(starts, default=0)


def name_of(identifier: exp.Expression | str | None) -> str:
    """Return a name as the dictionary has it: upper case unless quoted."""
    if identifier is None or isinstance(identifier, str):
        return (identifier or "").upper()
    return identifier.name if identifier.args.get("quoted") else identifier.name.upper()


def unknown(node: exp.Expression) -> OracleError:
    """Return the error for SQL that this engine does not know."""
    return OracleError(900, f"invalid SQL statement: the stand-in does not know {type(node).__name__}", position(node))
