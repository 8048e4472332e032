"""The scheduler against the real restate-server, on clocks that a test sets."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from genius.faults import Faults
from invoke import Exit
from kit import STATE, inv
from pg8000 import native

from env import closings, schedule
from env.doors import aws, command_environment, request, sql
from env.environment import function_environment
from handler import settings

FAULTS = Faults(STATE / "genius")
DAY = timedelta(days=1)


class Schedule:
    """The scheduler of the tests' cloud, as its callers and its operators see it."""

    def __init__(self, cfg: dict[str, str]):
        self.cfg = cfg
        self.function = f"{cfg['AWS_ENDPOINT_URL']}/2015-03-31/functions/{cfg['FUNCTION_NAME']}"
        self.deployed: dict[str, str] = {}

    def deploy(self, **changed: str) -> None:
        """Publish and register a version that differs in these settings, as `inv deploy` does after its look-ups."""
        if changed == self.deployed:
            return
        variables = {**function_environment(self.cfg), **changed}
        self.ask("PUT", f"{self.function}/configuration", {"Environment": {"Variables": variables}})
        arn = self.ask("POST", f"{self.function}/versions", {})["FunctionArn"]
        self.ask("POST", f"{self.cfg['RESTATE_ADMIN_URL']}/v3/deployments", {"arn": arn})
        self.deployed = changed

    def ask(self, method: str, url: str, body: object = None):
        code, answer = request(self.cfg, method, url, body)
        assert code < 300, (url, code, answer)
        return answer

    def call(self, verb: str, body: object = None):
        return self.ask("POST", schedule.url(self.cfg, verb), body)

    def state(self) -> dict:
        return closings.state_of(self.cfg, schedule.SERVICE, schedule.KEY)

    def planned(self) -> list[str]:
        """The ticks that are still to come: one for each chain that there is."""
        rows = sql(
            self.cfg,
            f"SELECT id FROM sys_invocation WHERE target_service_name = '{schedule.SERVICE}'"
            " AND target_handler_name = 'trigger' AND status = 'scheduled'",
        )
        return [row["id"] for row in rows]

    def forget(self) -> None:
        """Stop and let go of all state, so that the next test begins with none."""
        self.call("stop")
        url = f"{self.cfg['RESTATE_ADMIN_URL']}/services/{schedule.SERVICE}/state"
        self.ask("POST", url, {"object_key": schedule.KEY, "new_state": {}})
        wait_for(lambda: not self.state())

    def sent(self) -> list[list[str]]:
        """What each call of trigger has sent, in the journal's order: 'tick', or the date of a closing."""
        rows = sql(
            self.cfg,
            "SELECT call.id, journal.entry_json FROM sys_journal journal JOIN sys_invocation call"
            " ON call.id = journal.id WHERE journal.entry_type = 'Command: OneWayCall'"
            f" AND call.target_service_name = '{schedule.SERVICE}' AND call.target_handler_name = 'trigger'"
            " ORDER BY call.created_at, call.id, journal.index",
        )
        calls: dict[str, list[str]] = {}
        for row in rows:
            (target,) = json.loads(row["entry_json"])["Command"]["OneWayCall"]["request"]["invocation_target"].values()
            calls.setdefault(row["id"], []).append("tick" if target["name"] == schedule.SERVICE else target["key"])
        return list(calls.values())


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.1)


def clock_of(day: str, factor: int = 1) -> str:
    """A clock that shows midnight UTC of a date now."""
    return f"{day}@{int(time.time())}*{factor}"


def have_closed(cfg: dict[str, str], first: str, last: str) -> None:
    """Have closing_runs say that these dates are closed: a closing of one of them ends at its first step."""
    connection = native.Connection(
        cfg["PG_USER"], cfg["PG_HOST"], cfg["PG_DATABASE"], int(cfg["PG_PORT"]), cfg["PG_PASSWORD"]
    )
    connection.run(
        f'INSERT INTO "{cfg["PG_SCHEMA"]}".closing_runs'
        " (id, owner, closing_date, period, user_id, status, genius, ledger, metrics)"
        " SELECT gen_random_uuid(), 'a test', day, to_char(day, 'YYYY-MM'), 'adm',"
        " 'succeeded', 'succeeded', 'succeeded', 'succeeded'"
        " FROM generate_series(CAST(:first AS date), CAST(:last AS date), interval '1 day') AS day",
        first=first,
        last=last,
    )
    connection.close()


