"""The books of an insurer that does not exist: accounts, branches and journals made from a seed alone.

Nothing here touches a disk or a clock: the same seed and period give the same ledger wherever they are asked for, so
that the stand-in, the PostgreSQL next to it and the tests can each make it and agree to the cent.

Account codes have 1, 2, 4, 6 or 8 digits, and an account's parent is the beginning of its code. The two-digit
groups of GROUPS are fixed, so a metric may be computed by prefix: the claims ratio is 51 over 41. Only accounts
of 8 digits have postings. Assets (1) and expenses (5) are debits; the rest are credits. Amounts are in IDR.

The balances at a period's end come from seed and period alone, and each branch sums to 0. The journal of the period
leads to them from the end of the period before. So a period opens with the end of the one before, and no earlier
period has to be made. Income and expenses are not closed at the year's end.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from random import Random
from typing import NamedTuple

SEED = 806
# One year; each period is made when it is first read.
PERIODS = tuple(f"2025-{month:02d}" for month in range(1, 13))
CLASSES = {"1": "Assets", "2": "Liabilities", "3": "Equity", "4": "Income", "5": "Expenses"}
# Code -> name, its balance over all branches in 10^9 IDR, names of its accounts. 32 takes the difference.
GROUPS = {
    "11": ("Current assets", 22_000, ("Cash and bank", "Premium receivables", "Other receivables")),
    "12": ("Investments", 80_000, ("Time deposits", "Bonds", "Shares and mutual funds")),
    "13": ("Reinsurance assets", 15_000, ("Reinsurance receivables", "Ceded premium reserves", "Ceded claim reserves")),
    "14": ("Fixed and other assets", 6_000, ("Land and buildings", "Equipment", "Intangible assets")),
    "21": ("Technical reserves", 65_000, ("Unearned premium reserve", "Outstanding claims", "IBNR reserve")),
    "22": ("Claims payable", 6_000, ("Claims payable", "Claims to policyholders", "Salvage to settle")),
    "23": ("Other liabilities", 9_000, ("Reinsurance payables", "Taxes payable", "Accrued expenses")),
    "31": ("Share capital", 10_000, ("Paid-up capital", "Share premium", "Other capital")),
    "32": ("Retained earnings", 0, ("General reserve", "Retained earnings", "Unrealised gains")),
    "41": ("Premium income", 40_000, ("Direct premium", "Inward reinsurance premium", "Change of unearned premium")),
    "42": ("Investment income", 6_000, ("Interest", "Dividends", "Gains on sale")),
    "43": ("Other income", 1_000, ("Policy fees", "Reinsurance commission", "Sundry income")),
    "51": ("Claims expense", 24_000, ("Claims paid", "Change of outstanding claims", "Claims handling")),
    "52": ("Commission and acquisition expense", 7_000, ("Agents' commission", "Brokers' commission", "Acquisition")),
    "53": ("Operating expense", 5_000, ("Salaries", "Rent and offices", "Systems and services")),
    "54": ("Reinsurance expense", 4_000, ("Ceded premium", "Excess of loss premium", "Retrocession")),
}
LINES = ("Fire", "Marine", "Motor", "Health", "Life", "Engineering", "Credit", "Liability", "Aviation", "Travel")
PRODUCTS = ("retail", "corporate", "sharia", "group", "micro", "state", "syndicate", "digital")
CITIES = [
    "Jakarta Pusat",
    "Jakarta Selatan",
    "Jakarta Barat",
    "Jakarta Timur",
    "Jakarta Utara",
    "Surabaya",
    "Bandung",
    "Medan",
    "Semarang",
    "Makassar",
    "Palembang",
    "Denpasar",
    "Yogyakarta",
    "Balikpapan",
    "Pekanbaru",
    "Batam",
    "Malang",
    "Padang",
    "Manado",
    "Banjarmasin",
    "Samarinda",
    "Pontianak",
    "Bandar Lampung",
    "Solo",
    "Bogor",
    "Tangerang",
    "Bekasi",
    "Depok",
    "Cirebon",
    "Jambi",
    "Mataram",
    "Kupang",
    "Ambon",
    "Jayapura",
    "Kendari",
    "Palu",
    "Bengkulu",
    "Banda Aceh",
    "Serang",
    "Gorontalo",
]
ACTIVE_SHARE = 0.93
CENTS_OF_10_TO_9 = 10**11


class Account(NamedTuple):
    """One account; parent_code is None at level 1."""

    code: str
    parent_code: str | None
    level: int
    name: str


class Branch(NamedTuple):
    """One branch; '001' is the head office and the largest."""

    code: str
    name: str


class Entry(NamedTuple):
    """One line of the journal; the lines of one journal_no are of one branch and one date, and balance."""

    journal_no: str
    date: date
    account: str
    branch: str
    debit: Decimal
    credit: Decimal


class Voucher(NamedTuple):
    """The lines of one journal_no: the day of the month, and what each account moves by in cents, debits positive."""

    number: int
    day: int
    branch: str
    moves: list[tuple[str, int]]


@lru_cache(maxsize=4)
def accounts(seed: int) -> list[Account]:
    """Return the chart of accounts, 645 accounts in five levels, in the order of a walk from the root."""
    rng = Random(f"{seed}:accounts")
    chart = []
    for code, name in CLASSES.items():
        chart.append(Account(code, None, 1, name))
        for group in (group for group in GROUPS if group[0] == code):
            chart += _group_accounts(group, rng)
    return chart


def _group_accounts(group: str, rng: Random) -> list[Account]:
    name, _, topics = GROUPS[group]
    found = [Account(group, group[0], 2, name)]
    for i, topic in enumerate(topics, 1):
        third = f"{group}{i:02d}"
        found.append(Account(third, group, 3, topic))
        for j, line in enumerate(rng.sample(LINES, 3), 1):
            fourth = f"{third}{j:02d}"
            found.append(Account(fourth, third, 4, f"{topic}, {line}"))
            for k, product in enumerate(rng.sample(PRODUCTS, 3), 1):
                found.append(Account(f"{fourth}{k:02d}", fourth, 5, f"{topic}, {line}, {product}"))
    return found


def branches(seed: int, count: int = 40) -> list[Branch]:
    """Return `count` branches; the first are named after cities, the others are numbered."""
    cities = list(CITIES)
    Random(f"{seed}:branches").shuffle(cities)
    names = ["Head office", *cities]
    return [Branch(f"{n + 1:03d}", names[n] if n < len(names) else f"Outlet {n + 1}") for n in range(count)]


def journal(seed: int, period: str, branch_count: int = 40) -> Iterator[Entry]:
    """Yield the journal of a period ('2025-01'), by branch and journal number; amounts have two decimals."""
    year, month = map(int, period.split("-"))
    days = [date(year, month, day) for day in range(1, calendar.monthrange(year, month)[1] + 1)]
    prefix = f"J{year:04d}{month:02d}"
    for number, day, branch, moves in vouchers(seed, period, branch_count):
        for account, cents in moves:
            debit, credit = amount(max(cents, 0)), amount(max(-cents, 0))
            yield Entry(f"{prefix}{number:06d}", days[day - 1], account, branch, debit, credit)


def amount(cents: int) -> Decimal:
    """Return an amount of whole cents as Decimal with two decimals."""
    return Decimal(cents).scaleb(-2)


def vouchers(seed: int, period: str, branch_count: int = 40) -> Iterator[Voucher]:
    """Yield the journal by voucher: per branch some business, then the transfers that lead to the period's end."""
    before, after = endings(seed, previous(period), branch_count), endings(seed, period, branch_count)
    rng = Random(f"{seed}:journal:{period}")
    days = calendar.monthrange(*map(int, period.split("-")))[1]
    number = 0
    for branch in after:
        open_moves = {code: cents - before[branch][code] for code, cents in after[branch].items()}
        for moves in _business(open_moves, rng):
            number, day = number + 1, int(rng.random() * days) + 1
            for code, cents in moves:
                open_moves[code] -= cents
            yield Voucher(number, day, branch, moves)
        for moves in _transfers(open_moves):
            number, day = number + 1, int(rng.random() * days) + 1
            yield Voucher(number, day, branch, moves)


