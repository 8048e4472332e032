"""Find what a client does not send with a statement: its kind and the names of its binds.

Clients send bind values without names, in the order in which they find the names in the text; this is the same
scan, so that both sides count the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<string>
        [qQ]'(?: \[ .*? (?:\]'|\Z) | \{ .*? (?:\}'|\Z) | < .*? (?:>'|\Z) | \( .*? (?:\)'|\Z)
               | (?P<mark>[^\[{<(]) .*? (?:(?P=mark)'|\Z) )
      | '[^']*(?:'|\Z) )
  | (?P<comment> --[^\n\r]* | /\* .*? (?:\*/|\Z) )
  | (?P<quoted> "[^"]*(?:"|\Z) )
  | (?P<bind> :\s*(?: "(?P<exact>[^"]+)" | (?P<digits>\d+) | (?P<name>[^\W\d_][\w$\#]*) ) )
  | (?P<word> [^\W\d_](?:(?![qQ]')[\w$\#])* )
  | (?P<space> \s+ )
  | .
    """,
    re.VERBOSE | re.DOTALL,
)

_KINDS = {
    **dict.fromkeys(("SELECT", "WITH"), "query"),
    **dict.fromkeys(("BEGIN", "DECLARE", "CALL"), "plsql"),
    **dict.fromkeys(("INSERT", "UPDATE", "DELETE", "MERGE"), "dml"),
    **dict.fromkeys(
        ("CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "ANALYZE", "AUDIT", "COMMENT", "TRUNCATE"),
        "ddl",
    ),
}


class Statement(NamedTuple):
    """kind: query, plsql, dml, ddl or other; names: one per bind on the wire, the last `returned` of them after
    RETURNING … INTO."""

    kind: str
    names: list[str]
    returned: int


@lru_cache(512)
def scan(sql: str) -> Statement:
    """Find a statement's kind and binds. Do not change the answer: it is shared."""
    kind = ""
    names: list[str] = []
    returning = into = after_string = False
    returned = 0
    for token in _TOKEN.finditer(sql):
        what = token.lastgroup
        if what == "space":
            continue
        if token["bind"] and not after_string:
            name = token["exact"] or token["digits"] or token["name"].upper()
            if kind != "plsql" or name not in names:
                names.append(name)
                returned += into
        elif what == "word":
            word = token["word"].upper()
            kind = kind or _KINDS.get(word, "other")
            if kind == "ddl":
                return Statement(kind, [], 0)
            returning = returning or (kind == "dml" and word == "RETURNING")
            into = into or (returning and word == "INTO")
        after_string = token["string"] is not None
    return Statement(kind or "other", names, returned)
