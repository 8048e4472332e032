"""The repair of closings by the operator's own commands: rerun, cancel, resolve, stop-job."""

from __future__ import annotations

import re
import time

import pytest
from invoke import Context, Exit
from support.helpers import STATE, administer, close, environment_file, inv, run_rows, starts

from local.oracle.faults import Faults
from ops import closings
from ops.restate import request
from ops.target import Target

FAULTS = Faults(STATE / "genius")


@pytest.fixture(autouse=True)
def no_faults():
    yield
    for fault in FAULTS.folder.iterdir():
        fault.unlink()


def commands(printed: str) -> list[str]:
    return re.findall(r"^(?:curl|printf|aws|restate) .*", printed, re.MULTILINE)


def dry_then_real(*words: str):
    """Run a task with --dry and then for real: both must print the same commands, and the dry run sends none."""
    dry, done = inv("--dry", *words), inv(*words)
    assert commands(dry.stdout) == commands(done.stdout) != []
    return done


def rerun(date: str, *words: str, check: bool = True):
    return inv("rerun", "--env", "local", "--date", date, "--yes", "--watch", *words, check=check)


def await_state(cfg: dict, date: str, state: str) -> dict:
    """Wait until the closing of a date reports this state of its job; returns the progress."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        progress = closings.state_of(cfg, "ClosingPeriod", date[:7]).get("progress", {})
        if progress.get("state") == state:
            return progress
        time.sleep(0.1)
    pytest.fail(f"{date} never came to {state}: {progress}")


def pause(cfg: dict, date: str) -> None:
    """Pause the period's close of a date, as Restate does after the last retry."""
    close = closings.invocation_of(cfg, "ClosingPeriod", date[:7], "close")
    assert request(cfg, "PATCH", f"{cfg['RESTATE_ADMIN_URL']}/invocations/{close['id']}/pause")[0] < 300
    deadline = time.monotonic() + 20
    while closings.invocation_of(cfg, "ClosingPeriod", date[:7], "close")["status"] != "paused":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill(cfg: dict, date: str) -> None:
    """Kill a closing with `restate invocations kill`, which skips its clean-up."""
    run = closings.invocation_of(cfg, "DailyClosing", date, "run")
    assert request(cfg, "PATCH", f"{cfg['RESTATE_ADMIN_URL']}/invocations/{run['id']}/kill")[0] < 300
    deadline = time.monotonic() + 20
    while closings.running(cfg, date) and time.monotonic() < deadline:
        time.sleep(0.1)


def test_rerun_goes_on_at_the_first_step_that_has_not_succeeded(local, deployed):
    name = "financial_report.calculate_financial_metrics(uuid, integer, integer)"
    administer(local, f"ALTER FUNCTION {name} RENAME TO away")
    try:
        inv("close", "--env", "local", "--date", "2025-07-02")
        deadline = time.monotonic() + 30
        while "does not exist" not in closings.current_step(deployed, "2025-07-02") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "calculate_financial_metrics" in closings.current_step(deployed, "2025-07-02")
        pause(deployed, "2025-07-02")
        cancelled = dry_then_real("cancel", "--env", "local", "--date", "2025-07-02", "--yes").stdout
        assert [line.rpartition("/")[2] for line in commands(cancelled)] == ["cancel", "resume"]
        assert "is cancelled" in cancelled
    finally:
        administer(local, "ALTER FUNCTION financial_report.away RENAME TO calculate_financial_metrics")
    done = dry_then_real("rerun", "--env", "local", "--date", "2025-07-02", "--yes", "--watch")
    purge, send = commands(done.stdout)
    assert purge.endswith("/purge") and "/run/send" in send
    assert "keeps genius, ledger; goes on with metrics" in done.stdout
    first, second = run_rows(deployed, "2025-07-02")
    assert (first["status"], second["status"]) == ("cancelled", "succeeded")
    assert [second[step] for step in ("genius", "ledger", "metrics")] == ["reused", "reused", "succeeded"]
    assert [start["job"] for start in starts("2025-07")].count(first["job"]) == 1
    assert second["job"] not in [start["job"] for start in starts("2025-07")]


def test_closed_date_stays_closed_after_restate_has_forgotten_it(deployed):
    close("2025-07-03")
    refused = rerun("2025-07-03", check=False)
    assert refused.returncode == 1
    assert "2025-07-03 is closed already" in refused.stderr
    run = closings.invocation_of(deployed, "DailyClosing", "2025-07-03", "run")
    closings.purge(Target(Context(), deployed, "local"), run["id"])
    again = close("2025-07-03", check=False)
    assert again.returncode == 1
    assert "is closed already" in again.stderr
    before = len(starts("2025-07"))
    assert "PROCEDURE RUNS" in rerun("2025-07-03", "--from", "genius").stdout
    assert len(starts("2025-07")) == before + 1


