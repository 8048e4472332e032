"""The keep-warm rule on the local cloud, by the operator's own commands."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from invoke import Context, Exit
from support.helpers import ROOT, STATE, close, inv

from local import processes
from ops import keep_warm
from ops.target import Target


@pytest.mark.slow
def test_on_status_and_off(deployed):
    on = inv("keep-warm", "on", "--env", "local").stdout
    assert all(verb in on for verb in ("put-rule", "add-permission", "put-targets")) and ":live every 5m" in on
    assert "keeps the live version warm" in inv("keep-warm", "status", "--env", "local").stdout
    changed = inv("keep-warm", "on", "--env", "local", "--every", "1h").stdout
    assert "rate(1 hour)" in changed and changed.count("aws ") == 1
    inv("keep-warm", "off", "--env", "local")
    assert not any(keep_warm.look(Target(Context(), deployed, "local")).values())
    refused = inv("keep-warm", "status", "--env", "local", check=False)
    assert refused.returncode == 1
    assert refused.stderr == "local: the live version is not kept warm; run `inv keep-warm on --env local`\n"


def workers(version: str) -> set[int]:
    """The processes in which the local Lambda runs a version."""
    named = f"AWS_LAMBDA_FUNCTION_VERSION={version}".encode()
    found = set()
    for process in processes.belonging_to(STATE, "aws"):
        with contextlib.suppress(OSError):
            if named in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.add(process.pid)
    return found


@pytest.mark.slow
def test_the_rule_fires_and_keeps_the_version_of_a_later_deploy_warm(deployed):
    """Nobody but the rule invokes between the death of the worker that the deploy's own ping has left and a new one."""
    other = ROOT / "env" / "testwarm.env"
    text = (ROOT / "env" / "local.env").read_text()
    other.write_text(text.replace("DEADLINE_SECONDS=300", "DEADLINE_SECONDS=303"))
    inv("keep-warm", "on", "--env", "local", "--every", "1m")
    try:
        inv("deploy", "--env", "testwarm")
        assert "keeps the live version warm" in inv("keep-warm", "status", "--env", "testwarm").stdout
        version = inv("ping", "--env", "testwarm").stdout.split("version ")[1].split()[0]
        for pid in workers(version):
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 150
        while not workers(version):
            assert time.monotonic() < deadline, "the rule never came"
            time.sleep(0.5)
        warmed = workers(version)
        close("2025-03-06", "--skip-sync", "--skip-metrics")
        assert workers(version) == warmed
        assert ", warm, up" in inv("ping", "--env", "testwarm").stdout
    finally:
        other.unlink()
        inv("keep-warm", "off", "--env", "local")
        inv("deploy", "--env", "local")


def test_what_is_wrong_is_told_apart():
    alias = "arn:aws:lambda:r:1:function:f:live"
    well = {
        "rule": {"Name": "f-keep-warm", "State": "ENABLED"},
        "targets": [keep_warm.wanted_target(alias)],
        "permitted": 1,
    }
    assert keep_warm.wrong(well, alias) == ""
    assert "is disabled" in keep_warm.wrong({**well, "rule": {"Name": "f", "State": "DISABLED"}}, alias)
    assert "does not ping" in keep_warm.wrong({**well, "targets": [keep_warm.wanted_target(f"{alias}2")]}, alias)
    assert "may not invoke" in keep_warm.wrong({**well, "permitted": False}, alias)
    assert keep_warm.rule_arn({"FUNCTION_NAME": "f"}, alias) == "arn:aws:events:r:1:rule/f-keep-warm"


@pytest.mark.parametrize(
    ("every", "expression"), [("5m", "rate(5 minutes)"), ("1m", "rate(1 minute)"), ("2h", "rate(2 hours)")]
)
def test_intervals(every, expression):
    assert keep_warm.rate(every) == expression


@pytest.mark.parametrize("every", ["5", "0m", "5s", "m", "5 m"])
def test_an_interval_that_is_none_is_refused(every):
    with pytest.raises(Exit, match="is malformed: expected"):
        keep_warm.rate(every)
