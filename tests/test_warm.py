"""The keep-warm rule on the local cloud, by the operator's own commands."""

from __future__ import annotations

import pytest
from invoke import Context, Exit
from kit import inv

from env import warm


@pytest.mark.slow
def test_on_status_and_off(deployed):
    on = inv("warm", "on", "--env", "local").stdout
    assert all(verb in on for verb in ("put-rule", "add-permission", "put-targets")) and ":live every 5m" in on
    assert "keeps the live version warm" in inv("warm", "status", "--env", "local").stdout
    changed = inv("warm", "on", "--env", "local", "--every", "1h").stdout
    assert "rate(1 hour)" in changed and changed.count("aws ") == 1
    inv("warm", "off", "--env", "local")
    assert not any(warm.look(Context(), deployed).values())
    refused = inv("warm", "status", "--env", "local", check=False)
    assert refused.returncode == 1
    assert refused.stderr == "local: the live version is not kept warm; run `inv warm on --env local`\n"


def test_what_is_wrong_is_told_apart():
    alias = "arn:aws:lambda:r:1:function:f:live"
    well = {"rule": {"Name": "f-keep-warm", "State": "ENABLED"}, "targets": [warm.wanted_target(alias)], "permitted": 1}
    assert warm.wrong(well, alias) == ""
    assert "is disabled" in warm.wrong({**well, "rule": {"Name": "f", "State": "DISABLED"}}, alias)
    assert "does not ping" in warm.wrong({**well, "targets": [warm.wanted_target(f"{alias}2")]}, alias)
    assert "may not invoke" in warm.wrong({**well, "permitted": False}, alias)
    assert warm.rule_arn({"FUNCTION_NAME": "f"}, alias) == "arn:aws:events:r:1:rule/f-keep-warm"


@pytest.mark.parametrize(
    ("every", "expression"), [("5m", "rate(5 minutes)"), ("1m", "rate(1 minute)"), ("2h", "rate(2 hours)")]
)
def test_intervals(every, expression):
    assert warm.rate(every) == expression


@pytest.mark.parametrize("every", ["5", "0m", "5s", "m", "5 m"])
def test_an_interval_that_is_none_is_refused(every):
    with pytest.raises(Exit, match="is malformed: expected"):
        warm.rate(every)
