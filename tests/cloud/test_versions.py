"""Versions on a cloud of their own: a deploy in the middle of a closing, roll back, prune, destroy."""

from __future__ import annotations

import re
import shutil
import time

import pytest
from invoke import Context
from support.helpers import ROOT, STATE, like_local
from support.helpers import inv as shared_inv

from ops import commands, config, deploy, logs, roles, shell
from ops.shell import request, sql
from ops.target import Target

C = Context()
OWN = STATE.with_name("test-versions")
OTHER = ROOT / "env" / "testversions.env"
# The procedure has to outlast a deploy on a busy machine.
PROCEDURE_SECONDS = 60
CLOSES = (
    "SELECT id, status, pinned_deployment_id AS pin FROM sys_invocation WHERE target_service_name = 'ClosingPeriod'"
    " AND target_handler_name = 'close' ORDER BY created_at"
)


def inv(*words: str, **options):
    return shared_inv(*words, FINANCE_CLOSING_STATE=str(OWN), **options)


# A cloud of its own and two deploys: `make test-slow`.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cfg():
    """A deployed function on a cloud of its own, and a second environment of it that differs in one setting."""
    from local import cloud

    there = cloud.Cloud(OWN, report=lambda line: None)
    there.reset()
    there.up(str(PROCEDURE_SECONDS))
    OTHER.write_text(like_local(RETRY_CAP_SECONDS="59"))
    try:
        inv("deploy", "--env", "local")
        inv("schema", "--env", "local")
        yield config.load("local", {"FINANCE_CLOSING_STATE": str(OWN)})
    finally:
        OTHER.unlink()
        there.reset()


def closes(cfg: dict, expected: int) -> list[dict]:
    deadline = time.monotonic() + 30
    while len(rows := sql(cfg, CLOSES)) < expected or not rows[0].get("pin"):
        assert time.monotonic() < deadline, rows
        time.sleep(0.3)
    return rows


def lines(output: str) -> dict[str, str]:
    """version -> its line of `inv versions`."""
    return {line.split()[0]: line for line in output.splitlines() if re.match(r"\d+ .*(dp_|not registered)", line)}


@pytest.fixture(scope="module")
def two(cfg):
    """One closing that runs and one that waits behind it, while a second version goes live."""
    for date, words in (("2025-01-30", []), ("2025-01-31", ["--skip-genius"])):
        inv("close", "--env", "local", "--date", date, *words)
    began = closes(cfg, 2)
    inv("deploy", "--env", "testversions")
    return began


def test_a_running_closing_stays_on_its_version_and_keeps_it(cfg, two):
    shown = inv("versions", "--env", "local").stdout
    assert "live, Restate's newest" in lines(shown)["2"]
    assert two[0]["pin"] in lines(shown)["1"]
    assert sql(cfg, CLOSES)[0]["status"] != "completed", "the procedure has ended too early for this test"
    pruned = inv("prune", "--env", "local", "--keep", "1").stdout
    assert re.search(r"version 1 stays: \d invocations run on it\n.*0 deleted", pruned)
    refused = inv("destroy", "--env", "local", "--yes", check=False)
    assert refused.returncode == 1
    assert "invocations are live" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_queued_closing_starts_on_the_newest_and_both_succeed(cfg, two):
    deadline = time.monotonic() + 120
    while [row["status"] for row in sql(cfg, CLOSES)] != ["completed"] * 2:
        assert time.monotonic() < deadline
        time.sleep(1)
    first, second = sql(cfg, "SELECT id, completion_result AS came, pinned_deployment_id AS pin FROM sys_invocation"
                             " WHERE target_service_name = 'ClosingPeriod' ORDER BY created_at")  # fmt: skip
    assert (first["came"], second["came"]) == ("success", "success")
    shown = lines(inv("versions", "--env", "local").stdout)
    assert first["pin"] in shown["1"]
    assert second["pin"] in shown["2"]


