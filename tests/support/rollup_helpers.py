"""A schema of its own with bare tables, and a trial balance computed a second way, in whole cents and Python."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

from handler import genius, rollup, runs

SCHEMA = "rollup_test"
TABLES = ("legacy_chart_of_accounts", "branches", "legacy_trial_balances", "calculation_runs")
NUMERIC = [f"{kind}_{side}" for kind in rollup.KINDS for side in ("debit", "credit", "balance")]
PERIOD = "2025-01"


def make_schema(admin) -> None:
    """Make tables as the report's, without foreign keys and without a limit of digits."""
    for statement in (
        f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE",
        f"CREATE SCHEMA {SCHEMA} AUTHORIZATION finance",
        *(f"CREATE TABLE {SCHEMA}.{name} (LIKE financial_report.{name} INCLUDING ALL)" for name in TABLES),
        *(f"ALTER TABLE {SCHEMA}.{name} OWNER TO finance" for name in TABLES),
        f"ALTER TABLE {SCHEMA}.legacy_trial_balances "
        + ", ".join(f"ALTER {column} TYPE numeric" for column in NUMERIC),
        f"CREATE TABLE {SCHEMA}.calls (at timestamptz DEFAULT clock_timestamp())",
        f"ALTER TABLE {SCHEMA}.calls OWNER TO finance",
        f"""CREATE FUNCTION {SCHEMA}.calculate_financial_metrics(run uuid, y int, m int) RETURNS text LANGUAGE sql AS $$
            INSERT INTO {SCHEMA}.calls DEFAULT VALUES;
            INSERT INTO {SCHEMA}.calculation_runs (id, status) VALUES (run, 'completed');
            SELECT pg_sleep(0.2)::text $$""",
    ):
        admin.run(statement)


def money(cents: int) -> Decimal:
    """Return an exact amount, whatever the number of digits: arithmetic on Decimal would round to 28."""
    return Decimal(f"{cents}e-2")


def balanced(rows: list[tuple], account: str = "9", branch: str = "000") -> list[tuple]:
    """Return rows of (account, branch, six amounts in cents) with one more that makes debit equal credit."""
    sums = [sum(row[2 + place] for row in rows) for place in range(6)]
    return [*rows, (account, branch, *(0 if place % 2 == 0 else sums[place - 1] - sums[place] for place in range(6)))]


def as_genius(rows: Iterable[tuple]) -> list[tuple]:
    return [(code, f"name of {code}", branch, *(str(money(one)) for one in cents)) for code, branch, *cents in rows]


def reading(rows: list[tuple], totals_of: list[tuple] | None = None, served=None):
    """Return a replacement of genius.open_balances that reads rows in cents.

    totals_of: the rows whose sums are the totals, if they are others; served: changes the rows before they are read.
    """
    summed = rows if totals_of is None else totals_of
    totals = {"rows": len(summed)}
    totals |= {name: money(sum(row[2 + place] for row in summed)) for place, name in enumerate(rollup.COLUMNS)}

    @contextlib.contextmanager
    def open_balances(period: str):
        yield genius.OpenBalances(lambda: (served or iter)(as_genius(rows)), lambda: totals, lambda: None)

    return open_balances


def expected(chart: dict[str, str | None], rows: list[tuple]) -> dict[tuple[str, str], tuple]:
    """Return {(account, branch): nine amounts} of every row that must be written."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 6)
    for account, branch, *cents in rows:
        place: str | None = account
        while place is not None:
            sums[place, branch] = [old + new for old, new in zip(sums[place, branch], cents)]
            place = chart.get(place)
    return {
        key: tuple(money(part) for d, c in zip(six[::2], six[1::2]) for part in (d, c, d - c))
        for key, six in sums.items()
    }


def written(session) -> dict[tuple[str, str], tuple]:
    rows = session.run(f"SELECT chart_of_account_code, branch_code, {', '.join(NUMERIC)} FROM legacy_trial_balances")
    assert len(rows) == len({(account, branch) for account, branch, *_ in rows})
    return {(account, branch): tuple(amounts) for account, branch, *amounts in rows}


def findings_kept(session, owner: str, kind: str, column: str = "start_debit") -> dict[tuple[str, str], str]:
    """Return {(account, branch): an amount} of a run's closing_findings."""
    rows = session.run(
        "SELECT account, branch, amounts ->> :column FROM closing_findings"
        " WHERE run_id = CAST(:id AS uuid) AND kind = :kind",
        id=runs.run_id(owner),
        kind=kind,
        column=column,
    )
    return {(account, branch): amount for account, branch, amount in rows}


def set_branches(session, branches: Iterable[str]) -> None:
    session.run("DELETE FROM branches")
    session.run("COPY branches (code, name) FROM STDIN", stream=(f"{code}\t{code}\n" for code in branches))


def set_chart(session, chart: dict[str, str | None]) -> None:
    session.run("DELETE FROM legacy_chart_of_accounts")
    lines = (f"{code}\t{parent or chr(92) + 'N'}\t1\tchart {code}\n" for code, parent in chart.items())
    session.run("COPY legacy_chart_of_accounts (code, parent_code, level, name) FROM STDIN", stream=lines)


def begin(session, owner: str, job: str | None = None, ended_at: str | None = None, genius: str = "succeeded") -> str:
    """Begin a run, as before its ledger step; returns the owner."""
    session.run(
        "INSERT INTO closing_runs (id, owner, closing_date, period, user_id, job, status, genius, detail) VALUES"
        " (CAST(:id AS uuid), :owner, '2025-01-31', :period, 'siti', :job, 'running', :genius,"
        " jsonb_build_object('genius', jsonb_build_object('endedAt', CAST(:ended_at AS text))))"
        " ON CONFLICT (id) DO NOTHING",
        id=runs.run_id(owner),
        owner=owner,
        period=PERIOD,
        job=job,
        genius=genius,
        ended_at=ended_at,
    )
    return owner
