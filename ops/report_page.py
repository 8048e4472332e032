"""The page of `inv report` as plain values: account tree, calendar, charts. Nothing here calls a service.

Amounts are Decimal from their text to their text. Only the heights of bars are floats.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Context, Decimal, Inexact, localcontext
from zoneinfo import ZoneInfo

from handler import schedule_times
from handler.balances import COLUMNS
from handler.plan import done
from handler.request import STEPS
from ops import history

# PostgreSQL's numeric can have more digits than the 28 that Python rounds to.
EXACT = Context(prec=2000, traps=[Inexact])
# In pixels: the chart of the closings, one of a metric.
HIGH, LOW, BAR_WIDTH, BAR_GAP = 60, 24, 14, 4


@dataclass
class Account:
    """One account with its sums over all branches: start, debit, credit, end, and the end of the period before.

    parent: its code, None for a root; known: whether the chart has the account. depth, is_parent and closes place it
    in the flat list of tree(): closes is how many parents end with it.
    """

    code: str
    name: str
    parent: str | None
    known: bool
    amounts: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * 5)
    depth: int = 0
    is_parent: bool = False
    closes: int = 0

    @property
    def change(self) -> Decimal:
        with localcontext(EXACT):
            return self.amounts[3] - self.amounts[4]


def printable(text: object) -> str:
    """Return a text in one line, without characters that command a terminal, a browser or a printer."""
    return "".join(
        one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in str(text)
    )


def amount(value: Decimal | str | None) -> str:
    """Format an exact amount for a person: groups of three digits, and a minus sign that a printer shows, too."""
    if value is None:
        return "–"
    value = Decimal(value)
    return f"{value:,f}".replace("-", "\N{MINUS SIGN}") if value.is_finite() else printable(value)


def money(value: Decimal | str) -> str:
    """Format an amount with two decimals at least: Genius leaves out zeros at the end, PostgreSQL does not."""
    value = Decimal(value)
    padded = value.is_finite() and value.as_tuple().exponent > -2
    return amount(f"{value:.2f}" if padded else value)


def add(accounts: dict[str, Account], row: list) -> None:
    """Add a row of a page to the sums of its account."""
    _, _, *amounts = row
    account = accounts[row[0]]
    with localcontext(EXACT):
        account.amounts = [old + Decimal(new or 0) for old, new in zip(account.amounts, amounts)]


def tree(accounts: dict[str, Account]) -> list[Account]:
    """Return the accounts as a flat list, each parent before its children; first the tree, then those outside it."""
    children: dict[str | None, list[Account]] = {}
    for one in accounts.values():
        outside = one.parent not in accounts or one.parent == one.code
        children.setdefault(None if outside else one.parent, []).append(one)
    roots = sorted(children.get(None, []), key=lambda one: (not one.known, one.code))
    found = list(walk(roots, children))
    seen = {one.code for one in found}
    # A chart that became a cycle after the closing has no root; its accounts are listed without children.
    found += list(walk([one for one in accounts.values() if one.code not in seen], {}))
    return found


def widest(accounts: Iterable[Account]) -> int:
    """Return the length of the longest amount."""
    return max((len(money(one)) for account in accounts for one in (*account.amounts, account.change)), default=1)


def walk(roots: list[Account], children: dict) -> Iterator[Account]:
    """Yield accounts depth first. Not by recursion: a chart can be deeper than Python's stack."""
    stack = [(one, 0) for one in reversed(roots)]
    while stack:
        one, one.depth = stack.pop()
        below = sorted(children.get(one.code, []), key=lambda child: child.code, reverse=True)
        one.is_parent = bool(below)
        stack += [(child, one.depth + 1) for child in below]
        one.closes = 0 if below else one.depth - (stack[-1][1] if stack else 0)
        yield one


def totals(found: dict) -> list[dict]:
    """Return the control totals side by side: {"name", "genius", "postgres", "equal"} for each column."""
    lines = []
    for column in ("rows", *COLUMNS.values()):
        sides = [found[side].get(column) for side in ("genius", "postgres")]
        equal = None not in sides and Decimal(sides[0]) == Decimal(sides[1])
        texts = ["–" if one is None else amount(one) if column == "rows" else money(one) for one in sides]
        name = "rows written and rows now" if column == "rows" else column.replace("_", " ")
        lines.append({"name": name, "genius": texts[0], "postgres": texts[1], "equal": equal})
    return lines


def metrics_source(rows: list[dict], ledger_run: str) -> str:
    """Return which closing computed the metrics, and whether the trial balance is newer.

    rows: of closing_runs, the newest first; ledger_run: the id of the one that wrote the trial balance.
    """
    row = next((row for row in rows if row["metrics"] == "succeeded"), None)
    if row is None:
        return "No closing has computed the metrics of this period."
    words = f"Computed by the closing of {row['closing_date']}, run {row['id']}."
    ids = [one["id"] for one in rows]
    if ids.index(row["id"]) > ids.index(ledger_run):
        words += " The trial balance above is newer: these metrics do not have its changes."
    return words


def local_time(text: str | None, zone: str) -> str:
    """Format a time of PostgreSQL in the schedule's zone."""
    return f"{datetime.fromisoformat(text).astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %Z}" if text else "–"