def test_back_to_the_version_before_and_the_old_ones_go(cfg, two):
    rehearsed = inv("--dry", "rollback", "--env", "local").stdout
    assert "back to version 1" in rehearsed
    assert "this was a rehearsal" in rehearsed
    done = inv("rollback", "--env", "local", "--to", "1").stdout
    assert ":3 is live" in done
    assert cfg["PG_PASSWORD"] not in done
    assert not (ROOT / "build" / "local.environment.json").exists()
    assert "nothing changed" in inv("deploy", "--env", "local").stdout
    unknown = inv("rollback", "--env", "local", "--to", "9", check=False)
    assert (unknown.returncode, "known: 1, 2, 3. Nothing was changed" in unknown.stderr) == (1, True)
    assert "2 would be deleted" in inv("--dry", "prune", "--env", "local", "--keep", "1").stdout
    assert "2 deleted" in inv("prune", "--env", "local", "--keep", "1").stdout
    assert list(lines(inv("versions", "--env", "local").stdout)) == ["3"]


def test_back_to_older_code_that_only_aws_has(cfg, two):
    module = ROOT / "handler" / "errors.py"
    text = module.read_text()
    module.write_text(f"{text}# Another bundle.\n")
    try:
        assert "update-function-code" in inv("deploy", "--env", "local").stdout
    finally:
        module.write_text(text)
    shutil.rmtree(ROOT / "build" / "bundles")
    done = inv("rollback", "--env", "local").stdout
    assert "back to version 3" in done and "-o build/version-3.zip" in done and ":5 is live" in done
    third, fourth, fifth = (one["CodeSha256"] for one in deploy.versions_of(Target(C, cfg, "local")))
    assert third == fifth != fourth


def test_into_a_vpc_and_out_of_it(cfg, two):
    given = {"VPC_SUBNET_IDS=": "subnet-0b,subnet-0a", "VPC_SECURITY_GROUP_IDS=": "sg-0c", "LOG_RETENTION_DAYS=": "30"}
    text = (ROOT / "env" / "local.env").read_text()
    for key, value in given.items():
        text = text.replace(f"{key}\n", f"{key}{value}\n")
    OTHER.write_text(text)
    inv("deploy", "--env", "testversions")
    found = shell.query_json(C, cfg, commands.get_function(cfg))["Configuration"]
    assert deploy.network_of(found) == [["subnet-0a", "subnet-0b"], ["sg-0c"]]
    (group,) = shell.query_json(C, cfg, logs.describe_log_groups(cfg))["logGroups"]
    assert group["retentionInDays"] == 30
    assert "nothing changed" in inv("deploy", "--env", "testversions").stdout
    assert "lambda-vpc stays with finance-closing-lambda-role" in inv("deploy", "--env", "local").stdout
    assert not deploy.in_vpc(shell.query_json(C, cfg, commands.get_function(cfg))["Configuration"])
    assert "--policy-name lambda-vpc" in inv("prune", "--env", "local", "--keep", "1").stdout
    assert shell.query_json(C, cfg, roles.list_role_policies(cfg, cfg["ROLE_NAME"]))["PolicyNames"] == [
        "lambda-execution"
    ]


LISTS = {
    "lambda list-functions": "Functions",
    "lambda list-function-url-configs --function-name finance-closing": "FunctionUrlConfigs",
    "iam list-roles": "Roles",
    "logs describe-log-groups": "logGroups",
    "events list-rules": "Rules",
    "cloudwatch describe-alarms": "MetricAlarms",
    "sns list-topics": "Topics",
}


def test_nothing_is_left(cfg, two):
    OTHER.write_text((ROOT / "env" / "local.env").read_text().replace("FUNCTION_URL=off", "FUNCTION_URL=on"))
    inv("deploy", "--env", "testversions")
    inv("keep-warm", "on", "--env", "local")
    inv("alarms", "--env", "local", "--to", "ops@example.com")
    assert "Not confirmed" in inv("destroy", "--env", "local", check=False).stderr
    assert "nothing is left" in inv("destroy", "--env", "local", "--yes").stdout
    assert request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")[1]["deployments"] == []
    for words, name in LISTS.items():
        assert (shell.query_json(C, cfg, shell.aws(cfg, words), missing="NotFound") or {name: []})[name] == [], words
    assert "nothing was there" in inv("destroy", "--env", "local", "--yes").stdout
