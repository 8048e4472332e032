"""The report and reconcile events at work in PostgreSQL: pages of one moment, exact, and nothing changed."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from support.helpers import ROOT, STATE, close, inv
from support.rollup_helpers import PERIOD, SCHEMA, balanced, begin, expected, reading, set_branches, set_chart

from handler import ledger, report, runs
from handler.errors import Unavailable
from local.oracle.faults import Faults

CHART = {"1": None, "11": "1", "1101": "11", "1102": "11", "9": None}
ROWS = balanced(
    [("1101", f"{branch:03}", 500, 0, 300, 100, 700, 0) for branch in range(12)] + [("11", "001", 1, 0, 0, 0, 1, 0)]
)
BEFORE = "2024-12"
METRICS = f"""
CREATE TABLE IF NOT EXISTS {SCHEMA}.financial_metrics (year int, month int, metric text, value numeric);
ALTER TABLE {SCHEMA}.financial_metrics OWNER TO finance"""


@pytest.fixture(scope="module")
def session(own_schema):
    with ledger.connected() as opened:
        set_chart(opened, CHART)
        set_branches(opened, [f"{branch:03}" for branch in range(12)])
        yield opened


@pytest.fixture
def closed(session):
    """Close the period with ROWS, and the one before it with half of its branches."""
    session.run("TRUNCATE closing_runs, closing_findings, legacy_trial_balances, calculation_runs")
    close_with("before", balanced([row for row in ROWS if row[1] < "006"][:-1]), session, BEFORE)
    close_with("owner", ROWS, session)


def close_with(owner: str, rows: list[tuple], session, period: str = PERIOD) -> None:
    begin(session, owner, job=f"GNS_{owner}")
    session.run(
        "UPDATE closing_runs SET period = :period, closing_date = CAST(:day AS date) WHERE owner = :owner",
        period=period, day=f"{period}-31", owner=owner,
    )  # fmt: skip
    ledger.replace_trial_balance(owner, period, reading(rows))
    session.run("UPDATE closing_runs SET status = 'succeeded', ended_at = now() WHERE owner = :owner", owner=owner)


def everything(session) -> str:
    """Return all that a report or a reconciliation could have changed."""
    tables = (
        "legacy_trial_balances",
        "closing_runs",
        "closing_findings",
        "calculation_runs",
        "legacy_chart_of_accounts",
    )
    return "".join(
        session.run(f"SELECT CAST(jsonb_agg(x ORDER BY x) AS text) FROM {name} x")[0][0] or "" for name in tables
    )


def all_rows(moment: str) -> tuple[list, dict, int]:
    rows, accounts, after, pages = [], {}, ["", ""], 0
    while after:
        found = json.loads(json.dumps(report.answer({"period": PERIOD, "moment": moment, "after": after})))
        assert found["ok"], found
        assert len(json.dumps(found)) <= report.PAGE_BYTES + 1000
        rows, accounts, after, pages = rows + found["rows"], accounts | found["accounts"], found["next"], pages + 1
    return rows, accounts, pages


@pytest.mark.parametrize(("limit", "value"), [("PAGE_ROWS", 7), ("PAGE_BYTES", 700), ("PAGE_ROWS", 40_000)])
def test_pages_have_every_balance_once_and_exact(session, closed, monkeypatch, limit, value):
    monkeypatch.setattr(report, limit, value)
    head = report.answer({"period": PERIOD})
    rows, accounts, pages = all_rows(head["moment"])
    assert (pages > 3) == (value < 1000)
    wanted, earlier = expected(CHART, ROWS), expected(CHART, balanced([row for row in ROWS if row[1] < "006"][:-1]))
    assert {(account, branch) for account, branch, *_ in rows} == set(wanted) | set(earlier)
    assert len(rows) == len({tuple(row[:2]) for row in rows})
    for account, branch, *amounts, before in rows:
        six = wanted.get((account, branch), [Decimal(0)] * 9)
        assert [Decimal(one) for one in amounts] == [six[2], six[3], six[4], six[8]], (account, branch)
        assert before == (None if (account, branch) not in earlier else str(earlier[account, branch][8]))
    assert accounts["1101"] == ["chart 1101", "11", True]


def test_header_names_run_job_and_equal_control_totals(session, closed, admin):
    admin.run(f"DROP TABLE IF EXISTS {SCHEMA}.financial_metrics")
    head = json.loads(json.dumps(report.answer({"period": PERIOD})))
    assert (head["ok"], head["run"], head["job"]) == (True, runs.run_id("owner"), "GNS_owner")
    assert (head["previous"], head["zone"]) == (BEFORE, "Asia/Jakarta")
    genius, postgres = head["totals"]["genius"], head["totals"]["postgres"]
    assert genius.pop("balances") == len(ROWS)
    assert genius["rows"] == postgres["rows"] and genius["end_debit"] == "84.01"
    assert {name: Decimal(one) for name, one in genius.items()} == {
        name: Decimal(one) for name, one in postgres.items()
    }
    (parent,) = [one for one in head["findings"] if one["kind"] == "parent-posting"]
    assert parent["places"] == [
        ["11", "001", {**dict.fromkeys(report.COLUMNS.values(), "0.00"), "start_debit": "0.01", "end_debit": "0.01"}]
    ]
    assert "financial_metrics has no column metric, month, value, year" in head["metrics"]["error"]


def test_metrics_have_the_earlier_periods_and_the_warnings(session, closed, admin):
    admin.run(f"DROP TABLE IF EXISTS {SCHEMA}.financial_metrics")
    for statement in METRICS.split(";"):
        admin.run(statement)
    for year, month, value in ((2025, 1, "0.10"), (2024, 1, "7"), (2023, 12, "8"), (2025, 2, "9"), (2024, 12, "NULL")):
        admin.run(f"INSERT INTO {SCHEMA}.financial_metrics VALUES ({year}, {month}, 'ratio', {value})")
    identity = runs.run_id("owner")
    session.run("UPDATE closing_runs SET metrics = 'succeeded' WHERE owner = 'owner'")
    session.run(
        "INSERT INTO calculation_runs (id, status, metadata)"
        " VALUES (CAST(:id AS uuid), 'completed', CAST(:data AS jsonb))",
        id=identity, data={"warnings": ["ratio: division by zero"]},
    )  # fmt: skip
    head = report.answer({"period": PERIOD})
    assert head["warnings"] == ["ratio: division by zero"]
    assert head["metrics"] == {
        "values": [["2024-01", "ratio", "7"], ["2024-12", "ratio", None], ["2025-01", "ratio", "0.10"]],
        "error": None,
    }
    admin.run(f"ALTER TABLE {SCHEMA}.financial_metrics OWNER TO postgres")
    error = report.answer({"period": PERIOD})["metrics"]["error"]
    assert error == f"the schema's owner must run: GRANT SELECT ON {SCHEMA}.financial_metrics TO finance"


def test_header_of_a_period_with_very_many_runs_has_the_newest_and_its_own(session, closed):
    session.run(
        "INSERT INTO closing_runs (id, owner, closing_date, period, user_id, status, message, started_at)"
        " SELECT gen_random_uuid(), 'x', '2025-01-31', '2025-01', 'adm', 'failed', repeat('ü', 8000),"
        " now() + n * interval '1 second' FROM generate_series(1, 600) n"
    )
    head = report.answer({"period": PERIOD})
    assert head["run"] == runs.run_id("owner") == head["runs"][-1]["id"] and len(head["runs"]) == 501
    assert len(json.dumps(head)) < report.PAGE_BYTES


def test_balances_replaced_between_two_pages_end_the_report(session, closed, monkeypatch):
    monkeypatch.setattr(report, "PAGE_ROWS", 5)
    moment = report.answer({"period": PERIOD})["moment"]
    first = report.answer({"period": PERIOD, "moment": moment})
    close_with("later", balanced([row for row in ROWS if row[1] < "003"][:-1]), session, BEFORE)
    answer = report.answer({"period": PERIOD, "moment": moment, "after": first["next"]})
    assert not answer["ok"] and "has replaced the trial balance" in answer["error"]


def test_what_cannot_be_reported_is_one_line(session, closed, monkeypatch):
    def refused(asked, event=report.answer) -> str:
        answer = event(asked)
        assert answer["ok"] is False and len(answer["error"].splitlines()) == 1
        return answer["error"]

    assert "'2025-13' is not a period" in refused({"period": "2025-13"})
    assert "is not a period" in refused(None) and "is not a period" in refused(
        {"period": "2025-01'; DROP"}, report.reconcile
    )
    assert "moment 7: expected" in refused({"period": PERIOD, "moment": 7})
    assert "after ['x']: expected" in refused({"period": PERIOD, "after": ["x"]})
    assert "nothing is closed yet: no closing has loaded the trial balance of 2025-02" in refused({"period": "2025-02"})
    assert "nothing is closed yet" in refused({"period": "2025-02"}, report.reconcile)
    begin(session, "running")
    assert refused({"period": PERIOD}).startswith(f"{PERIOD} is in progress: the closing of 2025-01-31, run ")
    assert "is in progress" in refused({"period": PERIOD}, report.reconcile)


def test_reconcile_finds_nothing_right_after_the_closing_and_changes_nothing(session, closed):
    before = everything(session)
    answer = report.reconcile({"period": PERIOD}, reading(ROWS))
    assert (answer["count"], answer["differences"], answer["balances"]) == (0, [], len(ROWS))
    assert (answer["run"], answer["date"]) == (runs.run_id("owner"), "2025-01-31")
    assert everything(session) == before


def test_reconcile_names_each_account_and_branch_that_differs(session, closed, capsys):
    """A changed leaf, a changed parent of its own postings, one that is gone, and one that is new."""
    before = everything(session)
    changed = [row for row in ROWS if row[:2] != ("1101", "003")]
    changed = [(*row[:4], 305, *row[5:]) if row[:2] == ("1101", "002") else row for row in changed]
    changed = [(*row[:2], 2, *row[3:]) if row[0] == "11" else row for row in changed]
    changed += [("NEW", "001", 0, 0, 0, 0, 918273645, 0)]
    answer = report.reconcile({"period": PERIOD}, reading(changed))
    assert answer["count"] == 4
    assert answer["differences"] == [
        ["11", "001", {"start_debit": ["0.02", "0.01"]}],
        ["1101", "002", {"movement_debit": ["3.05", "3.00"]}],
        ["1101", "003", {"start_debit": ["0", "5.00"], "movement_debit": ["0", "3.00"],
                         "movement_credit": ["0", "1.00"], "end_debit": ["0", "7.00"]}],
        ["NEW", "001", {"end_debit": ["9182736.45", "0"]}],
    ]  # fmt: skip
    assert everything(session) == before
    assert "9182736" not in "".join(capsys.readouterr())


def test_reconcile_answers_few_differences_of_many(session, closed, monkeypatch):
    sql = report.DIFFERENCE.replace(f"LIMIT {report.DIFFERENCES}", "LIMIT 2")
    monkeypatch.setattr(report, "DIFFERENCE", sql)
    answer = report.reconcile({"period": PERIOD}, reading([]))
    assert (answer["count"], len(answer["differences"])) == (len(ROWS), 2)


def test_reconcile_reports_what_did_not_arrive_and_what_does_not_answer(session, closed):
    lost = report.reconcile({"period": PERIOD}, reading(ROWS[:-1], totals_of=ROWS))
    assert not lost["ok"] and "differ from Genius' totals in rows" in lost["error"]
    bad = report.reconcile({"period": PERIOD}, reading([("X\0", "001", 0, 0, 0, 0, 918273645, 0)]))
    assert "cannot be compared" in bad["error"] and "NUL" in bad["error"] and "9182736" not in bad["error"]

    def silent(period):
        raise Unavailable("Genius does not answer")

    assert report.reconcile({"period": PERIOD}, silent) == {"ok": False, "error": "Genius does not answer"}


DATE = "2025-02-11"


def test_operator_gets_page_and_table_of_a_closing_and_compares_it_with_genius(deployed):
    """By the operator's commands, over the deployed function and both databases."""
    close(DATE, "--skip-genius")
    printed = inv("report", "--env", "local", "--period", DATE[:7]).stdout.splitlines()
    page, table = (ROOT / "build" / "reports" / f"local-{DATE[:7]}.{kind}" for kind in ("html", "csv"))
    assert printed == [f"local: {page}", f"local: {table}"]
    text, rows = page.read_text(), table.read_text("utf-8-sig").splitlines()
    assert "DIFFERENT" not in text and "11 partly closed</b>genius skipped" in text
    assert "combined_ratio" in text and "git " in text
    assert len(rows) > 1000 and all(len(row.split(",")) >= 9 for row in rows)
    equal = inv("reconcile", "--env", "local", "--period", DATE[:7]).stdout
    assert equal.startswith(f"local: {DATE[:7]} equal: ") and DATE in equal
    faults = Faults(STATE / "genius")
    faults.inject(
        "open_balances",
        json.dumps([[DATE[:7], "X-LATE", "late", "077", *["0", "0", "6827.25", "0", "6827.25", "0"]]]),
    )
    try:
        differs = inv("reconcile", "--env", "local", "--period", DATE[:7], check=False)
    finally:
        faults.clear("open_balances")
    assert differs.returncode == 1 and len(differs.stderr.splitlines()) == 1
    assert "differs; different balances: 1; compared: " in differs.stderr and "6827.25" not in differs.stderr
    assert (
        "account X-LATE, branch 077, movement debit: Genius 6827.25, PostgreSQL 0, difference +6827.25"
        in differs.stdout
    )
    assert "6827.25" not in inv("logs", "--env", "local", "--since", "1h").stdout


@pytest.mark.parametrize("task", ["report", "reconcile"])
@pytest.mark.parametrize(("period", "error"), [("2025-1", "is not a period"), ("2031-01", "nothing is closed yet")])
def test_period_that_cannot_be_read_is_one_line(deployed, task, period, error):
    refused = inv(task, "--env", "local", "--period", period, check=False)
    assert refused.returncode == 1 and error in refused.stderr and len(refused.stderr.splitlines()) == 1
