"""Versions on a cloud of their own: a deploy in the middle of a closing, roll back, prune, destroy."""

from __future__ import annotations

import json
import re
import time
from datetime import date, timedelta

import pytest
from invoke import Context
from support.helpers import ROOT, STATE, like_local
from support.helpers import inv as shared_inv
from support.schedule_helpers import wait_for

from local.oracle.faults import Faults
from ops import closings, config, deploy, logs, roles, schedule, shell
from ops.restate import request, sql
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
    """Deploy a function on a cloud of its own, with a second environment that differs in one setting."""
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
    """Return {version: its line of `inv versions`}."""
    return {line.split()[0]: line for line in output.splitlines() if re.match(r"\d+ .*(dp_|not registered)", line)}


@pytest.fixture(scope="module")
def two(cfg):
    """Start one closing that runs and one that waits behind it, while a second version goes live."""
    for day, words in (("2025-01-30", []), ("2025-01-31", ["--skip-genius"])):
        inv("close", "--env", "local", "--date", day, *words)
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
    assert "invocations are unfinished" in refused.stderr
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


def close_of(cfg: dict, period: str) -> dict:
    """Return the invocation of a period's close: its status, its result and the deployment that it began on."""
    where = (
        f"target_service_name = 'ClosingPeriod' AND target_handler_name = 'close' AND target_service_key = '{period}'"
    )
    rows = sql(cfg, f"SELECT status, completion_result, pinned_deployment_id FROM sys_invocation WHERE {where}")
    return rows[0] if rows else {}


def wait_until(cfg: dict, period: str, column: str) -> dict:
    deadline = time.monotonic() + 120
    while not (found := close_of(cfg, period)).get(column):
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    return found


def test_dry_rollback_prints_each_command_and_the_settings_that_differ(cfg, two):
    printed = inv("--dry", "rollback", "--env", "testversions").stdout
    assert "back to version 1" in printed and "dry run, nothing was changed" in printed
    assert "it has other values than env/testversions.env of RETRY_CAP_SECONDS;" in printed
    arn = r"arn:aws:lambda:\S+:1"
    for command in (
        rf"restate deployments register {arn} --force --yes",
        r"aws .* update-alias .* 1 ",
        r"aws .* invoke ",
    ):
        assert re.search(f"^{command}", printed, re.MULTILINE), command
    assert "live, Restate's newest" in lines(inv("versions", "--env", "local").stdout)["2"]


def test_rollback_takes_new_closings_to_the_old_version_and_leaves_running_ones_on_theirs(cfg, two):
    Faults(OWN / "genius").inject("procedure_seconds", "15")
    inv("close", "--env", "local", "--date", "2025-03-31")
    running = wait_until(cfg, "2025-03", "pinned_deployment_id")
    done = inv("rollback", "--env", "local").stdout
    assert ":1 is live" in done and "warning" not in done
    assert not re.search("update-function|publish-version|environment", done) and cfg["PG_PASSWORD"] not in done
    assert close_of(cfg, "2025-03")["status"] != "completed", "the procedure has ended too early for this test"
    inv("close", "--env", "local", "--date", "2025-04-30", "--skip-genius")
    new, old = (wait_until(cfg, period, "completion_result") for period in ("2025-04", "2025-03"))
    assert (new["completion_result"], old["completion_result"]) == ("success", "success")
    shown = lines(inv("versions", "--env", "local").stdout)
    assert "live, Restate's newest" in shown["1"] and new["pinned_deployment_id"] in shown["1"]
    assert old["pinned_deployment_id"] == running["pinned_deployment_id"] and old["pinned_deployment_id"] in shown["2"]
    assert "nothing changed" in inv("rollback", "--env", "local", "--to", "1").stdout
    oldest = inv("rollback", "--env", "local", check=False)
    assert "no registered version before the live one, 1; published: 1, 2; left by a rollback" in oldest.stderr


def test_a_deploy_goes_forward_again_and_old_versions_go(cfg, two):
    assert ":3 is live" in inv("deploy", "--env", "local").stdout
    unknown = inv("rollback", "--env", "local", "--to", "9", check=False)
    assert (unknown.returncode, "published: 1, 2, 3. Nothing was changed" in unknown.stderr) == (1, True)
    assert "2 would be deleted" in inv("--dry", "prune", "--env", "local", "--keep", "1").stdout
    assert "2 deleted" in inv("prune", "--env", "local", "--keep", "1").stdout
    assert list(lines(inv("versions", "--env", "local").stdout)) == ["3"]


def test_rollback_brings_back_older_code_without_an_upload(cfg, two):
    module = ROOT / "handler" / "errors.py"
    text = module.read_text()
    module.write_text(f"{text}# Another bundle.\n")
    try:
        assert "update-function-code" in inv("deploy", "--env", "local").stdout
    finally:
        module.write_text(text)
    done = inv("rollback", "--env", "local").stdout
    assert "back to version 3" in done and ":3 is live" in done and "update-function" not in done
    third, fourth = (one["CodeSha256"] for one in deploy.versions_of(Target(C, cfg, "local")))
    assert third != fourth


