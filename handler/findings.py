"""The findings of a step's checks, as text without amounts: pure functions of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .errors import clean

# The most accounts and branches that a message names; closing_findings has the rest.
SHOWN = 10
# The most accounts and branches of one kind of finding that closing_findings gets.
KEPT = 1000


class Finding(NamedTuple):
    """One kind of fault in the books, with all places where a check found it.

    text has the accounts and branches, but no amounts; refused: the ledger must not be replaced; rows:
    account, branch and JSON text with the amounts, for closing_findings.
    """

    kind: str
    count: int
    text: str
    refused: bool
    rows: Sequence = ()

    def report(self) -> dict:
        """Return the finding as the journal, the log and closing_runs have it."""
        return {"kind": self.kind, "count": self.count, "text": self.text, "refused": self.refused}


def place_names(rows: Sequence) -> str:
    """Return the first accounts and branches of a finding as text."""
    names = []
    for account, branch, _ in rows[:SHOWN]:
        parts = [f"account {account or 'without a code'}"] if account is not None or branch is None else []
        names.append(", ".join([*parts, f"branch {branch or 'without a code'}"]))
    return "; ".join(names)


def finding(kind: str, count: int, words: str, rows: Sequence, refused: bool) -> Finding:
    named = f": {place_names(rows)}" if rows else ""
    more = "; …" if count > SHOWN else ""
    return Finding(kind, count, clean(f"{count} {words}{named}{more}"), refused, rows)


def texts(steps: dict) -> list[str]:
    """Return the findings of a closing's result or a row's detail, {step: {"findings": [report, …]}}, a line each."""
    found = [one for step in steps.values() if isinstance(step, dict) for one in step.get("findings", [])]
    return [f"{'refused' if one['refused'] else 'finding'}: {one['text']}" for one in found]
