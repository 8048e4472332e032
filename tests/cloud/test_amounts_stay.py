"""Amounts of single accounts and branches stay in the two databases, whatever goes wrong with them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from invoke import Config, Context, Exit
from support.helpers import ROOT, STATE, UNUSED, administer, as_superuser, inv, run_rows

import tasks
from cloud.test_dry import ONLY_DRY, arguments, declaring
from local.oracle.faults import Faults
from ops.logs import filter_log_events
from ops.restate import sql
from ops.target import Target
from ops.task import ENVIRONMENT, NOTHING

FAULTS = Faults(STATE / "genius")
# The first digits of every marked amount, in the ways of writing it.
MARK = ("918273645", "918,273,645", "918.273.645")
AMOUNT = "918273645.91"
UNKNOWN, PARENT = ("X-MARKED", "077"), ("1", "078")
# These print the rows of a query or amounts that differ, or they take minutes.
LEFT_OUT = ("genius.sql", "reconcile", *ONLY_DRY)
QUICK = ("status", "history", "logs", "rerun", "resolve", "ping", "local.logs")


def balance(place: tuple[str, str], begin: str, end: str) -> list[str]:
    """Return a balance without movements; an amount with a minus is a credit."""
    (account, branch), sides = place, []
    for amount in (begin, "0", end):
        sides += ["0", amount[1:]] if amount.startswith("-") else [amount, "0"]
    return [account, "marked", branch, *sides]


WHOLE = [balance(UNKNOWN, AMOUNT, AMOUNT), balance(PARENT, f"-{AMOUNT}", f"-{AMOUNT}")]
# Date -> the balances that Genius has beside its own, whether the closing succeeds, and a part of its finding.
CLOSINGS = {
    "2025-05-22": (WHOLE, True, "balances of accounts that are not in the chart"),
    # Two ends that do not follow, and cancel out.
    "2025-08-22": ([balance(UNKNOWN, "0", AMOUNT), balance(PARENT, "0", f"-{AMOUNT}")], False, "do not make their end"),
    "2025-06-22": ([balance(UNKNOWN, AMOUNT, "0")], False, "debit and credit differ"),
    "2025-07-22": ([balance(("X-MARKED\0", "077"), AMOUNT, AMOUNT)], False, "NUL character"),
    # The table refuses a row, and PostgreSQL's DETAIL shows it.
    "2025-11-22": (WHOLE, False, "marked_small"),
    # The report's function raises with an amount in its DETAIL.
    "2025-12-22": ([], False, "no rate for USD"),
}
SMALL = "CHECK (branch_code <> '077' OR month <> 11) NOT VALID"
RAISING = f"""
CREATE FUNCTION financial_report.marked() RETURNS trigger LANGUAGE plpgsql AS
$f$ BEGIN RAISE EXCEPTION 'no rate for USD' USING DETAIL = '{AMOUNT}'; END $f$;
CREATE TRIGGER marked BEFORE INSERT ON financial_report.financial_metrics FOR EACH ROW WHEN (NEW.month = 12)
EXECUTE FUNCTION financial_report.marked()"""


@pytest.fixture(scope="module")
def printed(deployed, local):
    """Close all dates, each in a period of its own, at once; return what the commands printed, by date.

    The procedure is left out: its starts are counted by other tests.
    """
    table = "financial_report.legacy_trial_balances"
    rows = [[date[:7], *row] for date, (some, *_) in CLOSINGS.items() for row in some]
    with contextlib.ExitStack() as undo:
        administer(local, f"ALTER TABLE {table} ADD CONSTRAINT marked_small {SMALL}")
        undo.callback(administer, local, f"ALTER TABLE {table} DROP CONSTRAINT marked_small")
        administer(local, RAISING)
        undo.callback(administer, local, "DROP FUNCTION financial_report.marked() CASCADE")
        FAULTS.inject("open_balances", json.dumps(rows))
        undo.callback(FAULTS.clear, "open_balances")
        out = {date: inv("close", "--env", "local", "--date", date, "--skip-genius").stdout for date in CLOSINGS}
        for date, (_, succeeds, named) in CLOSINGS.items():
            done = inv("status", "--env", "local", "--date", date, "--watch", check=False)
            out[date] += done.stdout + done.stderr
            assert (done.returncode == 0) == succeeds and named in out[date], out[date]
    return out


def marked(text: str) -> list[str]:
    """Return the places of a text that contain a marked amount."""
    return [text[max(0, at - 80) : at + 40] for mark in MARK if (at := text.find(mark)) >= 0]


def test_closings_print_no_amount_and_name_the_place(printed):
    assert marked(json.dumps(printed)) == []
    assert "account X-MARKED, branch 077" in printed["2025-08-22"]


def test_the_databases_have_the_amounts(printed, deployed, local):
    """So the other tests would find a leak."""
    connection = as_superuser(local)
    kinds = connection.run(
        "SELECT kind FROM financial_report.closing_findings"
        " JOIN financial_report.closing_runs ON closing_runs.id = run_id"
        " WHERE amounts::text LIKE '%' || :mark || '%'",
        mark=MARK[0],
    )
    connection.close()
    assert {"unknown-account", "parent-posting", "inconsistent-balance"} <= {kind for (kind,) in kinds}


def test_closing_runs_has_no_amount(printed, deployed):
    rows = [row for date in CLOSINGS for row in run_rows(deployed, date)]
    assert len(rows) == len(CLOSINGS)
    assert marked(json.dumps(rows, default=str)) == []
    assert all(row["message"] for row in rows if row["status"] == "failed")


def test_restate_has_no_amount(printed, deployed):
    names = []
    for table in ("sys_journal", "sys_journal_events", "state", "sys_invocation"):
        for row in sql(deployed, f"SELECT * FROM {table}"):
            for name, value in row.items():
                text = (
                    bytes.fromhex(value).decode(errors="replace") if name in ("raw", "value") and value else str(value)
                )
                assert marked(text) == [], (table, name)
                names += [table] * ("X-MARKED" in text)
    # The same search finds the account's name in each of them, events of retries excepted.
    assert {"sys_journal", "state", "sys_invocation"} <= set(names)


def test_the_functions_log_has_no_amount(printed, deployed):
    target = Target(Context(Config()), deployed, "local")
    log = json.dumps(target.query_json(filter_log_events(deployed, 0, "")))
    assert marked(log) == []
    assert "X-MARKED" in log and "ledger_findings" in log


def test_no_file_of_build_or_of_the_services_logs_has_an_amount(printed):
    files = [*(ROOT / "build").rglob("*"), *STATE.rglob("*.log")]
    assert any(file.name == "postgres.log" for file in files)
    for file in filter(Path.is_file, files):
        assert marked(file.read_bytes().decode(errors="replace")) == [], file


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(one, marks=[] if one in QUICK else pytest.mark.slow)
        for one in declaring(NOTHING, ENVIRONMENT)
        if one not in LEFT_OUT
    ],
)
def test_no_task_prints_an_amount(printed, deployed, task, monkeypatch, capfd):
    """Queries as they are, changes as their dry run, for a date that was closed and for one that was refused."""
    for name in UNUSED:
        monkeypatch.delenv(name, raising=False)
    for date in ("2025-05-22", "2025-08-22"):
        given = {"env": "local", "date": date, "period": date[:7]}
        values = {name: given.get(name, value) for name, value in arguments(task).items()}
        dry = tasks.namespace[task].changes == ENVIRONMENT
        stopped = ""
        try:
            tasks.namespace[task](Context(Config(overrides={"run": {"dry": dry}})), **values)
        except Exit as stop:
            stopped = stop.message or ""
        captured = capfd.readouterr()
        assert marked(captured.out + captured.err + stopped) == []
        if "date" not in values:
            break


def test_status_history_and_watch_show_the_findings(printed):
    history = inv("history", "--env", "local", "--count", "60").stdout
    assert "finding: 1 balances of accounts that are not in the chart" in history
    assert "refused: 2 balances whose start and movement do not make their end" in history
    status = inv("status", "--env", "local", "--date", "2025-05-22").stdout
    assert "  finding: 1 balances of accounts that have children in the chart: account 1, branch 078" in status
    assert "X-MARKED, branch 077" in inv("status", "--env", "local").stdout
    assert "finding: 1 balances of accounts that are not" in printed["2025-05-22"].partition("done\n")[2]