def test_rollback_never_returns_to_a_version_that_a_rollback_has_left(cfg, two):
    """A rollback has left version 4. A rollback of version 5 goes to version 3; --to can still choose version 4."""
    OTHER.write_text(like_local(RETRY_CAP_SECONDS="58"))
    assert ":5 is live" in inv("deploy", "--env", "testversions").stdout
    assert ":3 is live" in inv("rollback", "--env", "local").stdout
    assert ":4 is live" in inv("rollback", "--env", "local", "--to", "4").stdout
    assert ":3 is live" in inv("rollback", "--env", "local").stdout


def test_into_a_vpc_and_out_of_it(cfg, two):
    given = {"VPC_SUBNET_IDS=": "subnet-0b,subnet-0a", "VPC_SECURITY_GROUP_IDS=": "sg-0c", "LOG_RETENTION_DAYS=": "30"}
    text = (ROOT / "env" / "local.env").read_text()
    for key, value in given.items():
        text = text.replace(f"{key}\n", f"{key}{value}\n")
    OTHER.write_text(text)
    inv("deploy", "--env", "testversions")
    found = shell.query_json(C, cfg, deploy.get_function(cfg))["Configuration"]
    assert deploy.network_of(found) == [["subnet-0a", "subnet-0b"], ["sg-0c"]]
    (group,) = shell.query_json(C, cfg, logs.describe_log_groups(cfg))["logGroups"]
    assert group["retentionInDays"] == 30
    assert "nothing changed" in inv("deploy", "--env", "testversions").stdout
    assert "finance-closing-lambda-role keeps the policy lambda-vpc" in inv("deploy", "--env", "local").stdout
    assert not deploy.in_vpc(shell.query_json(C, cfg, deploy.get_function(cfg))["Configuration"])
    assert "--policy-name lambda-vpc" in inv("prune", "--env", "local", "--keep", "1").stdout
    assert shell.query_json(C, cfg, roles.list_role_policies(cfg, cfg["ROLE_NAME"]))["PolicyNames"] == [
        "lambda-execution"
    ]


SCHEDULER = (schedule.SERVICE, schedule.KEY)
LISTS = {
    "lambda list-functions": "Functions",
    "lambda list-function-url-configs --function-name finance-closing": "FunctionUrlConfigs",
    "iam list-roles": "Roles",
    "logs describe-log-groups": "logGroups",
    "events list-rules": "Rules",
    "cloudwatch describe-alarms": "MetricAlarms",
    "sns list-topics": "Topics",
}


def leave_late_check(cfg: dict) -> None:
    """Leave a scheduled date open by a blocked period, and stop the schedule: the check hours later stays planned."""
    state = f"{cfg['RESTATE_ADMIN_URL']}/services/{{}}/state"
    today = date.today()

    def store(service: str, key: str, **values) -> None:
        body = {"object_key": key, "new_state": {name: list(json.dumps(one).encode()) for name, one in values.items()}}
        assert request(cfg, "POST", state.format(service), body)[0] < 300
        wait_for(lambda: set(values) <= set(closings.state_of(cfg, service, key)))

    for period in {f"{today - timedelta(days=n)}"[:7] for n in range(4)}:
        blocked = {"date": f"{period}-01", "job": "GNS_X", "message": "STOPPED", "at": 1.0}
        store("ClosingPeriod", period, blocked=blocked)
    started = request(cfg, "POST", schedule.url(cfg, "start"))[1]
    now = closings.state_of(cfg, *SCHEDULER)
    store(*SCHEDULER, **now | {"done": f"{today - timedelta(days=3)}"})
    wait_for(lambda: closings.state_of(cfg, *SCHEDULER)["done"] == f"{today - timedelta(days=3)}")
    request(cfg, "POST", schedule.url(cfg, "trigger"), {"generation": started["generation"]})
    inv("schedule", "stop", "--env", "local")


def test_nothing_is_left(cfg, two):
    leave_late_check(cfg)
    scheduled = "SELECT id FROM sys_invocation WHERE target_handler_name = 'check_closed' AND status != 'completed'"
    assert sql(cfg, scheduled)
    OTHER.write_text((ROOT / "env" / "local.env").read_text().replace("FUNCTION_URL=off", "FUNCTION_URL=on"))
    inv("deploy", "--env", "testversions")
    inv("keep-warm", "on", "--env", "local")
    inv("alarms", "--env", "local", "--to", "ops@example.com")
    assert "Not confirmed" in inv("destroy", "--env", "local", check=False).stderr
    assert "nothing is left" in inv("destroy", "--env", "local", "--yes").stdout
    assert request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")[1]["deployments"] == []
    assert sql(cfg, scheduled) == []
    for words, name in LISTS.items():
        assert (shell.query_json(C, cfg, shell.aws(cfg, words), missing="NotFound") or {name: []})[name] == [], words
    assert "nothing was there" in inv("destroy", "--env", "local", "--yes").stdout
