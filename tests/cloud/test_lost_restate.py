"""Restate loses its data while closing jobs run: the runbook leads to the right books, with one start each."""

from __future__ import annotations

import os
import re
import shutil
import time

import pytest
from chaos import checkout as chaos_checkout
from chaos import checks
from chaos.checkout import ROOT, Checkout
from support import warm

from local.cloud import Cloud
from local.oracle.faults import Faults
from ops import config

MOST_COMMANDS, BOUND_SECONDS = 8, 120
TAKEN_OVER, CLOSED_AGAIN = "2025-02-27", "2025-03-27"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a copy of the repository, deployed on a cloud of its own."""
    monkeypatch.setattr(chaos_checkout, "INV", warm.started().bin / "inv")
    cloud = Cloud(ROOT / ".local" / "lost-restate", report=lambda line: None)
    cloud.reset()
    cloud.up(procedure_seconds=0)
    there = Checkout(tmp_path / "checkout", cloud.state.path)
    there.cloud = cloud
    try:
        there.deploy()
        assert there.inv("schema", "--env", "local").returncode == 0
        yield there
    finally:
        cloud.down()
        cloud.reset()


def starts(checkout: Checkout, date: str) -> list[str]:
    log = checks.procedure_log(checkout.state, date[:7])
    return [one["event"] for one in log if one["event"] == "start"]


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.3)


def lose_restate(checkout: Checkout) -> None:
    """Start Restate from nothing; Genius and PostgreSQL go on."""
    checkout.cloud.kill("restate")
    shutil.rmtree(checkout.state / "restate")
    checkout.cloud.start("restate")
    checkout.deploy()


def follow(checkout: Checkout, date: str) -> list[str]:
    """Run what `inv next` names until the date is closed; returns the tasks."""
    done: list[str] = []
    while True:
        answer = checkout.inv("next", "--env", "local", "--date", date).stdout
        found = re.search(r"Next: `inv (.*)`", answer)
        if not found:
            assert f"{date} is closed" in answer, answer
            return done
        assert len(done) < MOST_COMMANDS, done
        # By the procedure's own log it has succeeded.
        words = found[1].replace("--as failed", "--as succeeded").split()
        done.append(" ".join(one for one in words if one in ("rerun", "resolve", "close", "status", "--adopt")))
        asks = words[0] in ("rerun", "resolve")
        watch = ["--watch"] if words[0] in ("rerun", "close") else []
        run = checkout.inv(*words, *watch, *(["--yes"] if asks else []))
        assert run.returncode in (0, 1), run.stderr


@pytest.mark.slow
def test_lost_data_of_restate_starts_no_procedure_again(checkout):
    faults = Faults(checkout.state / "genius")
    faults.inject("procedure_seconds", "15")
    for date in (TAKEN_OVER, CLOSED_AGAIN):
        assert checkout.inv("close", "--env", "local", "--date", date).returncode == 0
    for date in (TAKEN_OVER, CLOSED_AGAIN):
        wait_for(lambda date=date: starts(checkout, date), f"the start of {date}")
    lose_restate(checkout)

    again = checkout.inv("close", "--env", "local", "--date", CLOSED_AGAIN, "--watch")
    assert again.returncode == 1
    assert "no recorded run accounts for it" in again.stderr and "inv resolve" in again.stderr
    assert starts(checkout, CLOSED_AGAIN) == ["start"]
    wait_for(lambda: len(checks.procedure_log(checkout.state, CLOSED_AGAIN[:7])) == 2, "the end of the job")

    assert follow(checkout, TAKEN_OVER) == ["rerun --adopt"]
    assert follow(checkout, CLOSED_AGAIN) == ["resolve", "rerun"]
    cfg = config.load("local", {**os.environ, "FINANCE_CLOSING_STATE": str(checkout.state)})
    for date in (TAKEN_OVER, CLOSED_AGAIN):
        assert starts(checkout, date) == ["start"]
        checks.check_balance(cfg, date[:7], closed=True)
