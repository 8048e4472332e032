"""The books as Oracle shows them: ACPDB.AC_GLJOURNAL and ACPDB.AC_GLOPENBALANCE, made period by period when read.

An open balance is stale until the closing procedure has run for its period: it knows only the journal's first
STALE_DAYS days. A closed one is computed from the opening and the whole journal. Since both follow from the seed, all
that is kept of a closing is who closed the period and when.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import groupby

from . import ledger
from .model import Column

OWNER = "ACPDB"
STALE_DAYS = 15
_MONEY = partial(Column, type="NUMBER", precision=20, scale=2)
_TEXT = partial(Column, type="VARCHAR2")
BALANCE_COLUMNS = [
    _TEXT("COACODE", size=20),
    _TEXT("DESCRIPTION", size=200),
    _TEXT("GLYEAR", size=4),
    _TEXT("GLMONTH", size=2),
    _TEXT("BRANCH", size=10),
    *map(_MONEY, ("BEGINNING_DEBIT", "BEGINNING_CREDIT", "DEBIT_AMOUNT", "CREDIT_AMOUNT")),
    *map(_MONEY, ("ENDING_DEBIT", "ENDING_CREDIT")),
    _TEXT("CREATEBY", size=30),
    Column("CREATEDATE", "DATE"),
]
JOURNAL_COLUMNS = [
    _TEXT("JOURNALNO", size=20),
    Column("JOURNALDATE", "DATE"),
    _TEXT("GLYEAR", size=4),
    _TEXT("GLMONTH", size=2),
    _TEXT("COACODE", size=20),
    _TEXT("BRANCH", size=10),
    *map(_MONEY, ("DEBIT", "CREDIT")),
]


class Books:
    """The ledger of one seed for some periods ('2025-01'), with what has been computed of it kept."""

    def __init__(self, seed: int, periods: Iterable[str], branch_count: int):
        self.seed, self.periods, self.branch_count = seed, sorted(periods), branch_count
        self.names = {account.code: account.name for account in ledger.accounts(seed)}
        self.guard = threading.Lock()
        self.kept: dict[tuple, list[tuple]] = {}

    def balances(self, period: str, closing: dict | None) -> list[tuple]:
        """Return the rows of AC_GLOPENBALANCE of a period; closing: who closed it and when, None if it is open."""
        key = ("balance", period, (closing or {}).get("by"), (closing or {}).get("at"))
        return self._keep(key, lambda: list(self._balances(period, closing)))

    def journal(self, period: str) -> list[tuple]:
        """Return the rows of AC_GLJOURNAL of a period."""
        return self._keep(("journal", period), lambda: list(self._journal(period)))

    def _keep(self, key: tuple, make) -> list[tuple]:
        with self.guard:
            if key not in self.kept:
                self.kept = {other: rows for other, rows in self.kept.items() if other[:2] != key[:2]}
                self.kept[key] = make()
            return self.kept[key]

    def _balances(self, period: str, closing: dict | None) -> Iterator[tuple]:
        last_day = 31 if closing else STALE_DAYS
        opening = ledger.endings(self.seed, ledger.previous(period), self.branch_count)
        year, month = period.split("-")
        by = closing["by"] if closing else "SYSTEM"
        at = datetime.fromisoformat(closing["at"]) if closing else datetime(int(year), int(month), STALE_DAYS)
        vouchers = ledger.vouchers(self.seed, period, self.branch_count)
        for branch, of_branch in groupby(vouchers, key=lambda voucher: voucher.branch):
            debits, credits = _moved(of_branch, last_day)
            for account, begin in opening[branch].items():
                debit, credit = debits.get(account, 0), credits.get(account, 0)
                end = begin + debit - credit
                sides = (begin, -begin, debit, credit, end, -end)
                amounts = [ledger.amount(cents) if cents > 0 else _NOTHING for cents in sides]
                yield (account, self.names[account], year, month, branch, *amounts, by, at)

    def _journal(self, period: str) -> Iterator[tuple]:
        year, month = period.split("-")
        days = [datetime(int(year), int(month), day) for day in range(1, 29)]
        for entry in ledger.journal(self.seed, period, self.branch_count):
            day = days[entry.date.day - 1] if entry.date.day < 29 else datetime(*entry.date.timetuple()[:3])
            yield (entry.journal_no, day, year, month, entry.account, entry.branch, entry.debit, entry.credit)


_NOTHING = Decimal("0.00")


def _moved(vouchers: Iterable[ledger.Voucher], last_day: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return each account's debits and credits up to a day, in cents."""
    debits: dict[str, int] = {}
    credits: dict[str, int] = {}
    for voucher in vouchers:
        if voucher.day <= last_day:
            for account, cents in voucher.moves:
                side = debits if cents > 0 else credits
                side[account] = side.get(account, 0) + abs(cents)
    return debits, credits


class BookSource:
    """One of the two tables as a query reads it: an equality with GLYEAR or GLMONTH leaves out other periods unmade."""

    def __init__(self, books: Books, columns: list[Column]):
        self.books, self.columns = books, columns
        names = [column.name for column in columns]
        self.year, self.month = names.index("GLYEAR"), names.index("GLMONTH")

    def rows(self, run, equal: dict[int, object]) -> Iterator[tuple]:
        """Yield the rows of the periods that may be meant."""
        for period in self.books.periods:
            year, month = period.split("-")
            if _may_be(equal, self.year, year) and _may_be(equal, self.month, month):
                run.check()
                if self.columns is JOURNAL_COLUMNS:
                    yield from self.books.journal(period)
                else:
                    yield from self.books.balances(period, run.snapshot.closings.get(period))
        if self.columns is not JOURNAL_COLUMNS:
            yield from _injected(run)


def _injected(run) -> Iterator[tuple]:
    """Yield the balances of the fault `open_balances`, of any period; an amount of null is NULL."""
    given = json.loads(run.session.database.faults.value("open_balances") or "[]")
    for period, account, name, branch, *amounts in given:
        exact = [None if amount is None else Decimal(amount) for amount in amounts]
        yield (account, name, *period.split("-"), branch, *exact, "SYSTEM", None)


def _may_be(equal: dict[int, object], place: int, text: str) -> bool:
    if place not in equal:
        return True
    value = equal[place]
    return value == text if isinstance(value, str) else not isinstance(value, Decimal) or value == Decimal(text)
