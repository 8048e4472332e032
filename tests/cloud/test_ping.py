"""Pings as a person and as cron send them, to the deployed function."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from invoke import Context
from support.helpers import ROOT, STATE, close, environment_file, inv
from support.schedule_helpers import Schedule, wait_for

from ops import attention, doctor, ping
from ops.restate import request
from ops.target import Target

RUNBOOK = (ROOT / "docs" / "runbook" / "watch.md").read_text()
CRON_LINE = re.search(r"^\*/\d+ \* \* \* \* (make .*)$", RUNBOOK, re.MULTILINE)


def other_function(name: str):
    """Return an environment like local whose function nobody has deployed."""
    return environment_file(name, FUNCTION_NAME="nowhere")


def cron(env: str, options: str = "") -> subprocess.CompletedProcess:
    """Run the runbook's crontab line as cron does, with further options of make."""
    command = CRON_LINE[1].replace("/opt/finance-closing", str(ROOT)).replace("ENV=prod", f"ENV={env} {options}")
    bare = f"env -i PATH=/usr/bin:/bin SHELL=/bin/sh FINANCE_CLOSING_STATE={shlex.quote(str(STATE))} {command}"
    return subprocess.run(["/bin/sh", "-c", bare], cwd="/", capture_output=True, text=True, timeout=60)


@pytest.fixture
def quiet(deployed):
    """Leave the cloud without a blocked period and without a schedule, whatever other tests have left."""
    Schedule(deployed).forget()
    for period in attention.blocked_periods(deployed):
        set_state(deployed, "ClosingPeriod", period, {})
    wait_for(lambda: not attention.find(Target(Context(), deployed, "local")))
    return deployed


def set_state(cfg: dict, service: str, key: str, state: dict) -> None:
    encoded = {name: list(json.dumps(value).encode()) for name, value in state.items()}
    url = f"{cfg['RESTATE_ADMIN_URL']}/services/{service}/state"
    assert request(cfg, "POST", url, {"object_key": key, "new_state": encoded})[0] < 300


def ours(done: subprocess.CompletedProcess) -> list[str]:
    """Return the lines of a failed cron job without make's own."""
    assert done.returncode and not done.stdout
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def test_ping_from_cron_names_what_only_restate_knows(quiet):
    """A blocked period and a stopped schedule have a line each, and the command in each line fixes it."""
    blocked = {"date": "2019-10-09", "job": "GNS_X", "message": "STOPPED", "at": 1.0}
    set_state(quiet, "ClosingPeriod", "2019-10", {"blocked": blocked})
    inv("schedule", "start", "--env", "local")
    wait_for(lambda: attention.blocked_periods(quiet))
    try:
        (line,) = ours(cron("local"))
        assert line == "local: 2019-10 is blocked by GNS_X: STOPPED; next: inv next --env local --date 2019-10-09"
        assert (
            "inv resolve --env local --period 2019-10" in inv("next", "--env", "local", "--date", "2019-10-09").stdout
        )
        close("2019-10-09", check=False)
    finally:
        set_state(quiet, "ClosingPeriod", "2019-10", {})
    wait_for(lambda: not attention.blocked_periods(quiet))
    # As if the schedule had sent this date, which the block has ended.
    state = Schedule(quiet).state()
    set_state(quiet, "DailyClosingScheduler", "main", {**state, "last": {"at": "x", "dates": ["2019-10-09"]}})
    wait_for(lambda: "last" in Schedule(quiet).state())
    try:
        (line,) = ours(cron("local"))
        assert line.startswith("local: 2019-10-09 failed: [423] 2019-10 is blocked by job GNS_X")
        assert line.endswith("; next: inv next --env local --date 2019-10-09")
        assert "inv rerun --env local --date 2019-10-09" in inv(*line.rpartition("inv ")[2].split()).stdout
        (found,) = doctor.scheduled_dates(Target(Context(), quiet, "local"))
        assert not found.passed and found.message.startswith("2019-10-09 failed: [423] 2019-10 is blocked by job GNS_X")
        assert found.fix == "inv rerun --env local --date 2019-10-09"
        set_state(quiet, "DailyClosingScheduler", "main", state)
    finally:
        inv("schedule", "stop", "--env", "local")
    (line,) = ours(cron("local"))
    assert line == "local: the schedule is not running; next: inv schedule start --env local"
    inv("schedule", "start", "--env", "local")
    try:
        assert cron("local").returncode == 0
    finally:
        Schedule(quiet).forget()


def test_ping_from_cron_names_the_part_that_does_not_answer(quiet):
    with environment_file("testaway", RESTATE_ADMIN_URL="http://127.0.0.1:1") as env:
        (line,) = ours(cron(env))
    assert line.startswith("testaway: Restate at 127.0.0.1:1 does not answer") and "inv local.up" in line
    with environment_file("testaway", AWS_ENDPOINT_URL="http://127.0.0.1:1") as env:
        (line,) = ours(cron(env))
    assert "Could not connect to the endpoint URL" in line and "Restate" not in line


def test_ping_from_cron_prints_nothing_on_success(quiet):
    done = cron("local")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ping_from_cron_prints_one_line_on_failure(quiet):
    with other_function("testnowhere") as env:
        done = cron(env)
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode and not done.stdout
    assert len(ours) == 1
    assert "not found" in ours[0].lower() and "inv deploy --env testnowhere" in ours[0]


def test_two_pings_at_once_do_not_disturb_each_other(quiet):
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(cron, ["local", "local"]))
    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [(0, "", "")] * 2


def test_ping_under_make_j_prints_nothing(quiet):
    done = cron("local", "-j 4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_fault_of_each_database_is_in_one_line_without_the_password(function_settings, monkeypatch):
    from handler import health, oracle, settings

    monkeypatch.setenv("PG_PORT", "1")
    monkeypatch.setenv("ORACLE_PASSWORD", "mistyped")
    settings.current.cache_clear()
    oracle.driver.cache_clear()
    answer = health.deep()
    assert answer["ok"] is False
    assert "Connection refused" in answer["postgres"]["error"]
    assert "ORA-01017" in answer["oracle"]["error"] and "ORACLE_PASSWORD" in answer["oracle"]["error"]
    assert "mistyped" not in str(answer)
    assert "postgres: " in ping.find_fault(answer) and "; oracle: " in ping.find_fault(answer)
    assert len(ping.find_fault(answer).splitlines()) == 1
