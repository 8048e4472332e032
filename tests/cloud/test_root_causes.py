"""inv doctor with one part of the cloud down: one finding, whose command brings the part back."""

from __future__ import annotations

import json

import pytest
from support.helpers import environment_file, inv


def failures(env: str = "local", **extra: str) -> list[dict]:
    """Return the failed checks of the doctor, without those of a schedule and a rule that this cloud does not have."""
    found = json.loads(inv("doctor", "--env", env, "--json", check=False, **extra).stdout)
    for one in found:
        assert len(one["message"].splitlines()) == 1 and "Traceback" not in one["message"] and "<" not in one["message"]
    return [one for one in found if not one["passed"] and one["name"] not in ("scheduler", "keep-warm", "function")]


@pytest.mark.parametrize(
    ("service", "name", "words"),
    [
        ("postgres", "postgres", "Connection refused"),
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
