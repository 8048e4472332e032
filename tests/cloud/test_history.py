"""What an operator sees of closings that run or have ended: history, status --watch, logs."""

from __future__ import annotations

import json
import re

import pytest
from invoke import Exit
from support.helpers import STATE, close, inv

from local.oracle.faults import Faults
from ops import history, logs

DATE, NEIGHBOUR = "2025-06-11", "2025-06-12"
BEGIN = history.moment("2025-06-11 10:00:00+00:00")


def row(**changed) -> dict:
    steps = dict.fromkeys(history.STEPS, "succeeded")
    detail = {"genius": {"at": BEGIN + 3600}, "ledger": {"at": BEGIN + 3660}, "metrics": {"at": BEGIN + 3661.5}}
    own = {"closing_date": DATE, "status": "succeeded", "message": "", "detail": detail}
    times = {"started_at": "2025-06-11 10:00:00+00:00", "ended_at": "2025-06-11 11:01:02+00:00"}
    return {**steps, **own, **times, **changed}


@pytest.fixture(scope="module")
def closed(deployed):
    """A date closed under --watch, and its neighbour of the same period."""
    faults = Faults(STATE / "genius")
    # Long enough that a busy machine has begun to watch before it is over.
    faults.inject("procedure_seconds", "6")
    inv("close", "--env", "local", "--date", DATE)
    watched = inv("status", "--env", "local", "--date", DATE, "--watch").stdout
    faults.clear("procedure_seconds")
    close(NEIGHBOUR, "--skip-genius")
    return watched


def test_a_running_closing_is_followed_with_an_estimate(closed):
    assert re.search(rf"^local: {DATE} (has run for [\d.]+ s|is not running)", closed, re.MULTILINE), closed
    assert "estimate" in closed or "(median)" in closed
    assert "RUNNING" in closed and closed.rstrip().endswith("done")


def test_history_shows_each_step(closed):
    lines = inv("history", "--env", "local", "--count", "2").stdout.splitlines()
    assert lines[0].split()[-4:] == ["total", "genius", "ledger", "metrics"]
    neighbour, first = (re.split(r"  +| (?=succeeded|skipped)", line) for line in lines[1:])
    assert neighbour[0] == NEIGHBOUR and "skipped" in neighbour
    assert first[0] == DATE and len(re.findall(r"\d s\b", lines[2])) == 4


def test_the_log_of_one_closing_holds_no_other(closed):
    events = [
        json.loads(line.split(" ", 1)[1]) for line in inv("logs", "--env", "local", "--date", DATE).stdout.splitlines()
    ]
    assert {"begin", "submit", "ledger", "metrics", "end"} <= {event.get("step") for event in events}
    assert len({event["invocation"] for event in events}) == 1
    assert {event["date"] for event in events if "date" in event} == {DATE}
    assert "START RequestId" not in inv("logs", "--env", "local", "--since", "1h").stdout


def test_durations_go_from_step_to_step():
    assert history.durations(row()) == {"genius": 3600, "ledger": 60, "metrics": 1.5, "total": 3662}
    unknown = {**dict.fromkeys(history.STEPS), "total": None}
    assert history.durations(row(detail={}, ended_at=None)) == unknown
    line = history.table([row()]).splitlines()[1]
    assert line.split()[-5:] == ["1:01:02", "1:00:00", "1:00", "1.5", "s"]


def test_an_estimate_counts_whole_closings_alone():
    own = row(closing_date=NEIGHBOUR, status="running", ended_at=None)
    rows = [own, row(), row(genius="skipped", ended_at="2025-06-11 10:00:01+00:00")]
    line = history.expectation(rows, NEIGHBOUR, BEGIN + 60)
    assert line == (
        f"{NEIGHBOUR} has run for 1:00; the last 1 whole closings took 1:01:02 (median):"
        " expect its end at about 11:01:02 UTC"
    )
    assert history.expectation(rows, NEIGHBOUR, BEGIN + 9000).endswith(": this one takes longer")
    assert history.expectation([own], NEIGHBOUR, BEGIN).endswith("no estimate")


@pytest.mark.parametrize("since", ["", "1", "0h", "h", "1w", "-1h"])
def test_a_span_that_is_none_is_refused(since):
    with pytest.raises(Exit, match="is malformed: expected"):
        logs.seconds(since)
