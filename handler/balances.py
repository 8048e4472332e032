"""Balances on their way from Genius to PostgreSQL, as the text of a COPY."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from . import deadline
from .errors import Unavailable

CHUNK_LINES = 2000
# Genius' name of each amount -> our column.
COLUMNS = {
    "BEGINNING_DEBIT": "start_debit",
    "BEGINNING_CREDIT": "start_credit",
    "DEBIT_AMOUNT": "movement_debit",
    "CREDIT_AMOUNT": "movement_credit",
    "ENDING_DEBIT": "end_debit",
    "ENDING_CREDIT": "end_credit",
}


# Six amounts as Genius sends them, between tabs; any other form is checked amount by amount. A group that repeats would
# take a quarter longer.
PLAIN = re.compile("\t".join([r"-?[0-9]+(?:\.[0-9]+)?"] * len(COLUMNS)))


class Account(NamedTuple):
    """An account of the chart: its place in the account tree; a root has the depth 1."""

    name: str
    parent: str | None
    root: str
    depth: int
    is_parent: bool


class Copied:
    """Counts the balances that pass on their way to PostgreSQL, and keeps those that cannot be stored."""

    def __init__(self, codec: str, tree: Mapping[str, Account]):
        self.codec, self.tree = codec, tree
        self.rows = 0
        # Account, branch, amounts as JSON text, and why.
        self.refused: list[tuple[str | None, str | None, str, str]] = []
        # Account -> its columns as text, and its name in the chart.
        self.places: dict[str, tuple[str, str | None]] = {}

    def place(self, account: str) -> tuple[str, str | None]:
        """Return account, parent, root and depth as text, and the account's name; see rollup.CREATE_LOADED."""
        found = self.tree.get(account)
        if not found:
            columns, name = (account, None, None, None), None
        elif found.is_parent:
            columns, name = (None, account, found.root, str(found.depth + 1)), found.name
        else:
            columns, name = (account, found.parent, found.root, str(found.depth)), found.name
        self.places[account] = "\t".join(escaped(column, self.codec) for column in columns), name
        return self.places[account]

    def text(self, balances: Iterable[tuple]) -> Iterator[str]:
        """Return balances as chunks of COPY text: place, description, branch, amounts.

        An account without any amount in Genius is counted and left out. If it has another amount, a missing one is 0,
        as in Oracle's SUM.
        """
        # Looked up once: this loop is most of what the function computes for a ledger.
        codec, lines, places, plain = self.codec, [], self.places, PLAIN.fullmatch
        for account, description, branch, *amounts in balances:
            self.rows += 1
            try:
                text = "\t".join(amounts)
            except TypeError:
                if all(amount is None for amount in amounts):
                    continue
                amounts = ["0" if amount is None else amount for amount in amounts]
                text = "\t".join(amount if isinstance(amount, str) else "?" for amount in amounts)
            try:
                if not account or not branch or not plain(text):
                    check_balance(account, branch, amounts)
                place, name = places.get(account) or self.place(account)
                description = escaped(name if description is None else description, codec)
                line = f"{place}\t{description}\t{escaped(branch, codec)}\t{text}"
            except ValueError as error:
                named = json.dumps(dict(zip(COLUMNS.values(), map(str, amounts))))
                self.refused.append((account, branch, named, reason(error, codec)))
                continue
            lines.append(line)
            if len(lines) == CHUNK_LINES:
                if deadline.left() < 0:
                    # An error here ends the connection, and PostgreSQL drops what it has got.
                    raise Unavailable(
                        f"the invocation's time was over after {self.rows} balances; nothing was replaced"
                    )
                yield "\n".join(lines) + "\n"
                lines.clear()
        if lines:
            yield "\n".join(lines) + "\n"


def check_balance(account: str | None, branch: str | None, amounts: list) -> None:
    """Raise ValueError for a balance without a key or without an amount; the message has no amount."""
    if not account or not branch:
        raise ValueError("a balance without account or branch")
    for column, amount in zip(COLUMNS.values(), amounts):
        try:
            exact = isinstance(amount, str) and Decimal(amount).is_finite()
        except InvalidOperation:
            exact = False
        if not exact:
            raise ValueError(f"{column} is not an amount")


@functools.lru_cache(maxsize=8192)
def escaped(value: str | None, codec: str) -> str:
    """Return a text as COPY takes it; ValueError if the database cannot hold it. The same texts come often."""
    if value is None:
        return r"\N"
    if "\0" in value:
        raise ValueError("a text with a NUL character")
    value.encode(codec)
    return re.sub(r"[\\\t\n\r]", lambda match: ESCAPES[match[0]], value)


ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


def reason(error: ValueError, codec: str) -> str:
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    bad = error.object[error.start]
    if "\udc80" <= bad <= "\udcff":
        return "a text with bytes that are not valid in Genius' character set"
    return f"a text with {bad!a}, which the database's encoding {codec} cannot hold"
