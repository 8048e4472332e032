"""inv hold and inv release on the real restate-server, with the scheduler on a clock of the test."""

from __future__ import annotations

import json
import shlex
import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from support.helpers import STATE, close, inv, run_rows
from support.schedule_helpers import Schedule, clock_of, have_closed, wait_for

from local.oracle.faults import Faults
from ops import closings, schedule
from ops.restate import request

FAULTS = Faults(STATE / "genius")
ENV = ("--env", "local")
# The schedule closes these; the test closes the others.
FIRST, SECOND = "2024-05-13", "2024-05-14"


@pytest.fixture(scope="module")
def scheduler(deployed):
    made = Schedule(deployed)
    made.forget()
    yield made
    made.leave()


@pytest.fixture(autouse=True)
def released(scheduler):
    yield
    scheduler.call("release", {"who": "a test"})


def send(cfg: dict, date: str, **fields) -> tuple[int, str]:
    """Start a closing as another program does, without inv."""
    url = f"{cfg['RESTATE_INGRESS_URL']}/DailyClosing/{date}/run"
    code, answer = request(cfg, "POST", url, {"date": date, "skipGeniusClosing": True, **fields})
    return code, answer.get("message", "")


def test_manual_closing_is_refused_and_its_date_stays_free(scheduler):
    cfg, date = scheduler.cfg, "2019-08-05"
    held = inv("hold", *ENV, "--reason", "Oracle patch", "--who", "siti").stdout
    assert "local: closings are held by siti since " in held and held.endswith(": Oracle patch\n")
    refused = inv("close", *ENV, "--date", date, check=False)
    assert (
        refused.returncode == 1 and "Oracle patch. Nothing was sent. Next: `inv release --env local`" in refused.stderr
    )
    assert closings.invocation_of(cfg, "DailyClosing", date, "run") is None
    code, message = send(cfg, date)
    assert code == 503 and "closings are held by siti" in message and message.endswith("nothing was done")
    assert run_rows(cfg, date) == []
    assert f"Next: `inv release {' '.join(ENV)}`" in inv("next", *ENV, "--date", date).stdout
    assert "the hold has ended" in inv("release", *ENV).stdout
    assert "were not held" in inv("release", *ENV).stdout
    skip = ("--skip-genius", "--skip-sync", "--skip-metrics")
    assert "accepted as" in close(date, *skip).stdout


def test_despite_hold_closes_a_date(scheduler):
    inv("hold", *ENV, "--reason", "patch")
    skip = ("--skip-genius", "--skip-sync", "--skip-metrics")
    close("2019-08-06", *skip, "--despite-hold")
    assert [row["status"] for row in run_rows(scheduler.cfg, "2019-08-06")] == ["succeeded"]
    again = inv("rerun", *ENV, "--date", "2019-08-06", "--from", "ledger", "--yes", check=False)
    assert again.returncode == 1 and "closings are held" in again.stderr
    assert len(run_rows(scheduler.cfg, "2019-08-06")) == 1


def test_running_closing_is_left_alone(scheduler):
    FAULTS.inject("procedure_seconds", "3")
    try:
        inv("close", *ENV, "--date", "2025-10-08")
        wait_for(lambda: "RUNNING" in closings.current_step(scheduler.cfg, "2025-10-08"))
        inv("hold", *ENV, "--reason", "patch")
        closings.follow(scheduler.cfg, "2025-10-08")
    finally:
        FAULTS.clear("procedure_seconds")
    assert [row["status"] for row in run_rows(scheduler.cfg, "2025-10-08")] == ["succeeded"]


def test_hold_is_printed_by_each_view(scheduler):
    # Its command is echoed as it can be pasted.
    command = inv("hold", *ENV, "--reason", "Genius' network move").stdout.splitlines()[0]
    assert json.loads(shlex.split(command)[-1])["reason"] == "Genius' network move"
    for words in (("status",), ("schedule", "status"), ("doctor",), ("ping", "--quiet", "--closings")):
        done = inv(*words, *ENV, check=False)
        shown = done.stdout + done.stderr
        assert "closings are held by" in shown and "Genius' network move" in shown, words
    assert "fix: inv release --env local" in inv("doctor", *ENV, check=False).stdout
    # A schedule that was never started is not reported as stopped because of a hold.
    assert len(inv("ping", "--quiet", "--closings", *ENV, check=False).stderr.splitlines()) == 1


def test_dates_wait_and_are_caught_up_after_the_release(scheduler):
    """The hold outlives a deploy; the newest date of the period covers the one before it."""
    have_closed(scheduler.cfg, "2024-05-10", "2024-05-20")
    scheduler.deploy(clock_of(FIRST))
    generation = scheduler.call("start")["generation"]
    scheduler.call("hold", {"who": "siti", "reason": "patch"})
    scheduler.deploy(clock_of("2024-05-15"))
    waited = scheduler.call("trigger", {"generation": generation})
    assert (waited["dates"], waited["hold"]["reason"]) == ([], "patch")
    state = scheduler.state()
    assert (state["done"], "last" in state) == ("2024-05-12", False)
    code, answer = request(scheduler.cfg, "POST", schedule.url(scheduler.cfg, "trigger"))
    assert code == 503 and "closings are held" in answer["message"]
    assert scheduler.call("release", {"who": "siti"})["dates"] == [SECOND]
    state = scheduler.state()
    assert state["covered"] == [{"from": FIRST, "to": FIRST, "by": SECOND}]
    assert state["heldDates"] == [{"from": FIRST, "to": SECOND, "who": "siti", "reason": "patch"}]
    assert (state["done"], "hold" in state, len(scheduler.planned())) == (SECOND, False, 1)


def test_hold_ends_by_itself(scheduler):
    # Without a chain, since the real clock would find years of dates due.
    scheduler.forget()
    inv("deploy", *ENV)
    zone = ZoneInfo(scheduler.cfg["SCHEDULE_ZONE"])
    first = datetime.now(zone) + timedelta(hours=1)
    inv("hold", *ENV, "--reason", "patch", "--until", first.replace(tzinfo=None).isoformat(timespec="seconds"))
    # A new hold replaces the first one with its end.
    until = datetime.now(zone) + timedelta(seconds=4)
    inv("hold", *ENV, "--reason", "short", "--until", until.isoformat())
    assert scheduler.state()["hold"]["reason"] == "short"
    wait_for(lambda: "hold" not in scheduler.state(), 15)
    assert time.time() >= until.timestamp() - 0.5


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--reason", ""), "reason '': expected 1 to 200 printable characters"),
        (("--reason", "a\nb"), "printable"),
        (("--reason", "x", "--until", "tomorrow"), "until 'tomorrow': expected a time such as"),
        (("--reason", "x", "--until", ""), "until '': expected a time such as"),
        (("--reason", "x", "--until", "2020-01-01T00:00"), "until 2020-01-01T00:00:00 is past; nothing was done"),
        (("--reason", "x", "--until", "2020-01-01T00:00+09:00"), "is past; nothing was done"),
    ],
)
def test_bad_input_is_one_line(scheduler, words, error):
    refused = inv("hold", *ENV, *words, check=False)
    assert refused.returncode == 1 and error in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert "hold" not in scheduler.state()