def test_job_with_unknown_result_blocks_its_period_until_resolved(deployed):
    """Resolved as succeeded; the runbook's own run has one that failed."""
    date, result = "2025-08-01", "succeeded"
    FAULTS.inject("procedure_seconds", "30")
    inv("close", "--env", "local", "--date", date)
    await_state(deployed, date, "RUNNING")
    stopped = dry_then_real("stop-job", "--env", "local", "--date", date, "--yes").stdout
    assert "SUCCEEDED" not in stopped and commands(stopped)[0].endswith("/ClosingPeriod/2025-08/stop_job")
    with pytest.raises(Exit, match="is blocked by job GNS_202508_"):
        closings.follow(deployed, date)
    FAULTS.clear("procedure_seconds")
    period, other = date[:7], f"{date[:7]}-02"
    refused = close(other, check=False)
    assert f"{period} is blocked by job GNS_" in refused.stderr
    assert f"inv resolve --env local --period {period}" in refused.stderr
    assert "is blocked by" in rerun(date, check=False).stderr
    advice = inv("next", "--env", "local", "--date", date).stdout
    assert f"Next: `inv resolve --env local --period {period} --as failed`" in advice
    (start,) = starts(period)
    words = ("resolve", "--env", "local", "--period", period, "--as", result, "--who", "siti", "--yes")
    assert f"{start['job']} {result}, decided by siti" in dry_then_real(*words).stdout
    (row,) = run_rows(deployed, date)
    assert (row["status"], row["genius"], row["detail"]["resolved"]["who"]) == ("blocked", result, "siti")
    advice = inv("next", "--env", "local", "--date", date).stdout
    assert f"lacks ledger, metrics: {start['job']} was decided as succeeded by siti" in advice
    rerun(date)
    assert len(starts(period)) == 1
    assert run_rows(deployed, date)[-1]["status"] == "succeeded"


def test_resolve_of_a_period_that_is_not_blocked_is_refused(deployed):
    refused = inv("resolve", "--env", "local", "--period", "2025-12", "--as", "failed", "--yes", check=False)
    assert refused.returncode == 1
    assert "2025-12 is not blocked" in refused.stderr


def test_job_of_a_killed_closing_is_taken_over_only_with_adopt(deployed):
    before = len(starts("2025-10"))
    FAULTS.inject("procedure_seconds", "5")
    inv("close", "--env", "local", "--date", "2025-10-01")
    await_state(deployed, "2025-10-01", "RUNNING")
    busy = inv("resolve", "--env", "local", "--period", "2025-10", "--as", "failed", "--yes", check=False)
    assert "2025-10 is being closed" in busy.stderr
    kill(deployed, "2025-10-01")
    refused = rerun("2025-10-01", check=False)
    assert refused.returncode == 1
    assert "Next: `inv rerun --env local --date 2025-10-01 --adopt`" in refused.stderr
    done = rerun("2025-10-01", "--adopt")
    assert "waits for the end of GNS_202510_" in done.stdout
    assert len(starts("2025-10")) == before + 1
    first, second = run_rows(deployed, "2025-10-01")
    assert (first["status"], first["genius"]) == ("cancelled", "succeeded")
    assert (second["status"], second["genius"], second["ledger"]) == ("succeeded", "reused", "succeeded")


def test_next_date_waits_for_the_job_of_a_cancelled_closing(deployed):
    before = len(starts("2025-11", event=None))
    FAULTS.inject("procedure_seconds", "12")
    inv("close", "--env", "local", "--date", "2025-11-03")
    await_state(deployed, "2025-11-03", "RUNNING")
    assert "is RUNNING" in dry_then_real("cancel", "--env", "local", "--date", "2025-11-03", "--yes").stdout
    assert closings.invocation_of(deployed, "ClosingPeriod", "2025-11", "close")["status"] == "completed"
    FAULTS.clear("procedure_seconds")
    close("2025-11-04")
    events = starts("2025-11", event=None)[before:]
    assert [one["event"] for one in events] == ["start", "end", "start", "end"]
    (first,) = run_rows(deployed, "2025-11-03")
    assert (first["status"], first["genius"]) == ("cancelled", "succeeded")


def test_rerun_that_is_not_confirmed_changes_nothing(deployed):
    asked = inv("rerun", "--env", "local", "--date", "2025-12-01", check=False)
    assert asked.returncode == 1
    assert "Not confirmed; nothing was changed" in asked.stderr
    assert closings.invocation_of(deployed, "DailyClosing", "2025-12-01", "run") is None


