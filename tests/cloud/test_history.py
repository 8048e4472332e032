"""The views of an operator on closings that run or have ended: history, status --watch, logs."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from contextlib import suppress

import pytest
from support.helpers import INV, ROOT, STATE, close, inv

from local.oracle.faults import Faults

DATE, NEIGHBOUR, FAILED = "2025-06-11", "2025-06-12", "2025-06-13"


@pytest.fixture(scope="module")
def closed(deployed):
    """Close a date under --watch, and its neighbour of the same period."""
    faults = Faults(STATE / "genius")
    # Long enough that a busy machine has begun to watch before it is over.
    faults.inject("procedure_seconds", "6")
    inv("close", "--env", "local", "--date", DATE)
    watched = inv("status", "--env", "local", "--date", DATE, "--watch").stdout
    faults.clear("procedure_seconds")
    close(NEIGHBOUR, "--skip-genius")
    return watched


def test_status_watch_prints_an_estimate_and_each_step(closed):
    assert re.search(rf"^local: {DATE} (has run for [\d.]+ s|is not running)", closed, re.MULTILINE), closed
    assert "estimate" in closed or "(median)" in closed
    assert "RUNNING" in closed and closed.rstrip().endswith("done")


def test_history_shows_each_step(closed):
    lines = inv("history", "--env", "local").stdout.splitlines()
    assert lines[0].split()[-4:] == ["total", "genius", "ledger", "metrics"]
    neighbour, first = (
        next(line for line in lines if line.startswith(date) and "succeeded" in line) for date in (NEIGHBOUR, DATE)
    )
    assert "skipped" in neighbour
    assert len(re.findall(r"\d s\b", first)) == 4


def test_history_names_the_next_command_of_a_date_that_failed(closed):
    faults = Faults(STATE / "genius")
    faults.inject("procedure_status", "0")
    try:
        close(FAILED, check=False)
    finally:
        faults.clear("procedure_status")
    (line,) = [one for one in inv("history", "--env", "local").stdout.splitlines() if one.startswith(f"{FAILED}: ")]
    assert line.endswith(f"Next: `inv rerun --env local --date {FAILED}`"), line
    close_again = inv("rerun", "--env", "local", "--date", FAILED, "--yes", "--watch").stdout
    assert "done" in close_again
    assert f"{FAILED}: " not in inv("history", "--env", "local").stdout


def test_log_of_one_date_has_no_line_of_another(closed):
    events = [
        json.loads(line.split(" ", 1)[1]) for line in inv("logs", "--env", "local", "--date", DATE).stdout.splitlines()
    ]
    assert {"begin", "submit", "ledger", "metrics", "end"} <= {event.get("step") for event in events}
    assert len({event["invocation"] for event in events}) == 1
    assert {event["date"] for event in events if "date" in event} == {DATE}
    assert "START RequestId" not in inv("logs", "--env", "local", "--since", "1h").stdout


def test_status_watch_draws_a_live_view_on_a_terminal(closed):
    """On a terminal of its own, for as long as the closing runs; then the lines of its end."""
    date = "2025-06-14"
    faults = Faults(STATE / "genius")
    faults.inject("procedure_seconds", "8")
    try:
        inv("close", "--env", "local", "--date", date)
        ours, theirs = pty.openpty()
        environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        environ |= {"TERM": "xterm-256color", "COLUMNS": "160"}
        words = [str(INV), "--search-root", str(ROOT), "status", "--env", "local", "--date", date, "--watch"]
        process = subprocess.Popen(words, cwd=ROOT, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        drawn = b""
        with suppress(OSError):
            while part := os.read(ours, 4096):
                drawn += part
        assert process.wait(60) == 0, drawn.decode()
    finally:
        faults.clear("procedure_seconds")
        os.close(ours)
    text = drawn.decode()
    assert f"DailyClosing/{date}/run" in text and "ClosingPeriod/2025-06/close" in text and "of usually" in text
    assert "\x1b[" in text and "Traceback" not in text and "done" in text.rpartition("ClosingPeriod")[2]
