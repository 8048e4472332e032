"""Deploys that fail: one line has cause and next command, nothing is half done, and the next run fixes it."""

from __future__ import annotations

import os

import pytest
from invoke import Context, Exit
from support.fault_proxy import (
    AS_DEPLOY,
    FAILED,
    INCOMPATIBLE,
    PASS_ROLE,
    ROLE_NOT_YET,
    UPDATING,
    FaultProxy,
    refused,
    refused_by_iam,
    refused_by_restate,
)
from support.helpers import ROOT, inv, like_local

from ops import deploy, keep_warm, roles, shell
from ops.alias import get_alias
from ops.target import Target

ENV = "testedge"
FILE = ROOT / "env" / f"{ENV}.env"
CHANGING = ("PUT /2015", "POST /2015-03-31/functions ", "POST /2017", "DELETE", "PATCH")
CONFIGURATION = "PUT /2015-03-31/functions/[^/]+/configuration"


@pytest.fixture
def env():
    """Write env/testedge.env: env/local.env with other values."""

    def write(**changes: str) -> str:
        lines = like_local(**changes).splitlines()
        FILE.write_text("\n".join(line for line in lines if not line.endswith("=REMOVED")))
        return ENV

    yield write
    FILE.unlink(missing_ok=True)


@pytest.fixture
def proxies(monkeypatch):
    """Make proxies; each gives the answers that a test injects and passes the rest on."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(shell, "PAUSE_SECONDS", 0)
    made = []

    def make(target: str = "") -> FaultProxy:
        made.append(FaultProxy(target))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def refusal(call, *words) -> str:
    """Return the one line with which a task ends."""
    with pytest.raises(Exit) as caught:
        call(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "output"),
    [
        ({"AWS_REGION": "REMOVED"}, "AWS_REGION is missing: expected"),
        ({"RESTATE_ADMIN_URL": ""}, "RESTATE_ADMIN_URL '' is malformed: expected a URL"),
        ({"PG_PORT": "5432x"}, "PG_PORT '5432x' is malformed: expected a port"),
        ({"PG_HOST": "h" * 4000}, "and Lambda accepts 4,096; the longest are PG_HOST (4,000)"),
    ],
)
def test_a_file_that_is_wrong_touches_nothing(cfg, env, proxies, changes, output):
    aws, restate = proxies(), proxies()
    name = env(**{"AWS_ENDPOINT_URL": aws.url, "RESTATE_ADMIN_URL": restate.url, **changes})
    assert output in refusal(deploy.deploy, Context(), name)
    assert aws.requests + restate.requests == []


def test_restate_is_asked_before_aws(cfg, env, proxies):
    """An admin API that does not answer, or does not take the token."""
    aws, restate = proxies(), proxies()
    name = env(AWS_ENDPOINT_URL=aws.url, RESTATE_ADMIN_URL=restate.url)
    restate.inject("GET /deployments", refused_by_restate(401, "unauthorized"))
    output = refusal(deploy.deploy, Context(), name)
    assert "answered 401" in output and "RESTATE_AUTH_TOKEN" in output
    name = env(AWS_ENDPOINT_URL=aws.url, RESTATE_ADMIN_URL="http://127.0.0.1:1")
    assert "Restate at 127.0.0.1:1 does not answer" in refusal(deploy.deploy, Context(), name)
    assert aws.requests == []


def test_without_credentials_nothing_is_sent(cfg, env, tmp_path, monkeypatch):
    for key in [key for key in os.environ if key.startswith("AWS_") and "CSM" not in key]:
        monkeypatch.delenv(key)
    name = env(AWS_ENDPOINT_URL="")
    done = inv("deploy", "--env", name, check=False, HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Unable to locate credentials" in done.stderr and "AWS_PROFILE" in done.stderr


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (refused_by_iam(403, "AccessDenied", f"{AS_DEPLOY} iam:GetRole on resource: role x"), "inv roles"),
        (refused_by_iam(400, "Throttling", "Rate exceeded"), "run it again"),
        (refused_by_iam(403, "ExpiredToken", "The security token included in the request is expired"), "sign in"),
    ],
)
def test_error_of_aws_is_one_line_with_the_next_command(cfg, proxies, monkeypatch, answer, output):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    aws = proxies()
    aws.inject("POST / Action=GetRole", answer)
    line = refusal(roles.ensure_execution_role, Target(Context(), {**cfg, "AWS_ENDPOINT_URL": aws.url}, "local"))
    assert f"({answer.error})" in line and output in line
    assert len(aws.requests) == 1


def test_an_alias_that_is_not_there_is_named_with_what_makes_it(cfg, proxies):
    aws = proxies()
    missing = refused(404, "ResourceNotFoundException", "Cannot find alias arn: live")
    aws.inject("GET .*/aliases/live", missing, missing)
    at = {**cfg, "AWS_ENDPOINT_URL": aws.url}
    assert "has no version that is live; run `inv deploy --env local`" in refusal(
        keep_warm.live, Target(Context(), at, "local")
    )
    assert shell.query_json(Context(), at, get_alias(at), missing="ResourceNotFoundException") is None


def test_a_file_with_secrets_is_removed_when_the_command_fails(cfg, env, proxies):
    name = env()
    with pytest.raises(ZeroDivisionError), deploy.environment_file(Target.load(Context(), name)) as file:
        assert (ROOT / file).stat().st_mode & 0o777 == 0o600
        assert cfg["PG_PASSWORD"] in (ROOT / file).read_text()
        raise ZeroDivisionError
    assert not (ROOT / file).exists()


@pytest.mark.slow
def test_deploys_that_fail_half_way_report_what_is_live_and_the_next_one_fixes_them(deployed, env, proxies, capsys):
    aws, restate = proxies(deployed["AWS_ENDPOINT_URL"]), proxies(deployed["RESTATE_ADMIN_URL"])
    name = env(AWS_ENDPOINT_URL=aws.url, RESTATE_ADMIN_URL=restate.url, DEADLINE_SECONDS="302")
    before = live_version()

    aws.inject(CONFIGURATION, PASS_ROLE)
    output = refusal(deploy.deploy, Context(), name)
    assert "iam:PassRole" in output and "inv roles" in output
    assert [one[:3] for one in aws.requests if one.startswith(CHANGING)] == ["PUT"]
    assert not list((ROOT / "build" / "scratch").glob("*.environment.json"))
    assert live_version() == before

    aws.inject(CONFIGURATION, ROLE_NOT_YET, UPDATING)
    restate.inject("POST /v3/deployments", INCOMPATIBLE)
    output = refusal(deploy.deploy, Context(), name)
    assert "META0006" in output and f"the alias has version {before}" in output
    assert output.endswith(f"correct the cause, then run `inv deploy --env {name}`")
    assert sum(one.startswith("PUT") for one in aws.requests) == 4

    aws.inject("POST .*/invocations", FAILED)
    output = refusal(deploy.deploy, Context(), name)
    assert "no module named genius" in output and f"the alias has version {before + 1}" in output
    assert output.endswith(f"run `inv rollback --env {name}`")

    capsys.readouterr()
    deploy.deploy(Context(), name)
    printed = capsys.readouterr().out
    assert f":{before + 1} is live" in printed and "nothing changed" not in printed
    assert "update-function" not in printed and " lambda invoke " in printed
    deploy.deploy(Context(), name)
    assert "nothing changed" in capsys.readouterr().out
    inv("deploy", "--env", "local")


def live_version() -> int:
    return int(inv("status", "--env", "local").stdout.split()[1].rpartition(":")[2])