def _business(moves: dict[str, int], rng: Random) -> Iterator[list[tuple[str, int]]]:
    """Yield vouchers of two to five lines over every account of a branch, each of the size of its move."""
    codes = list(moves)
    rng.shuffle(codes)
    start = 0
    while start < len(codes):
        some = codes[start : start + 2 + int(rng.random() * 4)]
        start += len(some)
        voucher = [(code, int(moves[code] * (rng.random() - 0.3)) + 1) for code in some[1:]]
        total = sum(cents for _, cents in voucher)
        if total:
            yield [(some[0], -total), *voucher]


def _transfers(moves: dict[str, int]) -> Iterator[list[tuple[str, int]]]:
    """Yield two-line vouchers from each account to the next, until each has its move: a branch's moves sum to 0."""
    codes = list(moves)
    for code, following, cents in zip(codes, codes[1:], accumulate(moves.values())):
        if cents:
            yield [(code, cents), (following, -cents)]


def previous(period: str) -> str:
    """Return the month before a period."""
    year, month = map(int, period.split("-"))
    return f"{year - 1}-12" if month == 1 else f"{year}-{month - 1:02d}"


@lru_cache(maxsize=8)
def endings(seed: int, period: str, branch_count: int = 40) -> dict[str, dict[str, int]]:
    """Return {branch: {account: cents at a period's end}}, debits positive; each branch sums to 0."""
    rng = Random(f"{seed}:ending:{period}")
    growth = {group: 1 + rng.uniform(-0.04, 0.08) for group in GROUPS}
    return {branch: _branch_ending(bases, growth, rng) for branch, bases in _bases(seed, branch_count).items()}


