"""The deploy workflow's own steps, read out of its YAML and run one after the other against the local cloud."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from invoke import Context
from support.helpers import ROOT, UNUSED, inv
from support.iam import make_invoking_role
from support.instantclient import AIO

from ops import doctor, names, readiness, restate
from ops.target import Target

WORKFLOW = yaml.safe_load((ROOT / names.WORKFLOW).read_text())
C = Context()
STEPS = WORKFLOW["jobs"]["deploy"]["steps"]
# Actions that only GitHub has; the local cloud accepts any credentials and this test's own interpreter.
ACTIONS = ["actions/checkout", "actions/setup-python", "aws-actions/configure-aws-credentials"]
REFERRING = ("RESTATE_ADMIN_URL", "RESTATE_AUTH_TOKEN", "RESTATE_INVOKE_ROLE_ARN")


class Runner:
    """A runner of `run` steps: its shell, its expressions, its outputs. An unknown expression is an error."""

    def __init__(self, given: dict[str, object], folder: Path):
        self.given, self.folder = given, folder

    def filled(self, text: object) -> str:
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: str(self.given[match[1]]), str(text))

    def run(self, step: dict, **shell: str) -> subprocess.CompletedProcess:
        outputs = self.folder / "outputs"
        outputs.write_text("")
        own = {**WORKFLOW["jobs"]["deploy"]["env"], **step.get("env", {})}
        environ = {**shell, "GITHUB_OUTPUT": str(outputs), **{name: self.filled(text) for name, text in own.items()}}
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=180
        )
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            self.given[f"steps.{step['id']}.outputs.{name}"] = value
        return done


def env_file() -> str:
    """Return the example of ENV_FILE in the workflow's comment, for the local cloud."""
    lines = (ROOT / "env" / "local.env").read_text().splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    # Another version than what is live, so that there is something to deploy.
    changes = {**{key: f"${{{key}}}" for key in REFERRING}, "DEADLINE_SECONDS": "307", "LAYER_NAME": "test-ci"}
    given = {**pairs, **changes}
    return "\n".join(f"{key}={value}" for key, value in given.items() if not key.startswith(("PG_", "ORACLE_")))


@pytest.mark.slow
def test_its_steps_deploy_to_the_local_cloud_with_the_secrets_in_the_environment(
    deployed, zips, recorder, tmp_path, monkeypatch
):
    client, role = zips["19"], make_invoking_role(deployed, "test-restate-invokes", tmp_path)
    given = {
        "inputs.layer": True,
        "inputs.environment || 'prod'": "testci",
        "secrets.RESTATE_ADMIN_URL": deployed["RESTATE_ADMIN_URL"],
        "secrets.RESTATE_AUTH_TOKEN": "a-token-of-nobody",
        "secrets.AWS_INVOKE_ROLE_ARN": role,
        "vars.ENV_FILE": env_file(),
    }
    runner = Runner(given, tmp_path)
    shell = {key: value for key, value in os.environ.items() if key not in (*UNUSED, "AWS_PROFILE")}
    # The layer for this machine's Python, from a ZIP of Instant Client's shape.
    shell |= {"INSTANT_CLIENT": str(client), "LIBAIO": str(client.parent / "system" / AIO)}
    shell |= {"RUNTIME": deployed["RUNTIME"], "AWS_CSM_CLIENT_ID": "workflow"}
    output = ""
    try:
        for step in STEPS:
            if "run" in step and given[step.get("if", "inputs.layer")]:
                done = runner.run(step, **shell)
                output += done.stdout + done.stderr
                assert done.returncode == 0, f"{step['name']}: {done.stdout}{done.stderr}"
        newest = next(one for one in restate.deployments(deployed) if one["id"] == restate.newest(deployed))
        for name in REFERRING:
            monkeypatch.setenv(name, runner.filled(WORKFLOW["jobs"]["deploy"]["env"][name]))
        target = Target.load(C, "testci")
        examined = [*doctor.function(target), *readiness.check(target)]
    finally:
        (ROOT / "env" / "testci.env").unlink(missing_ok=True)
        inv("deploy", "--env", "local")
    assert newest["assume_role_arn"] == role
    assert "keeps its own PG_HOST" in output and [one for one in examined if not one.passed] == []
    assert ":layer:test-ci:1" in output and "is live" in output
    allowed = re.findall(r'"(\w+:\w+)"', (ROOT / "policies" / "deploy.json").read_text())
    called = {call.action for call in recorder.calls() if call.task == "workflow"}
    # AWS permits everybody to ask who they are.
    allowed.append("sts:GetCallerIdentity")
    assert {"lambda:PublishLayerVersion", "lambda:PublishVersion", "lambda:UpdateAlias"} <= called <= {*allowed}
    assert runner.given["steps.file.outputs.AWS_REGION"] == deployed["AWS_REGION"]
    assert not any(secret in output for secret in (given["secrets.RESTATE_AUTH_TOKEN"], deployed["PG_PASSWORD"]))


def test_a_deploy_without_an_env_file_stops_before_aws_is_asked(tmp_path):
    given = dict.fromkeys(re.findall(r"\$\{\{ (.+?) \}\}", json.dumps(WORKFLOW)), "")
    runner = Runner(given | {"inputs.environment || 'prod'": "testci"}, tmp_path)
    write, check = (
        next(one for one in STEPS if part in one.get("run", "")) for part in ("env/$ENVIRONMENT.env", "env.check")
    )
    try:
        assert runner.run(write, PATH=os.environ["PATH"]).returncode == 0
        done = runner.run(check, PATH=os.environ["PATH"])
    finally:
        (ROOT / "env" / "testci.env").unlink(missing_ok=True)
    assert done.returncode == 1
    assert "env/testci.env: it is empty" in done.stderr and len(done.stderr.splitlines()) == 1


def test_every_action_is_pinned_by_its_commit():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for used in re.findall(r"uses: (.+)", path.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), (path.name, used)
    assert [step["uses"].partition("@")[0] for step in STEPS if "uses" in step] == ACTIONS


def test_layer_is_built_only_on_request_and_no_deploy_is_cancelled():
    (layer,) = (step for step in STEPS if "layer" in step.get("run", ""))
    assert layer["if"] == "inputs.layer" and STEPS.index(layer) < [step.get("name") for step in STEPS].index("Deploy")
    # YAML 1.1 reads the word `on` as true.
    triggers = WORKFLOW[True]
    assert "layer" in triggers["workflow_dispatch"]["inputs"] and triggers["push"]["branches"] == ["main"]
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is False
    assert WORKFLOW["permissions"] == {}
    assert WORKFLOW["jobs"]["deploy"]["permissions"] == {"contents": "read", "id-token": "write"}
