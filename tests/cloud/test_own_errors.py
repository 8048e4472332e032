"""Errors in our own code, and a cancellation that comes too late: no key is held for long, no two records differ."""

from __future__ import annotations

import json
import time

import pytest
from invoke import Context
from support.helpers import ROOT, administer, environment_file, inv, run_rows
from support.logpattern import matches
from support.schedule_helpers import wait_for

from ops import alarms, closings, logs
from ops.restate import request
from ops.target import Target

# A step of close and one of resolve that meet an error of the function's own code.
BROKEN = """

def sync_trial_balance(owner: str, period: str) -> dict:
    return {}["lost"]


def lost(*arguments) -> dict:
    return {}["lost"]


runs.resolve = lost
"""


WANTED = alarms.wanted_alarms({"FUNCTION_NAME": "finance-closing"}, "arn:aws:sns:ap-southeast-3:000000000000:ops")


@pytest.fixture(scope="module")
def broken(deployed):
    """Deploy the function with the broken steps, which Restate tries three times; restore it afterwards."""
    file = ROOT / "handler" / "period.py"
    whole = file.read_text()
    try:
        with environment_file("testown", RETRY_ATTEMPTS="3", RETRY_CAP_SECONDS="1", STEP_STUCK_AFTER="2") as name:
            file.write_text(whole + BROKEN)
            inv("deploy", "--env", name)
        yield deployed
    finally:
        file.write_text(whole)
        inv("deploy", "--env", "local")


def events(cfg: dict, since: float, word: str) -> list[dict]:
    """Return the events of the function's log that contain a word, since a moment."""
    found = logs.fetch(Target(Context(), cfg, "local"), int(since * 1000), word)
    return [json.loads(one["message"]) for one in found if one["message"].startswith("{")]


def counted(name: str, cfg: dict, since: float) -> list[dict]:
    """Return the events since a moment that an alarm counts."""
    pattern = WANTED[name]["filter"]["filterPattern"]
    found = logs.fetch(Target(Context(), cfg, "local"), int(since * 1000), "")
    return [json.loads(one["message"]) for one in found if matches(pattern, one["message"])]


def test_step_that_fails_for_too_long_is_counted_once_in_each_such_time(local, broken):
    begin, date = time.time(), "2025-09-04"
    name = "financial_report.calculate_financial_metrics(uuid, integer, integer)"
    administer(local, f"ALTER FUNCTION {name} RENAME TO away")
    try:
        inv("close", "--env", "local", "--date", date, "--skip-genius", "--skip-sync")
        wait_for(lambda: len(counted("step-stuck", broken, begin)) > 1)
    finally:
        administer(local, "ALTER FUNCTION financial_report.away RENAME TO calculate_financial_metrics")
    # No ledger of the period is there, so it ends in vain.
    wait_for(lambda: closings.ended(broken, date))
    stuck = counted("step-stuck", broken, begin)
    tries = [one for one in events(broken, begin, "step_failed") if one["event"] == "step_failed"]
    assert {(one["step"], one["period"]) for one in stuck} == {("metrics", date[:7])}
    assert all("does not exist" in one["error"] for one in stuck)
    assert len(tries) > len(stuck) and stuck[0]["seconds"] >= 2
    assert counted("closing-pauses", broken, begin) == []


def test_close_pauses_after_a_few_tries_and_a_fixed_version_resumes_it(broken):
    begin, date = time.time(), "2025-09-02"
    inv("close", "--env", "local", "--date", date)
    wait_for(
        lambda: (closings.invocation_of(broken, "ClosingPeriod", date[:7], "close") or {}).get("status") == "paused"
    )
    paused = closings.invocation_of(broken, "ClosingPeriod", date[:7], "close")
    assert time.time() - begin < 30
    logged = [one for one in events(broken, begin, "code_error") if one["event"] == "code_error"]
    assert [(one["step"], one["error"].split(" (")[0]) for one in logged] == [("ledger", "KeyError: 'lost'")] * 3
    assert len(counted("code-error", broken, begin)) == 3
    # Once, at the last try before the pause.
    (last,) = counted("closing-pauses", broken, begin)
    assert (last["step"], last["attempts"], last["invocation"]) == ("ledger", 3, paused["id"])

    # While it waits, another handler of the period that meets such an error has ended at once.
    other = "2025-10"
    blocked = {"date": f"{other}-09", "job": "GNS_X", "message": "STOPPED", "at": 1.0}
    state = {"object_key": other, "new_state": {"blocked": list(json.dumps(blocked).encode())}}
    assert request(broken, "POST", f"{broken['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state", state)[0] < 300
    wait_for(lambda: closings.state_of(broken, "ClosingPeriod", other))
    asked = time.monotonic()
    url = f"{broken['RESTATE_INGRESS_URL']}/ClosingPeriod/{other}/resolve"
    code, answer = request(broken, "POST", url, {"job": "GNS_X", "as": "failed", "who": "siti"})
    assert code == 500 and "error in the function's own code: KeyError: 'lost'" in answer["message"]
    assert time.monotonic() - asked < 5
    assert closings.invocation_of(broken, "ClosingPeriod", other, "resolve")["status"] == "completed"
    state["new_state"] = {}
    request(broken, "POST", f"{broken['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state", state)

    file = ROOT / "handler" / "period.py"
    file.write_text(file.read_text().removesuffix(BROKEN))
    inv("deploy", "--env", "local")
    words = ("resume", "--env", "local", "--date", date, "--latest")
    asked = inv(*words, check=False)
    assert asked.returncode == 1 and "Not confirmed; nothing was changed" in asked.stderr
    assert "KeyError: 'lost'" in asked.stdout and "Traceback" not in asked.stdout and "RT0016" in asked.stdout
    assert closings.invocation_of(broken, "ClosingPeriod", date[:7], "close")["status"] == "paused"
    assert f"{paused['id']}/resume?deployment=latest" in inv(*words, "--yes").stdout
    closings.follow(broken, date)
    (row,) = run_rows(broken, date)
    assert [row[name] for name in ("status", "genius", "ledger", "metrics")] == ["succeeded"] * 4


def test_cancellation_during_the_end_changes_nothing_and_all_agree(local, deployed):
    """The end is written slowly, so that the cancellation arrives in the middle of it."""
    begin, date = time.time(), "2025-09-03"
    administer(
        local,
        "CREATE FUNCTION financial_report.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(4); RETURN NEW; END $$",
    )
    administer(
        local,
        "CREATE TRIGGER slow BEFORE UPDATE ON financial_report.closing_runs FOR EACH ROW"
        " WHEN (NEW.status = 'succeeded' AND OLD.status = 'running') EXECUTE FUNCTION financial_report.slow()",
    )
    try:
        inv("close", "--env", "local", "--date", date, "--skip-genius", "--skip-metrics")
        wait_for(lambda: [row["ledger"] for row in run_rows(deployed, date)] == ["succeeded"])
        time.sleep(1)
        assert [row["status"] for row in run_rows(deployed, date)] == ["running"]
        output = inv("cancel", "--env", "local", "--date", date, "--yes").stdout
    finally:
        administer(local, "DROP FUNCTION financial_report.slow() CASCADE")
    assert f"the cancellation came too late: {date} succeeded" in output
    (row,) = run_rows(deployed, date)
    assert (row["status"], closings.state_of(deployed, "DailyClosing", date)["status"]["status"]) == ("succeeded",) * 2
    ends = [one["event"] for one in events(deployed, begin, date) if one["event"].startswith("closing_")]
    assert ends == ["closing_partial"]
    assert closings.state_of(deployed, "ClosingPeriod", date[:7]) == {}
