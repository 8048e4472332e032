"""inv doctor with one part of the cloud down: one finding, whose command brings the part back."""

from __future__ import annotations

import json
import os
import signal

import pytest
from invoke import Context, Exit
from support.helpers import environment_file, inv
from support.schedule_helpers import Schedule

from ops import hold, restate, shell
from ops.shell import aws


def failures(env: str = "local", **extra: str) -> list[dict]:
    """Return the failed checks of the doctor, without those of a schedule and a rule that this cloud does not have."""
    found = json.loads(inv("doctor", "--env", env, "--json", check=False, **extra).stdout)
    for one in found:
        assert len(one["message"].splitlines()) == 1 and "Traceback" not in one["message"] and "<" not in one["message"]
    return [one for one in found if not one["passed"] and one["name"] not in ("schedule", "keep-warm", "function")]


@pytest.mark.parametrize(
    ("service", "name", "words"),
    [
        ("postgres", "postgres", "Connection refused"),
        ("genius", "oracle", "Connection refused"),
        ("restate", "restate", "does not answer"),
        ("aws", "credentials", "Could not connect to the endpoint URL"),
    ],
)
def test_a_part_that_is_down_is_one_finding_and_its_command_starts_it(local, deployed, service, name, words):
    local.kill(service)
    try:
        (one,) = failures()
        assert one["name"] == name and words in one["message"] and one["fix"] == "inv local.up"
    finally:
        inv("local.up")
    assert failures() == []


def test_missing_credentials_are_one_finding(deployed, tmp_path, monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    with environment_file("testsign", AWS_ENDPOINT_URL="") as env:
        found = failures(env, HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true")
    (one,) = found
    assert one["name"] == "credentials" and "Unable to locate credentials" in one["message"]
    assert one["fix"] == f"sign in, or name a profile as AWS_PROFILE in env/{env}.env"


def break_function(cfg: dict) -> None:
    """Publish a version whose code raises at its import, and make it live."""
    name = cfg["FUNCTION_NAME"]
    for command in (
        f"lambda update-function-configuration --function-name {name} --environment Variables={{PG_PORT=none}}",
        f"lambda wait function-updated-v2 --function-name {name}",
        f"lambda publish-version --function-name {name}",
    ):
        answer = shell.query(Context(), cfg, aws(cfg, command))
    version = json.loads(answer)["Version"]
    live = f"lambda update-alias --function-name {name} --name live --function-version {version}"
    shell.query(Context(), cfg, aws(cfg, live))


def test_function_that_fails_at_its_import_is_left_by_the_named_rollback(deployed):
    break_function(deployed)
    try:
        ping = inv("ping", "--env", "local", check=False).stderr
        assert "PG_PORT" in ping and ping.endswith("; next: inv doctor --env local\n") and len(ping.splitlines()) == 1
        broken = {one["name"]: one for one in failures()}
        # Closings still begin on the version before: that is the second line.
        assert set(broken) == {"ping", "restate"} and "PG_PORT" in broken["ping"]["message"]
        command = broken["ping"]["fix"].partition(",")[0]
        assert command == "inv rollback --env local"
        assert "the live version does not answer" in inv(*command.split()[1:]).stdout
        assert failures() == []
    finally:
        inv("deploy", "--env", "local")


def test_call_that_the_function_does_not_answer_is_withdrawn(local, deployed, monkeypatch):
    """It must not act an hour later, when the function answers again and nobody thinks of it any more."""
    scheduler = Schedule(deployed)
    monkeypatch.setattr(restate, "ANSWER_SECONDS", 2)
    # Not killed: the emulator would lose the versions of the last seconds.
    process = local.status()["aws"]["pid"]
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(Exit) as refused:
            hold.hold(Context(), "local", "patch")
    finally:
        os.kill(process, signal.SIGCONT)
    text = str(refused.value)
    assert text.startswith(
        "Nothing was changed, the call was withdrawn: Restate is up, and the function does not answer"
    )
    assert text.endswith("Next: `inv doctor --env local`") and "DispatchFailure {" not in text
    assert failures() == [] and "hold" not in scheduler.state()