def test_cancel_that_is_not_confirmed_changes_nothing(deployed):
    FAULTS.inject("procedure_seconds", "4")
    inv("close", "--env", "local", "--date", "2025-12-05")
    asked = inv("cancel", "--env", "local", "--date", "2025-12-05", check=False)
    assert (asked.returncode, commands(asked.stdout)) == (1, [])
    assert "Not confirmed; nothing was changed" in asked.stderr
    closings.follow(deployed, "2025-12-05")


def test_a_paused_closing_is_resumed_by_its_date_and_not_the_one_that_waits_behind_it(deployed):
    """As in the runbook's practice: Genius does not answer, and Restate gets the command to pause."""
    date, behind = "2025-10-16", "2025-10-17"
    FAULTS.inject("listener_down")
    inv("close", "--env", "local", "--date", date)
    deadline = time.monotonic() + 20
    while "fails: [500 Internal] Genius at" not in closings.current_step(deployed, date):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    shown = inv("status", "--env", "local", "--date", date).stdout
    assert re.search(r"ClosingPeriod/2025-10/close: failed \d+ times, next try at [\d:]{8} UTC; .*ORA-|DPY-", shown), (
        shown
    )
    assert "Traceback" not in shown and f"DailyClosing/{date}/run: suspended" in shown
    pause(deployed, date)
    inv("close", "--env", "local", "--date", behind)
    paused, queued = (inv("status", "--env", "local", "--date", one).stdout for one in (date, behind))
    assert "ClosingPeriod/2025-10/close: paused; " in paused and "paused" not in queued.partition("Next")[0]
    assert f"ClosingPeriod/2025-10/close: queued behind the closing of {date}" in queued
    with environment_file("testlate", CLOSING_LATE_AFTER="1") as late:
        lines = inv("ping", "--env", late, "--quiet", "--closings", check=False).stderr.splitlines()
    known = [line for line in lines if date[:7] in line]
    assert known[0].startswith("testlate: ClosingPeriod/2025-10/close is paused: [500")
    assert known[0].endswith(f"next: fix the cause, then inv next --env testlate --date {date}")
    assert f"{behind} is late: not closed after" in known[1] and len(known) == 2 and "{" not in known[0]
    assert known[1].endswith(f"next: inv next --env testlate --date {behind}")
    other = inv("resume", "--env", "local", "--date", behind, check=False)
    assert other.returncode == 1 and f"nothing is paused for {behind}" in other.stderr
    FAULTS.clear("listener_down")
    done = dry_then_real("resume", "--env", "local", "--date", date).stdout
    assert "ClosingPeriod/2025-10/close" in done and "Traceback" not in done
    for one in (date, behind):
        closings.follow(deployed, one)
    assert inv("resume", "--env", "local", "--date", date, check=False).returncode == 1


def test_a_failed_job_that_is_taken_over_starts_no_other(deployed):
    date = "2025-10-07"
    before = len(starts("2025-10"))
    FAULTS.inject("procedure_seconds", "5")
    FAULTS.inject("procedure_status", "0")
    inv("close", "--env", "local", "--date", date)
    await_state(deployed, date, "RUNNING")
    kill(deployed, date)
    failed = rerun(date, "--adopt", check=False)
    assert failed.returncode == 1 and "--adopt starts no other job" in failed.stderr
    assert len(starts("2025-10")) == before + 1
    for fault in ("procedure_seconds", "procedure_status"):
        FAULTS.clear(fault)
    assert f"Next: `inv rerun --env local --date {date}`" in inv("next", "--env", "local", "--date", date).stdout
    assert "the PROCEDURE RUNS" in rerun(date).stdout
    assert len(starts("2025-10")) == before + 2


def test_a_job_that_is_cancelled_before_its_start_never_starts(deployed):
    before = len(starts("2025-09"))
    FAULTS.inject("jobs_never_start")
    inv("close", "--env", "local", "--date", "2025-09-13")
    await_state(deployed, "2025-09-13", "SCHEDULED")
    inv("cancel", "--env", "local", "--date", "2025-09-13", "--yes")
    (row,) = run_rows(deployed, "2025-09-13")
    assert (row["status"], row["genius"]) == ("cancelled", "never-started")
    FAULTS.clear("jobs_never_start")
    close("2025-09-14")
    assert len(starts("2025-09")) == before + 1


def test_a_rerun_of_another_date_announces_both_jobs(deployed):
    FAULTS.inject("procedure_seconds", "5")
    inv("close", "--env", "local", "--date", "2025-09-20")
    await_state(deployed, "2025-09-20", "RUNNING")
    kill(deployed, "2025-09-20")
    FAULTS.clear("procedure_seconds")
    announced = rerun("2025-09-21").stdout
    assert "of 2025-09-20 and records it; goes on with genius: the PROCEDURE RUNS" in announced
    assert [run_rows(deployed, f"2025-09-2{n}")[-1]["genius"] for n in (0, 1)] == ["succeeded", "succeeded"]