@pytest.fixture(scope="module")
def module_schedule(deployed):
    have_closed(deployed, "2025-08-05", "2025-08-31")
    made = Schedule(deployed)
    yield made
    made.forget()
    inv("deploy", "--env", "local")


@pytest.fixture(scope="module")
def morning() -> str:
    """A clock that shows seven in the morning of 2025-08-04 in Jakarta."""
    return clock_of("2025-08-04")


@pytest.fixture
def stopped(module_schedule, morning):
    """A scheduler without a past, in the morning of 2025-08-04."""
    module_schedule.deploy(SCHEDULE_CLOCK=morning)
    module_schedule.forget()
    return module_schedule


def test_started_twice_it_is_one_chain_and_says_so(stopped):
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
    stopped.deploy(SCHEDULE_CLOCK=morning, DAILY_CLOSING_SCHEDULE_TIME="21:30")
    again = stopped.call("start")
    assert (again["alreadyRunning"], again["changed"], again["previousNext"]) == (True, True, before)
    assert again["next"] == "2025-08-04T21:30:00+07:00"
    assert len(stopped.planned()) == 1


def test_a_changed_time_takes_effect_with_the_next_tick(stopped):
    """The tick of 20:00 on a version that has 21:30: no date is due yet, and none is closed twice."""
    generation = stopped.call("start")["generation"]
    evening = f"2025-08-04@{int(time.time()) - 13 * 3600 - 30}*1"
    stopped.deploy(SCHEDULE_CLOCK=evening, DAILY_CLOSING_SCHEDULE_TIME="21:30")
    assert stopped.call("trigger", {"generation": generation})["dates"] == []
    state = stopped.state()
    assert (state["next"]["at"], state["done"]) == ("2025-08-04T21:30:00+07:00", "2025-08-03")
    assert stopped.planned() == [state["next"]["invocation"]]


def test_another_key_is_refused(stopped):
    for verb in ("start", "stop", "trigger", "status"):
        url = f"{stopped.cfg['RESTATE_INGRESS_URL']}/{schedule.SERVICE}/nightly/{verb}"
        code, answer = request(stopped.cfg, "POST", url)
        assert code == 400
        assert answer["message"].startswith("the scheduler's key is 'main', not 'nightly'; nothing was done")
    assert stopped.planned() == []


def test_a_tick_of_an_older_generation_does_nothing(stopped):
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
    FAULTS.plant("procedure_seconds", "4")
    try:
        stopped.call("start")
        chain = stopped.state()["next"]
        assert stopped.call("trigger") == {"date": "2025-08-04"}
        assert stopped.state()["next"] == chain
        wait_for(lambda: stopped.call("status")["closing"]["status"] == "running")
        first, second = stopped.call("stop"), stopped.call("stop")
    finally:
        FAULTS.lift("procedure_seconds")
    assert (first["wasRunning"], second["wasRunning"]) == (True, False)
    assert second["generation"] == first["generation"]
    assert stopped.planned() == []
    now = stopped.call("status")
    assert (now["running"], now["closing"]["date"], now["closing"]["status"]) == (False, "2025-08-04", "running")
    closings.watch(stopped.cfg, "2025-08-04")
    assert stopped.call("status")["closing"]["status"] == "succeeded"


def test_a_person_s_trigger_starts_the_day_before_where_ticks_do(stopped):
    stopped.deploy(SCHEDULE_CLOCK=clock_of("2025-08-12"), CLOSING_DAY_OFFSET="-1")
    assert stopped.call("start")["date"] == "2025-08-11"
    assert stopped.call("trigger", {}) == {"date": "2025-08-11"}
    wait_for(lambda: closings.ended(stopped.cfg, "2025-08-11"))
    assert "closed already" in stopped.call("status")["closing"]["message"]


def test_a_trigger_with_another_payload_is_refused(stopped):
    for payload in ({"date": "2025-08-01"}, {"generation": "1"}, {"generation": True}, ["x"], "x", 5, 0, False, []):
        code, answer = request(stopped.cfg, "POST", schedule.url(stopped.cfg, "trigger"), payload)
        assert (payload, code) == (payload, 400)
        assert "nothing was started; close another date with `inv close" in answer["message"]
    assert "closing" not in stopped.state()