def _branch_ending(bases: dict[str, int], growth: dict[str, float], rng: Random) -> dict[str, int]:
    ending = {code: int(base * growth[code[:2]] * (0.97 + 0.06 * rng.random())) for code, base in bases.items()}
    retained = [code for code in ending if code.startswith("32")]
    rest = -sum(ending.values())
    weight = sum(ending[code] for code in retained) or -1
    for code in retained[:-1]:
        share = rest * ending[code] // weight
        rest, weight = rest - share, weight - ending[code]
        ending[code] += share
    ending[retained[-1]] += rest
    return ending


@lru_cache(maxsize=4)
def _bases(seed: int, branch_count: int) -> dict[str, dict[str, int]]:
    """Return {branch: {account: cents}}, the balances that all periods vary around, before they are balanced."""
    rng = Random(f"{seed}:bases")
    leaves = [account.code for account in accounts(seed) if account.level == 5]
    weights = {code: rng.lognormvariate(0, 1) for code in leaves}
    totals = {group: sum(weights[code] for code in leaves if code[:2] == group) for group in GROUPS}
    sizes = [rng.lognormvariate(0, 0.8) for _ in range(branch_count)]
    sizes[0] = 0.3 * (sum(sizes) + 1)
    bases = {}
    for branch, size in zip(branches(seed, branch_count), sizes):
        bases[branch.code] = {
            code: _base(code, weights[code] / totals[code[:2]] * size / sum(sizes), rng)
            for code in leaves
            if code.startswith("3") or rng.random() < ACTIVE_SHARE
        }
    return bases


def _base(code: str, share: float, rng: Random) -> int:
    billions = GROUPS[code[:2]][1] or 1_000
    cents = int(billions * CENTS_OF_10_TO_9 * share * rng.lognormvariate(0, 0.3)) + 100
    return cents if code[0] in "15" else -cents
