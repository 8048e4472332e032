"""The scheduler on the real restate-server, on clocks that a test sets (support/soak_clock.py)."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from invoke import Context
from support.helpers import STATE, inv, output_of
from support.logpattern import matches
from support.schedule_helpers import Schedule, clock_of, have_closed, wait_for
from support.soak import SoakTest, check_closings, check_dates

from local.oracle.faults import Faults
from ops import alarms, closings, logs, schedule
from ops.restate import request
from ops.shell import aws
from ops.target import Target

FAULTS = Faults(STATE / "genius")


@pytest.fixture(scope="module")
def module_schedule(deployed):
    have_closed(deployed, "2025-08-05", "2025-08-31")
    made = Schedule(deployed)
    yield made
    made.leave()


@pytest.fixture(scope="module")
def morning() -> str:
    """Return a clock that shows 07:00 of 2025-08-04 in Jakarta."""
    return clock_of("2025-08-04")


@pytest.fixture
def stopped(module_schedule, morning):
    """Return a scheduler without state, in the morning of 2025-08-04."""
    module_schedule.deploy(morning)
    module_schedule.forget()
    return module_schedule


def test_a_second_start_reports_the_running_chain(stopped):
    first, second = stopped.call("start"), stopped.call("start")
    assert (first["alreadyRunning"], first["changed"], first["next"]) == (False, True, "2025-08-04T20:00:00+07:00")
    assert (second["alreadyRunning"], second["changed"], second["next"]) == (True, False, first["next"])
    assert second["generation"] == first["generation"] + 1
    assert stopped.planned() == [stopped.state()["next"]["invocation"]]


def test_starts_at_the_same_moment_are_one_chain(stopped):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: stopped.call("start"), range(4)))
    assert sorted(one["alreadyRunning"] for one in answers) == [False, True, True, True]
    assert len(stopped.planned()) == 1


def test_a_changed_time_takes_effect_with_the_next_start(stopped, morning):
    before = stopped.call("start")["next"]
    stopped.deploy(morning, DAILY_CLOSING_SCHEDULE_TIME="21:30")
    again = stopped.call("start")
    assert (again["alreadyRunning"], again["changed"], again["previousNext"]) == (True, True, before)
    assert again["next"] == "2025-08-04T21:30:00+07:00"
    assert len(stopped.planned()) == 1


def test_changed_time_takes_effect_after_the_next_run(stopped):
    """The run planned for 20:00 on a version that has 21:30: no date is due yet, and none is closed twice."""
    generation = stopped.call("start")["generation"]
    evening = f"2025-08-04@{int(time.time()) - 13 * 3600 - 30}*1"
    stopped.deploy(evening, DAILY_CLOSING_SCHEDULE_TIME="21:30")
    assert stopped.call("trigger", {"generation": generation})["dates"] == []
    state = stopped.state()
    assert (state["next"]["at"], state["done"]) == ("2025-08-04T21:30:00+07:00", "2025-08-03")
    assert stopped.planned() == [state["next"]["invocation"]]


def test_another_key_is_refused(stopped):
    for verb in ("start", "stop", "trigger", "status"):
        url = f"{stopped.cfg['RESTATE_INGRESS_URL']}/{schedule.SERVICE}/nightly/{verb}"
        code, answer = request(stopped.cfg, "POST", url)
        assert code == 400
        assert answer["message"].startswith("the scheduler's key is 'main', not 'nightly'; call")
    assert stopped.planned() == []


def test_run_of_an_older_generation_does_nothing(stopped):
    old = stopped.call("start")["generation"]
    stopped.call("stop")
    assert stopped.call("trigger", {"generation": old}) == {"stale": old}
    assert stopped.planned() == []
    stopped.call("start")
    before = stopped.state()
    assert stopped.call("trigger", {"generation": old}) == {"stale": old}
    assert stopped.state() == before
    assert stopped.planned() == [before["next"]["invocation"]]


def test_a_stop_ends_the_chain_and_leaves_a_running_closing_alone(stopped):
    FAULTS.inject("procedure_seconds", "4")
    try:
        stopped.call("start")
        chain = stopped.state()["next"]
        assert stopped.call("trigger") == {"date": "2025-08-04"}
        assert stopped.state()["next"] == chain
        wait_for(lambda: stopped.call("status")["closing"]["status"] == "running")
        first, second = stopped.call("stop"), stopped.call("stop")
    finally:
        FAULTS.clear("procedure_seconds")
    assert (first["wasRunning"], second["wasRunning"]) == (True, False)
    assert second["generation"] == first["generation"]
    assert stopped.planned() == []
    now = stopped.call("status")
    assert (now["running"], now["closing"]["date"], now["closing"]["status"]) == (False, "2025-08-04", "running")
    closings.follow(stopped.cfg, "2025-08-04")
    assert stopped.call("status")["closing"]["status"] == "succeeded"


def test_manual_trigger_closes_the_same_date_as_the_schedule(stopped):
    stopped.deploy(clock_of("2025-08-12"), CLOSING_DAY_OFFSET="-1")
    assert stopped.call("start")["date"] == "2025-08-11"
    assert stopped.call("trigger", {}) == {"date": "2025-08-11"}
    wait_for(lambda: closings.ended(stopped.cfg, "2025-08-11"))
    assert "closed already" in stopped.call("status")["closing"]["message"]


def test_a_trigger_with_another_payload_is_refused(stopped):
    for payload in ({"date": "2025-08-01"}, {"generation": "1"}, {"generation": True}, ["x"], "x", 5, 0, False, []):
        code, answer = request(stopped.cfg, "POST", schedule.url(stopped.cfg, "trigger"), payload)
        assert (payload, code) == (payload, 400)
        assert "to close another date than today's: `inv close" in answer["message"]
    assert "closing" not in stopped.state()


def test_start_replaces_a_killed_run_at_once(stopped):
    stopped.call("start")
    (planned,) = stopped.planned()
    stopped.ask("PATCH", f"{stopped.cfg['RESTATE_ADMIN_URL']}/invocations/{planned}/kill")
    wait_for(lambda: not stopped.planned())
    status = inv("schedule", "status", "--env", "local", check=False)
    assert (status.returncode, "was cancelled or killed" in status.stdout) == (1, True)
    # Three days later: the run of the first evening is overdue, with those of the two after it.
    stopped.deploy(clock_of("2025-08-07"))
    again = stopped.call("start")
    assert (again["alreadyRunning"], again["date"], again["done"]) == (True, "2025-08-06", "2025-08-03")
    wait_for(lambda: stopped.state().get("done") == "2025-08-06")
    wait_for(lambda: closings.ended(stopped.cfg, "2025-08-06"))
    state = stopped.state()
    assert state["next"]["at"] == "2025-08-07T20:00:00+07:00"
    assert state["last"]["dates"] == ["2025-08-06"]
    assert state["covered"] == [{"from": "2025-08-04", "to": "2025-08-05", "by": "2025-08-06"}]
    last, covers, closing = schedule.past(stopped.cfg, state)
    assert last.startswith("last run 2025-08-07T07:0") and last.endswith(", started 2025-08-06")
    assert covers == "2025-08-06 covers 2025-08-04 to 2025-08-05"
    assert closing.startswith("last closing 2025-08-06") and "closed already" in closing
    assert len(stopped.planned()) == 1


def test_the_commands_of_an_operator_and_the_reminder_of_a_deploy(stopped):
    assert "not running" in inv("deploy", "--env", "local").stdout.splitlines()[-1]
    assert stopped.planned() == []
    planned = inv("--dry", "schedule", "start", "--env", "local").stdout
    assert planned.strip() == f"curl -X POST {schedule.url(stopped.cfg, 'start')}"
    assert stopped.planned() == []
    assert "runs; next run" in inv("schedule", "start", "--env", "local").stdout
    assert "was already running" in inv("schedule.start", "--env", "local").stdout
    (planned,) = stopped.planned()
    assert "not running" not in inv("deploy", "--env", "local").stdout
    assert stopped.planned() == [planned]
    assert "generation 2" in inv("schedule", "status", "--env", "local").stdout
    assert "is cancelled" in inv("schedule", "stop", "--env", "local").stdout
    assert inv("schedule", "status", "--env", "local", check=False).returncode == 1


def test_an_outage_of_nine_months_closes_seven_and_logs_what_was_left_out(stopped):
    have_closed(stopped.cfg, "2023-11-20", "2024-08-06")
    stopped.deploy(clock_of("2023-11-20"))
    generation = stopped.call("start")["generation"]
    stopped.deploy(clock_of("2024-08-07"))
    answer = stopped.call("trigger", {"generation": generation})
    months = ("2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31", "2024-06-30", "2024-07-31")
    assert answer["dates"] == [*months, "2024-08-06"]
    assert answer["leftOut"] == stopped.state()["leftOut"] == [{"from": "2023-11-20", "to": "2024-01-31"}]
    assert stopped.state()["done"] == "2024-08-06"
    words = f"logs filter-log-events --log-group-name /aws/lambda/{stopped.cfg['FUNCTION_NAME']}"
    found = output_of(stopped.cfg, aws(stopped.cfg, f"{words} --filter-pattern dates_missed --output json"))
    pattern = alarms.wanted_alarms(stopped.cfg, "TOPIC")["dates-missed"]["filter"]["filterPattern"]
    lines = [event["message"] for event in json.loads(found)["events"]]
    missed = [json.loads(line) for line in lines if matches(pattern, line)]
    assert [one["leftOut"] for one in missed if one["leftOut"]] == [answer["leftOut"]]


def test_a_date_that_waits_for_a_blocked_period_is_reported_as_late(stopped):
    begin, day = int(time.time() * 1000), "2024-09-10"
    blocked = {"date": "2024-09-02", "job": "GNS_X", "message": "STOPPED", "at": 1.0}
    state = {"object_key": day[:7], "new_state": {"blocked": list(json.dumps(blocked).encode())}}
    url = f"{stopped.cfg['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state"
    stopped.deploy(clock_of(day))
    generation = stopped.call("start")["generation"]
    try:
        stopped.ask("POST", url, state)
        wait_for(lambda: closings.state_of(stopped.cfg, "ClosingPeriod", day[:7]))
        stopped.deploy(f"{day}@{int(time.time()) - 14 * 3600}*1", CLOSING_LATE_AFTER="1")
        assert stopped.call("trigger", {"generation": generation})["open"] == [day]
        pattern = alarms.wanted_alarms(stopped.cfg, "TOPIC")["closing-late"]["filter"]["filterPattern"]
        target = Target(Context(), stopped.cfg, "local")

        def late() -> list[dict]:
            lines = [one["message"] for one in logs.fetch(target, begin, day)]
            return [json.loads(line) for line in lines if matches(pattern, line)]

        wait_for(late)
        (event,) = late()
    finally:
        stopped.ask("POST", url, {**state, "new_state": {}})
    assert (event["date"], event["status"]) == (day, "unknown")
    assert event["next"] == "inv resolve --env ENV --period 2024-09 --as failed"


def test_eleven_days_close_or_cover_each_date_once(local, module_schedule):
    """Over a kill, a stop and a start, a double start, a skipped hour and a month's end in an outage of three days."""
    soak = SoakTest(local, module_schedule, date(2025, 3, 23), seconds=3)
    events = [
        *soak.deploys(range(1, 11), away=range(7, 10)),
        (2, soak.start_twice),
        (3.6, lambda: soak.outage(local.kill, 3.6)),
        (5, soak.stop),
        (5.1, soak.start),
        (6.8, lambda: soak.outage(local.stop, 9.8)),
    ]
    begun = soak.run(11, events)
    closed = check_dates(soak, begun, date(2025, 4, 3))
    assert "2025-03-31" in closed
    check_closings(soak, closed)


@pytest.mark.slow
def test_sixty_days_close_or_cover_each_date_once(local, module_schedule):
    """Over an hour that is shown twice, with three days' stop and a month's end in an outage of ten days."""
    soak = SoakTest(local, module_schedule, date(2025, 9, 3), seconds=5)
    events = [
        *soak.deploys(range(1, 60), away=range(23, 33)),
        (5, soak.start_twice),
        (8, lambda: soak.outage(local.kill, 8)),
        (12, soak.stop),
        (12.1, soak.start),
        (16, lambda: soak.outage(local.stop, 16)),
        (22.8, lambda: soak.outage(local.stop, 32.8)),
        (38, soak.start_twice),
        (42, soak.stop),
        (45, soak.start),
        (50.6, lambda: soak.outage(local.kill, 50.6)),
    ]
    begun = soak.run(60, events)
    closed = check_dates(soak, begun, date(2025, 11, 1))
    assert "2025-09-30" in closed
    assert len(closed) > 30, "this machine was too slow for a soak test: later dates covered most of them"
    check_closings(soak, closed)