def test_a_tick_that_somebody_killed_is_missed_and_a_start_makes_up_for_it_at_once(stopped):
    stopped.call("start")
    (tick,) = stopped.planned()
    stopped.ask("PATCH", f"{stopped.cfg['RESTATE_ADMIN_URL']}/invocations/{tick}/kill")
    wait_for(lambda: not stopped.planned())
    told = inv("schedule", "status", "--env", "local", check=False)
    assert (told.returncode, "is gone" in told.stdout) == (1, True)
    # Three days later: the tick of the first evening is overdue, with those of the two after it.
    stopped.deploy(SCHEDULE_CLOCK=clock_of("2025-08-07"))
    again = stopped.call("start")
    assert (again["alreadyRunning"], again["date"], again["done"]) == (True, "2025-08-06", "2025-08-03")
    wait_for(lambda: stopped.state().get("done") == "2025-08-06")
    wait_for(lambda: closings.ended(stopped.cfg, "2025-08-06"))
    state = stopped.state()
    assert state["next"]["at"] == "2025-08-07T20:00:00+07:00"
    assert state["last"]["dates"] == ["2025-08-06"]
    assert state["covered"] == [{"from": "2025-08-04", "to": "2025-08-05", "by": "2025-08-06"}]
    assert len(stopped.planned()) == 1


def test_the_operator_s_commands_and_what_a_deploy_says(stopped):
    assert "not running" in inv("deploy", "--env", "local").stdout.splitlines()[-1]
    assert stopped.planned() == []
    rehearsed = inv("--dry", "schedule", "start", "--env", "local").stdout
    assert rehearsed.strip() == f"curl -X POST {schedule.url(stopped.cfg, 'start')}"
    assert stopped.planned() == []
    assert "runs; next tick" in inv("schedule", "start", "--env", "local").stdout
    assert "was running already" in inv("schedule.start", "--env", "local").stdout
    (tick,) = stopped.planned()
    assert "not running" not in inv("deploy", "--env", "local").stdout
    assert stopped.planned() == [tick]
    assert "generation 2" in inv("schedule", "status", "--env", "local").stdout
    assert "will not come" in inv("schedule", "stop", "--env", "local").stdout
    assert inv("schedule", "status", "--env", "local", check=False).returncode == 1


def test_an_outage_of_nine_months_closes_seven_and_logs_what_was_left_out(stopped):
    have_closed(stopped.cfg, "2023-11-20", "2024-08-06")
    stopped.deploy(SCHEDULE_CLOCK=clock_of("2023-11-20"))
    generation = stopped.call("start")["generation"]
    stopped.deploy(SCHEDULE_CLOCK=clock_of("2024-08-07"))
    tick = stopped.call("trigger", {"generation": generation})
    months = ("2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31", "2024-06-30", "2024-07-31")
    assert tick["dates"] == [*months, "2024-08-06"]
    assert tick["leftOut"] == stopped.state()["leftOut"] == [{"from": "2023-11-20", "to": "2024-01-31"}]
    assert stopped.state()["done"] == "2024-08-06"
    words = f"logs filter-log-events --log-group-name /aws/lambda/{stopped.cfg['FUNCTION_NAME']}"
    found = subprocess.run(
        aws(stopped.cfg, f"{words} --filter-pattern dates_missed --output json"),
        shell=True,
        env={**os.environ, **command_environment(stopped.cfg)},
        capture_output=True,
        check=True,
    )
    lines = [event["message"] for event in json.loads(found.stdout)["events"]]
    said = [json.loads(line[line.index("{") :]) for line in lines if '"dates_missed"' in line]
    assert [one["leftOut"] for one in said if one["leftOut"]] == [tick["leftOut"]]


BERLIN = ZoneInfo("Europe/Berlin")
FIRST = date(2025, 9, 10)
FACTOR = 108_000
# On 2025-10-26, within the sixty days, both of them are shown twice.
TIMES = ("02:30", "02:45")


