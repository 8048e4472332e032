"""The keep-warm rule on the local cloud, by the operator's own commands."""

from __future__ import annotations

import os
import signal
import time

import pytest
from invoke import Context
from support.helpers import ROOT, close, inv, workers

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
    assert not any(keep_warm.inspect(Target(Context(), deployed, "local")).values())
    refused = inv("keep-warm", "status", "--env", "local", check=False)
    assert refused.returncode == 1
    assert refused.stderr == "local: the live version is not kept warm; run `inv keep-warm on --env local`\n"


@pytest.mark.slow
def test_the_rule_fires_and_keeps_the_version_of_a_later_deploy_warm(deployed):
    """After the worker that the deploy's ping has started is killed, only the rule can start a new one."""
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
        # A closing has two invocations at once, so that a second one may start.
        assert warmed <= workers(version)
        assert ", warm, up" in inv("ping", "--env", "testwarm").stdout
    finally:
        other.unlink()
        inv("keep-warm", "off", "--env", "local")
        inv("deploy", "--env", "local")