def calendar(period: str, rows: list[dict], schedule: dict, newest: date) -> list[dict]:
    """Return each date of the month with its state and a reason: {"date", "state", "words"}.

    rows: of closing_runs; schedule: "covered", "leftOut" and "heldDates" of the scheduler's state; newest: the last
    date that is due. States: closed, partly closed, failed, covered, missed, held, not due.
    """
    of_date: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["started_at"]):
        of_date.setdefault(row["closing_date"], []).append(row)
    closed = sorted(day for day, own in of_date.items() if done(own) == list(STEPS))
    day, days = date.fromisoformat(f"{period}-01"), []
    while f"{day}".startswith(period):
        later = span(f"{day}", schedule.get("covered"))
        by = next((one for one in closed if one > f"{day}"), later and later["by"])
        state, words = state_of(f"{day}", of_date.get(f"{day}", []), by, schedule, newest)
        days.append({"date": f"{day}", "state": state, "words": words})
        day += schedule_times.DAY
    return days


def span(day: str, spans: list[dict] | None) -> dict | None:
    """Return the first of the scheduler's spans of dates that has a date."""
    return next((one for one in spans or [] if one["from"] <= day <= one["to"]), None)


def state_of(day: str, own: list[dict], by: str | None, schedule: dict, newest: date) -> tuple[str, str]:
    """Return a date's state and its reason; own: its runs in the order of their start; by: the date that covers it."""
    covered = f"covered by {by}" if by else ""
    hold = span(day, schedule.get("heldDates"))
    held = f"held by {hold['who']}: {hold['reason']}" if hold else ""
    if own and done(own) == list(STEPS):
        state, words = "closed", [f"{len(own)} runs" if len(own) > 1 else "", held]
    elif own:
        left = ", ".join(f"{step} {own[-1][step]}" for step in STEPS if own[-1][step] != "succeeded")
        state = "partly closed" if own[-1]["status"] == "succeeded" else "failed"
        status = own[-1]["status"] if own[-1]["status"] not in ("succeeded", "failed") else ""
        words = [status, own[-1]["message"] or left, covered, held]
    elif by:
        state, words = "covered", [covered, held]
    elif span(day, schedule.get("leftOut")):
        state, words = "missed", ["left out after an outage", held]
    elif held:
        state, words = "held", [held]
    else:
        state, words = ("missed", ["no closing began"]) if date.fromisoformat(day) <= newest else ("not due", [])
    return state, "; ".join(word for word in words if word)


def durations(rows: list[dict]) -> dict:
    """Return the chart of the closings that have ended, in the order of their start, with the median of the complete
    ones: {"chart", "median", "lines"}."""
    ended = [row for row in sorted(rows, key=lambda row: row["started_at"]) if row["ended_at"]]
    found = [(row, history.durations(row)["total"]) for row in ended]
    complete = [
        seconds
        for row, seconds in found
        if row["status"] == "succeeded" and all(row[step] == "succeeded" for step in STEPS)
    ]
    median = statistics.median(complete) if complete else None
    texts = [f"{row['closing_date']}: {history.format_seconds(seconds)}, {row['status']}" for row, seconds in found]
    chart = bars([seconds for _, seconds in found], texts, HIGH, median)
    return {"chart": chart, "median": history.format_seconds(median), "complete": len(complete), "lines": texts}


def metrics(values: Iterable[list], period: str) -> list[dict]:
    """Return each metric: {"name", "value", "before", "change", "chart"}; before: of the newest earlier period."""
    of_metric: dict[str, dict[str, str | None]] = {}
    for month, metric, value in values:
        of_metric.setdefault(metric, {})[month] = value
    months = sorted({month for known in of_metric.values() for month in known})
    found = []
    for metric, known in of_metric.items():
        before = known.get(max((month for month in months if month < period), default=""))
        value = known.get(period)
        with localcontext(EXACT):
            change = None if value is None or before is None else Decimal(value) - Decimal(before)
        texts = [f"{month}: {amount(known.get(month))}" for month in months]
        heights = [finite(known.get(month)) for month in months]
        line = {"name": metric, "value": value, "before": before, "change": change, "texts": texts}
        found.append({**line, "chart": bars(heights, texts, LOW)})
    return found


def finite(value: str | None) -> float | None:
    """Return the height of a bar, None for no value and for one that is not a number."""
    number = Decimal(value) if value is not None else None
    return float(number) if number is not None and number.is_finite() else None


def bars(values: list[float | None], texts: list[str], high: int, median: float | None = None) -> dict:
    """Return a bar chart: {"width", "height", "zero", "median", "bars": [{"x", "y", "height", "text"}]} in pixels.

    A value of None is a bar without height; a negative one hangs below the line of zero.
    """
    known = [one for one in (*values, median) if one is not None]
    top, bottom = max([0.0, *known]), min([0.0, *known])
    scale = high / ((top - bottom) or 1.0)
    made = []
    for place, (value, text) in enumerate(zip(values, texts)):
        height = abs(value or 0.0) * scale
        y = top * scale - (height if (value or 0.0) > 0 else 0.0)
        made.append({"x": place * (BAR_WIDTH + BAR_GAP), "y": round(y, 2), "height": round(height, 2), "text": text})
    return {
        "width": max(1, len(made)) * (BAR_WIDTH + BAR_GAP),
        "height": high,
        "bar": BAR_WIDTH,
        "zero": round(top * scale, 2),
        "median": None if median is None else round((top - median) * scale, 2),
        "bars": made,
    }
