"""What an operator does when a closing did not go as it should, by the operator's own commands."""

from __future__ import annotations

import time

import pytest
from invoke import Exit
from support.helpers import STATE, administer, close, inv, run_rows, starts

from local.oracle.faults import Faults
from ops import closings
from ops.shell import request

FAULTS = Faults(STATE / "genius")


@pytest.fixture(autouse=True)
def no_faults():
    yield
    for fault in FAULTS.folder.iterdir():
        fault.unlink()


def rerun(date: str, *words: str, check: bool = True):
    return inv("rerun", "--env", "local", "--date", date, "--yes", "--watch", *words, check=check)


def await_state(cfg: dict, date: str, state: str) -> dict:
    """Wait until the closing of a date says this state of its job; returns the progress."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        progress = closings.state_of(cfg, "ClosingPeriod", date[:7]).get("progress", {})
        if progress.get("state") == state:
            return progress
        time.sleep(0.1)
    pytest.fail(f"{date} never came to {state}: {progress}")


def kill(cfg: dict, date: str) -> None:
    """Kill a closing as an operator in a hurry does, past all that cleans up after it."""
    run = closings.invocation_of(cfg, "DailyClosing", date, "run")
    assert request(cfg, "PATCH", f"{cfg['RESTATE_ADMIN_URL']}/invocations/{run['id']}/kill")[0] < 300
    deadline = time.monotonic() + 20
    while closings.running(cfg, date) and time.monotonic() < deadline:
        time.sleep(0.1)


def test_a_rerun_goes_on_at_the_first_step_that_has_not_succeeded(local, deployed):
    name = "financial_report.calculate_financial_metrics(uuid, integer, integer)"
    administer(local, f"ALTER FUNCTION {name} RENAME TO away")
    try:
        inv("close", "--env", "local", "--date", "2025-07-02")
        deadline = time.monotonic() + 30
        while "does not exist" not in closings.current_step(deployed, "2025-07-02") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "calculate_financial_metrics" in closings.current_step(deployed, "2025-07-02")
        assert "is cancelled" in inv("cancel", "--env", "local", "--date", "2025-07-02", "--yes").stdout
    finally:
        administer(local, "ALTER FUNCTION financial_report.away RENAME TO calculate_financial_metrics")
    done = rerun("2025-07-02")
    assert "keeps genius, ledger; goes on with metrics" in done.stdout
    first, second = run_rows(deployed, "2025-07-02")
    assert (first["status"], second["status"]) == ("cancelled", "succeeded")
    assert [second[step] for step in ("genius", "ledger", "metrics")] == ["reused", "reused", "succeeded"]
    assert [start["job"] for start in starts("2025-07")].count(first["job"]) == 1
    assert second["job"] not in [start["job"] for start in starts("2025-07")]


def test_a_closed_date_stays_closed_even_after_restate_has_forgotten_it(deployed):
    close("2025-07-03")
    refused = rerun("2025-07-03", check=False)
    assert refused.returncode == 1
    assert "2025-07-03 is closed already" in refused.stderr
    run = closings.invocation_of(deployed, "DailyClosing", "2025-07-03", "run")
    closings.purge(deployed, run["id"])
    again = close("2025-07-03", check=False)
    assert again.returncode == 1
    assert "is closed already" in again.stderr
    before = len(starts("2025-07"))
    assert "PROCEDURE RUNS" in rerun("2025-07-03", "--from", "genius").stdout
    assert len(starts("2025-07")) == before + 1


def test_a_job_that_nobody_can_know_of_blocks_its_period_until_a_person_speaks(deployed):
    """The person says that it succeeded; the README's own run has one that failed."""
    date, word = "2025-08-01", "succeeded"
    FAULTS.inject("procedure_seconds", "4")
    inv("close", "--env", "local", "--date", date)
    await_state(deployed, date, "RUNNING")
    assert "SUCCEEDED" not in inv("stop-job", "--env", "local", "--date", date, "--yes").stdout
    with pytest.raises(Exit, match="is blocked since the closing of"):
        closings.follow(deployed, date)
    FAULTS.clear("procedure_seconds")
    period, other = date[:7], f"{date[:7]}-02"
    refused = close(other, check=False)
    assert f"{period} is blocked since the closing of {date}" in refused.stderr
    assert f"inv resolve --env ENV --period {period}" in refused.stderr
    assert "is blocked by" in rerun(date, check=False).stderr
    (start,) = starts(period)
    said = inv("resolve", "--env", "local", "--period", period, "--as", word, "--who", "siti", "--yes").stdout
    assert f"{start['job']} {word}, says siti" in said
    (row,) = run_rows(deployed, date)
    assert (row["status"], row["genius"], row["detail"]["resolved"]["who"]) == ("blocked", word, "siti")
    rerun(date)
    assert len(starts(period)) == 1
    assert run_rows(deployed, date)[-1]["status"] == "succeeded"


def test_resolve_is_refused_where_nothing_is_blocked(deployed):
    refused = inv("resolve", "--env", "local", "--period", "2025-12", "--as", "failed", "--yes", check=False)
    assert refused.returncode == 1
    assert "2025-12 is not blocked" in refused.stderr


def test_the_job_of_a_killed_closing_is_taken_over_only_when_a_person_says_so(deployed):
    FAULTS.inject("procedure_seconds", "5")
    inv("close", "--env", "local", "--date", "2025-10-01")
    await_state(deployed, "2025-10-01", "RUNNING")
    busy = inv("resolve", "--env", "local", "--period", "2025-10", "--as", "failed", "--yes", check=False)
    assert "2025-10 is being closed" in busy.stderr
    kill(deployed, "2025-10-01")
    refused = rerun("2025-10-01", check=False)
    assert refused.returncode == 1
    assert "`inv rerun --adopt` takes it over" in refused.stderr
    done = rerun("2025-10-01", "--adopt")
    assert "waits for the end of GNS_202510_" in done.stdout
    assert len(starts("2025-10")) == 1
    first, second = run_rows(deployed, "2025-10-01")
    assert (first["status"], first["genius"]) == ("cancelled", "succeeded")
    assert (second["status"], second["genius"], second["ledger"]) == ("succeeded", "reused", "succeeded")


def test_the_next_date_waits_for_the_job_of_a_cancelled_one(deployed):
    before = len(starts("2025-11", event=None))
    FAULTS.inject("procedure_seconds", "5")
    inv("close", "--env", "local", "--date", "2025-11-03")
    await_state(deployed, "2025-11-03", "RUNNING")
    said = inv("cancel", "--env", "local", "--date", "2025-11-03", "--yes").stdout
    assert "is RUNNING" in said
    assert closings.invocation_of(deployed, "ClosingPeriod", "2025-11", "close")["status"] == "completed"
    FAULTS.clear("procedure_seconds")
    close("2025-11-04")
    events = starts("2025-11", event=None)[before:]
    assert [one["event"] for one in events] == ["start", "end", "start", "end"]
    (first,) = run_rows(deployed, "2025-11-03")
    assert (first["status"], first["genius"]) == ("cancelled", "succeeded")


def test_a_rerun_asks_first(deployed):
    asked = inv("rerun", "--env", "local", "--date", "2025-12-01", check=False)
    assert asked.returncode == 1
    assert "Not confirmed; nothing was changed" in asked.stderr
    assert closings.invocation_of(deployed, "DailyClosing", "2025-12-01", "run") is None
