"""The alarms of alarms/: the lines of the function's real log that their filters match, and their creation."""

from __future__ import annotations

import json
import time

import pytest
from invoke import Context
from support.helpers import STATE, close, inv
from support.logpattern import matches

from local.oracle.faults import Faults
from ops import alarms, logs
from ops.restate import request
from ops.target import Target

CFG = {"FUNCTION_NAME": "finance-closing"}
TOPIC = "arn:aws:sns:ap-southeast-3:000000000000:ops"
WANTED = alarms.wanted_alarms(CFG, TOPIC)
WHOLE, PARTIAL, FAILED, REFUSED, FOUND = "2025-11-11", "2025-11-12", "2025-11-13", "2025-11-14", "2025-11-15"
# A balance on an account that has children.
PARENT = ["2025-11", "1", "parent", "078", "100", "0", "0", "0", "100", "0"]


@pytest.fixture(scope="module")
def lines(deployed) -> list[str]:
    """Return the function's log of five closings: complete, a step left out, failed, refused, and with findings."""
    begin = int(time.time() * 1000)
    close(WHOLE)
    close(PARTIAL, "--skip-genius")
    faults = Faults(STATE / "genius")
    faults.inject("procedure_status", "0")
    try:
        close(FAILED, check=False)
    finally:
        faults.clear("procedure_status")
    faults.inject(
        "open_balances", json.dumps([PARENT, [*PARENT[:2], "other", "078", "0", "100", "0", "0", "0", "100"]])
    )
    try:
        close(FOUND)
    finally:
        faults.clear("open_balances")
    url = f"{deployed['RESTATE_INGRESS_URL']}/DailyClosing/{REFUSED}/run"
    assert request(deployed, "POST", url, {"date": REFUSED, "protocol": "9.0"})[0] == 400
    return [event["message"] for event in logs.fetch(Target(Context(), deployed, "local"), begin, "2025-11")]


def caught(name: str, lines: list[str]) -> list[str]:
    return [json.loads(one)["date"] for one in lines if matches(WANTED[name]["filter"]["filterPattern"], one)]


def test_each_outcome_is_counted_once_by_its_own_filter(lines):
    assert caught("no-closing", lines) == [WHOLE, FOUND]
    assert caught("closing-findings", lines) == [FOUND]
    assert caught("closing-failed", lines) == [FAILED, REFUSED]
    assert caught("time-outs", lines) == []


@pytest.mark.slow
def test_alarms_are_made_once(deployed):
    first = inv("alarms", "--env", "local", "--to", "ops@example.com").stdout
    assert first.count("put-metric-alarm") == len(WANTED) == 11 and first.count("put-metric-filter") == 9
    assert "Next: inv history --env local" in first
    again = inv("alarms", "--env", "local", "--to", "ops@example.com").stdout
    assert "put-" not in again and "subscribe" not in again
    refused = inv("alarms", "--env", "local", "--to", "ops", check=False)
    assert refused.returncode == 1 and "neither an SNS topic's ARN nor an e-mail address" in refused.stderr
