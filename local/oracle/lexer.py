"""Oracle's words, for SQL and PL/SQL alike: where strings, binds and names begin and end.

The SQL grammar itself is sqlglot's. This module prepares a text for it: binds become `:b0`, `:b1`, …, q'[…]' becomes
a plain literal, comments are removed, and the INTO that PL/SQL adds to a SELECT is cut out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from .model import OracleError

PLSQL_STARTS = ("BEGIN", "DECLARE")
_PATTERN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
    |(?P<qstring>[nN]?[qQ]'(?:\[.*?\]|\{.*?\}|\(.*?\)|<.*?>|(?P<q>[^\s\[{(<]).*?(?P=q))')
    |(?P<string>[nN]?'(?:[^']|'')*')
    |(?P<quoted>"[^"]+")
    |(?P<bind>:\s*(?:[A-Za-z][\w$#]*|\d+|"[^"]+"))
    |(?P<name>[^\W\d][\w$#]*)
    |(?P<number>(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<mark><<|>>|:=|=>|\.\.|\*\*|\|\||<>|!=|\^=|<=|>=|[-+*/%(),.;=<>@:?\[\]])""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """One word; kind is string, quoted, bind, name, number or mark; word is what it is compared by."""

    kind: str
    text: str
    start: int
    end: int
    line: int
    column: int

    @property
    def word(self) -> str:
        """Return a bare name in upper case, a quoted one without quotes, anything else as it is."""
        if self.kind == "name":
            return self.text.upper()
        return self.text[1:-1] if self.kind == "quoted" else self.text

    @property
    def bare(self) -> str:
        """Return the word of a bare name or mark, '' for a quoted one that is not a keyword."""
        return self.word if self.kind in ("name", "mark") else ""


def tokens(text: str) -> list[Token]:
    """Return the words of a text; ORA-01756 for an unended string, ORA-00911 for a character that Oracle refuses."""
    found, at, line, line_start = [], 0, 1, 0
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            raise _unknown_character(text, at)
        kind = match.lastgroup if match.lastgroup != "q" else "qstring"
        if kind != "space":
            kind = "string" if kind == "qstring" else kind
            found.append(Token(kind, match.group(), at, match.end(), line, at - line_start + 1))
        breaks = match.group().count("\n")
        if breaks:
            line, line_start = line + breaks, at + match.group().rindex("\n") + 1
        at = match.end()
    return found


def _unknown_character(text: str, at: int) -> OracleError:
    if text[at] == "'" or text[at : at + 2].lower() in ("q'", "n'"):
        return OracleError(1756, "quoted string not properly terminated", at)
    return OracleError(911, "invalid character", at)


def string_value(literal: str) -> str:
    """Return the content of a string literal in any of its spellings."""
    if literal[0] in "nN":
        literal = literal[1:]
    return literal[3:-2] if literal[0] in "qQ" else literal[1:-1].replace("''", "'")


def bind_name(token: Token) -> str:
    """Return a bind's name: upper case unless quoted, without the colon."""
    name = token.text[1:].strip()
    return name[1:-1] if name[0] == '"' else name.upper()


def is_plsql(words: list[Token]) -> bool:
    """Return whether a statement is a block or a call; the SQL side decides the rest."""
    return bool(words) and words[0].bare in (*PLSQL_STARTS, "<<")


class Plain(NamedTuple):
    """A statement in plain words, and the way back from its positions to those of the text that was sent."""

    text: str
    marks: list[tuple[int, int]]

    def origin(self, position: int) -> int:
        """Return the position in the sent text of a position in the plain one."""
        start, origin = max((mark for mark in self.marks if mark[0] <= position), default=(0, 0))
        return origin + position - start


def plain(text: str, words: Iterable[Token], numbers: dict[str, int] | None = None) -> Plain:
    """Write words out again with binds renamed: b0, b1, … by occurrence, or by the number that their name has."""
    parts, marks, at, length, count = [], [], 0, 0, 0
    for word in words:
        gap = " " if word.start > at else ""
        new = word.text
        if word.kind == "bind":
            index = count if numbers is None else numbers[bind_name(word)]
            new, count = f":b{index}", count + 1
        elif word.kind == "string":
            new = "'" + string_value(word.text).replace("'", "''") + "'"
        length += len(gap)
        marks.append((length, word.start))
        parts += [gap, new]
        length += len(new)
        at = word.end
    return Plain("".join(parts), marks)


def depths(words: list[Token]) -> list[int]:
    """Return how many parentheses are open at each word."""
    depth, found = 0, []
    for word in words:
        depth -= word.bare == ")"
        found.append(depth)
        depth += word.bare == "("
    return found


def find(words: list[Token], name: str, start: int = 0) -> int:
    """Return the index of a bare word outside all parentheses, or -1."""
    for i, depth in enumerate(depths(words)):
        if i >= start and depth == 0 and words[i].bare == name:
            return i
    return -1


def split(words: list[Token], mark: str = ",") -> list[list[Token]]:
    """Cut words at each mark outside parentheses; no words give no part."""
    if not words:
        return []
    parts: list[list[Token]] = [[]]
    for word, depth in zip(words, depths(words)):
        if depth == 0 and word.bare == mark:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def cut_into(words: list[Token]) -> tuple[list[Token], list[list[Token]]]:
    """Return a SELECT without its INTO, and the targets after it."""
    into = find(words, "INTO") if words[0].bare == "SELECT" else -1
    if into < 0:
        return words, []
    end = find(words, "FROM", into)
    end = len(words) if end < 0 else end
    return words[:into] + words[end:], split(words[into + 1 : end])
