"""The trial balance computed a second way: from the stand-in's journal, in Python, by the digits of the codes."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from local.oracle import ledger

SEED = 806
LEVELS = (1, 2, 4, 6, 8)


def trial_balance(period: str) -> dict[tuple[str, str], tuple[Decimal, ...]]:
    """Return {(account, branch): (start balance, movement debit, movement credit, end balance)} for every account."""
    sums: dict[tuple[str, str], list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    opening = ledger.endings(SEED, ledger.previous(period))
    for branch, accounts in opening.items():
        for account, cents in accounts.items():
            add(sums, account, branch, (ledger.amount(cents), Decimal(0), Decimal(0)))
    for entry in ledger.journal(SEED, period):
        add(sums, entry.account, entry.branch, (Decimal(0), entry.debit, entry.credit))
    return {key: (start, debit, credit, start + debit - credit) for key, (start, debit, credit) in sums.items()}


def add(sums, account: str, branch: str, amounts: tuple[Decimal, ...]) -> None:
    for digits in LEVELS:
        here = sums[account[:digits], branch]
        sums[account[:digits], branch] = [old + new for old, new in zip(here, amounts, strict=True)]