class Rehearsal:
    """Sixty days of a schedule, 0.8 s each, with a look at the number of chains several times a day."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.up, self.deploys = schedule, True, 0
        self.value = clock_of((FIRST - DAY).isoformat(), FACTOR)
        self.clock = settings.clock(self.value)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.shown(time.time()), BERLIN)

    def until(self, day: float) -> None:
        """Wait for the noon of a day, counted from FIRST, or a moment after it; never two chains meanwhile."""
        noon = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=BERLIN).timestamp() + day * 86400
        while self.now().timestamp() < noon:
            if self.up:
                # A server that has just come back answers queries a moment after it answers health checks.
                with contextlib.suppress(Exit):
                    assert len(self.schedule.planned()) <= 1
            time.sleep(0.15)

    def deploy(self) -> None:
        """The next version, with the other time of day."""
        self.schedule.deploy(
            SCHEDULE_CLOCK=self.value,
            SCHEDULE_ZONE=BERLIN.key,
            DAILY_CLOSING_SCHEDULE_TIME=TIMES[self.deploys % 2],
            POLL_INITIAL_SECONDS="0.2",
        )
        self.deploys += 1

    def start_twice(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: self.schedule.call("start"), range(2)))

    def outage(self, local, end, until: float) -> None:
        """restate-server is away until a day; end: how it goes."""
        self.up = False
        end("restate")
        self.until(until)
        local.start("restate")
        self.up = True


def test_sixty_days_close_or_cover_each_date_once(local, module_schedule):
    """Restarts, an outage of ten days over a month's end, double starts, stop and start, and a deploy every third day.

    Each deploy costs a cold start, so one a day would measure this machine. Most dates are closed already, so that
    their closings end at their first step; the last ones are whole.
    """
    schedule = module_schedule
    schedule.forget()
    earlier = len(schedule.sent())
    have_closed(schedule.cfg, f"{FIRST - 7 * DAY}", f"{FIRST + 57 * DAY}")
    FAULTS.plant("procedure_seconds", "0.05")
    rehearsal = Rehearsal(schedule)
    events = {day: rehearsal.deploy for day in range(1, 60, 3) if not 16 <= day <= 26}
    events |= {
        5: rehearsal.start_twice,
        8: lambda: rehearsal.outage(local, local.kill, 8),
        12: lambda: (schedule.call("stop"), schedule.call("start")),
        16: lambda: rehearsal.outage(local, local.stop, 26),
        30: lambda: rehearsal.outage(local, local.stop, 30),
        36: rehearsal.start_twice,
        41: lambda: schedule.call("stop"),
        44: lambda: schedule.call("start"),
        50.6: lambda: rehearsal.outage(local, local.kill, 50.6),
        60: lambda: schedule.call("stop"),
    }
    try:
        rehearsal.deploy()
        begun = date.fromisoformat(schedule.call("start")["date"])
        for day, event in sorted(events.items()):
            rehearsal.until(day)
            event()
        state = schedule.state()
        closed = check_sends(schedule.sent()[earlier:])
        check_dates(begun, closed, state)
        wait_for(lambda: not any(closings.running(schedule.cfg, day) for day in closed), 60)
    finally:
        FAULTS.lift("procedure_seconds")
    assert schedule.planned() == []
    assert schedule.call("status")["closing"]["status"] == "succeeded"


def check_sends(sent: list[list[str]]) -> list[str]:
    """Each tick has planned the next one before it sent anything; returns the dates that were sent."""
    assert all(calls[0] == "tick" and "tick" not in calls[1:] for calls in sent)
    return [day for calls in sent for day in calls[1:]]


def check_dates(begun: date, closed: list[str], state: dict) -> None:
    covered = []
    for one in state["covered"]:
        first, last = date.fromisoformat(one["from"]), date.fromisoformat(one["to"])
        covered += [(first + n * DAY).isoformat() for n in range((last - first).days + 1)]
        assert one["by"] in closed and one["by"][:7] == one["from"][:7]
    done = date.fromisoformat(state["done"])
    assert done >= FIRST + 59 * DAY
    assert sorted(closed + covered) == [(begun + n * DAY).isoformat() for n in range((done - begun).days + 1)]
    # The month's end fell into the outage.
    assert "2025-09-30" in closed
    assert "leftOut" not in state
    assert len(closed) >= 25, "this machine was too slow for a rehearsal: most dates were covered by later ones"
