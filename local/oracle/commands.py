"""Statements that are neither queries nor changes of rows: transactions, session settings, grants."""

from __future__ import annotations

from collections.abc import Callable

from .formats import elements
from .lexer import Token, string_value
from .model import OracleError

NLS_DEFAULTS = {
    "NLS_LANGUAGE": "AMERICAN",
    "NLS_TERRITORY": "AMERICA",
    "NLS_CURRENCY": "$",
    "NLS_ISO_CURRENCY": "AMERICA",
    "NLS_NUMERIC_CHARACTERS": ".,",
    "NLS_CALENDAR": "GREGORIAN",
    "NLS_DATE_FORMAT": "DD-MON-RR",
    "NLS_DATE_LANGUAGE": "AMERICAN",
    "NLS_SORT": "BINARY",
    "NLS_TIME_FORMAT": "HH.MI.SSXFF AM",
    "NLS_TIMESTAMP_FORMAT": "DD-MON-RR HH.MI.SSXFF AM",
    "NLS_TIME_TZ_FORMAT": "HH.MI.SSXFF AM TZR",
    "NLS_TIMESTAMP_TZ_FORMAT": "DD-MON-RR HH.MI.SSXFF AM TZR",
    "NLS_COMP": "BINARY",
    "NLS_LENGTH_SEMANTICS": "BYTE",
    "NLS_NCHAR_CONV_EXCP": "FALSE",
}
# Settings of a session that are accepted and have no effect here.
_INERT = ("TIME_ZONE", "OPTIMIZER_MODE", "STATISTICS_LEVEL", "SQL_TRACE")


def find(words: list[Token]) -> Callable | None:
    """Return the command that a statement is, as a function of a session; None if it is of another kind."""
    first = words[0].bare if words else ""
    made = _COMMANDS.get(first)
    return made(words) if made else None


def _commit(words: list[Token]) -> Callable:
    _expect(words, 1, ("WORK",))
    return lambda session: session.commit()


def _rollback(words: list[Token]) -> Callable:
    _expect(words, 1, ("WORK",))
    return lambda session: session.rollback()


def _expect(words: list[Token], start: int, allowed: tuple[str, ...]) -> None:
    if any(word.bare not in allowed for word in words[start:]):
        raise OracleError(900, "invalid SQL statement", words[start].start)


def _set(words: list[Token]) -> Callable:
    found = [word.bare for word in words]
    if found == ["SET", "TRANSACTION", "READ", "ONLY"]:
        return lambda session: session.begin_read_only()
    if found in (
        ["SET", "TRANSACTION", "READ", "WRITE"],
        ["SET", "TRANSACTION", "ISOLATION", "LEVEL", "READ", "COMMITTED"],
    ):
        return lambda session: None
    raise OracleError(922, "missing or invalid option", words[-1].start)


def _alter(words: list[Token]) -> Callable:
    if [word.bare for word in words[1:3]] != ["SESSION", "SET"]:
        raise OracleError(940, "invalid ALTER command")
    settings, at = {}, 3
    while at < len(words):
        if len(words) < at + 3 or words[at + 1].bare != "=":
            raise OracleError(2248, "invalid option for ALTER SESSION", words[at].start)
        settings[words[at].word] = _setting(words[at], words[at + 2])
        at += 3
    if not settings:
        raise OracleError(2248, "invalid option for ALTER SESSION")

    def act(session) -> None:
        session.schema = settings.get("CURRENT_SCHEMA", session.schema)
        session.nls = {**session.nls, **{k: v for k, v in settings.items() if k in NLS_DEFAULTS}}

    return act


def _setting(name: Token, value: Token) -> str:
    if name.word not in NLS_DEFAULTS and name.word not in ("CURRENT_SCHEMA", *_INERT):
        raise OracleError(2248, "invalid option for ALTER SESSION", name.start)
    text = string_value(value.text) if value.kind == "string" else value.word
    if name.word.endswith("_FORMAT"):
        elements(text)
    return text


def _grant(words: list[Token]) -> Callable:
    """Compile GRANT what [ON object] TO whom, which records it for the views of privileges."""
    privileges, target, grantees = _privileges(words, "TO")

    def act(session) -> None:
        session.commit()
        session.database.privileges.grant(privileges, target, grantees, session.user)

    return act


def _revoke(words: list[Token]) -> Callable:
    """Compile REVOKE what [ON object] FROM whom; any user may run it here, as with GRANT."""
    privileges, target, grantees = _privileges(words, "FROM")

    def act(session) -> None:
        session.commit()
        if not session.database.privileges.revoke(privileges, target, grantees):
            if target:
                raise OracleError(1927, "cannot REVOKE privileges you did not grant")
            raise OracleError(1952, f"system privileges not granted to '{grantees[0]}'")

    return act


def _privileges(words: list[Token], to: str) -> tuple[list[str], str, list[str]]:
    """Return the privileges, the object or "", and the users of a GRANT or REVOKE."""
    found = [word.word for word in words]
    if to not in found[2:]:
        raise OracleError(990, "missing or invalid privilege", words[-1].start)
    end = found.index(to, 2)
    on = found.index("ON") if "ON" in found[:end] else end
    privileges = [part.strip() for part in " ".join(found[1:on]).split(",")]
    return privileges, "".join(found[on + 1 : end]), [word for word in found[end + 1 :] if word != ","]


_COMMANDS = {"COMMIT": _commit, "ROLLBACK": _rollback, "SET": _set, "ALTER": _alter, "GRANT": _grant, "REVOKE": _revoke}
