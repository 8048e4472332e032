"""The steps between a published version and its going live, with AWS and Restate as they may answer."""

from __future__ import annotations

import contextlib

import pytest
from invoke import Context, Exit

from ops import alias, release, shell
from ops import restate as admin
from ops.restate import curl
from ops.target import Target

ARN = "arn:aws:lambda:ap-southeast-3:000000000000:function:closing"
CFG = {
    "AWS_REGION": "ap-southeast-3",
    "AWS_PROFILE": "",
    "AWS_ENDPOINT_URL": "",
    "RESTATE_INGRESS_AUTH": "off",
    "FUNCTION_NAME": "closing",
    "RESTATE_ADMIN_URL": "http://restate.invalid:9070",
    "RESTATE_AUTH_TOKEN": "",
    "RESTATE_INVOKE_ROLE_ARN": "arn:aws:iam::000000000000:role/restate",
    "FUNCTION_URL": "off",
    "PROVISIONED_CONCURRENCY": "0",
}
NEW = f"{ARN}:2"
TARGET = Target(Context(), CFG, "prod")


def service(*handlers: str, deployment: str = "dp_1") -> dict:
    there = [{"name": name} for name in handlers]
    return {"name": "DailyClosing", "deployment_id": deployment, "handlers": there}


@pytest.fixture
def restate(monkeypatch):
    """Answer from {(method, last word of the path): [answers, the last one again and again]}."""
    answers = {
        ("GET", "deployments"): [(200, {"deployments": [{"id": "dp_1", "arn": f"{ARN}:1"}]})],
        ("GET", "services"): [(200, {"services": [service("run", "getStatus")]})],
        ("POST", "deployments"): [(200, {"services": [service("run")]})],
        ("GET", "close"): [(200, {"name": "close", "public": False})],
    }

    def request(cfg, method, url, body=None):
        left = answers[method, url.rpartition("/")[2]]
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(admin, "request", request)
    monkeypatch.setattr(release.time, "sleep", lambda seconds: None)
    return answers


def test_a_removed_handler_is_refused_by_name_unless_it_is_meant(restate):
    with pytest.raises(Exit, match=r"no longer has DailyClosing/getStatus, .*--breaking. Nothing was registered"):
        release.refuse_removed_handlers(CFG, NEW, False, release.discover(CFG, NEW))
    release.refuse_removed_handlers(CFG, NEW, True, release.discover(CFG, NEW))


def test_another_functions_service_is_not_compared(restate):
    restate["GET", "services"] = [(200, {"services": [service("run", "getStatus", deployment="dp_9")]})]
    release.refuse_removed_handlers(CFG, NEW, False, release.discover(CFG, NEW))


def test_a_role_that_is_not_yet_there_is_waited_for(restate, capsys):
    unreachable = (500, {"message": "[META0003] AccessDenied"})
    restate["POST", "deployments"] = [unreachable, unreachable, (200, {"services": [service("run", "getStatus")]})]
    release.refuse_removed_handlers(CFG, NEW, False, release.discover(CFG, NEW))
    assert capsys.readouterr().out.count("a new role takes about a minute") == 2


def test_without_a_role_nothing_is_waited_for_and_the_line_names_the_live_version(restate, monkeypatch):
    restate["POST", "deployments"] = [(500, {"message": "[META0003] no such function"})]
    restate["GET", "DailyClosing"] = [(200, {"deployment_id": "dp_1"})]
    monkeypatch.setattr(Target, "query_json", lambda *words, **options: {"FunctionVersion": "1"})
    with pytest.raises(Exit) as caught:
        release.activate(
            Target(Context(), {**CFG, "RESTATE_INVOKE_ROLE_ARN": ""}, "prod"), f"{ARN}:2", False, shell.changes, {}
        )
    assert "META0003" in str(caught.value)
    assert "the alias has version 1, Restate starts closings on version 1" in str(caught.value)
    assert str(caught.value).endswith("correct the cause, then run `inv deploy --env prod`")


def test_a_version_that_something_else_was_registered_after_is_registered_again(restate, monkeypatch):
    """Such as after the URL of `inv dev`. Without --force Restate would keep that one as the newest."""
    restate["GET", "DailyClosing"] = [(200, {"deployment_id": "dp_http"})]
    there = {"id": "dp_1", "arn": f"{ARN}:1", "assume_role_arn": CFG["RESTATE_INVOKE_ROLE_ARN"]}
    restate["GET", "deployments"] = [(200, {"deployments": [there]})]
    restate["POST", "deployments"] = [(200, {"services": [service("run", "getStatus")]})]
    sent = []
    monkeypatch.setattr(Target, "execute", lambda self, command: sent.append(command) or "")
    monkeypatch.setattr(Target, "query_json", lambda *words, **options: {"FunctionVersion": "1"})
    release.activate(TARGET, f"{ARN}:1", False, shell.changes, {release.PASSED: "1"})
    (command,) = sent
    assert command.startswith(f"restate deployments register {ARN}:1 ") and command.endswith(" --force --yes")
    restate["GET", "DailyClosing"] = [(200, {"deployment_id": "dp_1"})]
    release.activate(TARGET, f"{ARN}:1", False, shell.changes, {release.PASSED: "1"})
    assert sent == [command]


@pytest.mark.parametrize("answer", [(200, {"name": "close", "public": True}), (404, {"message": "no such handler"})])
def test_deploy_fails_unless_restate_has_close_as_private(restate, answer):
    release.refuse_public(TARGET)
    restate["GET", "close"] = [answer]
    with pytest.raises(Exit, match="lists ClosingPeriod/close as public"):
        release.refuse_public(TARGET)


@pytest.mark.parametrize(("theirs", "waiting", "refused"), [("2.1", 3, True), ("2.1", 0, False), ("1.4", 3, False)])
def test_rollback_stays_within_a_major_protocol_while_calls_are_queued(monkeypatch, theirs, waiting, refused):
    monkeypatch.setattr(release, "invoke_event", lambda *words: {"protocol": {"7": theirs, "live": "1.0"}[words[2]]})
    monkeypatch.setattr(release, "sql", lambda *words: [{"service": "ClosingPeriod", "n": waiting}] if waiting else [])
    with pytest.raises(Exit, match=r"3 calls are queued.*Nothing was changed") if refused else contextlib.nullcontext():
        release.refuse_other_protocol(TARGET, "7")


@pytest.mark.parametrize(
    ("ingress", "setting", "url", "expected"),
    [
        ("https://n.env.us.restate.cloud:8080", "off", "https://n.env.us.restate.cloud:8080/X/k/h", True),
        ("http://10.0.0.1:8080", "off", "http://10.0.0.1:8080/X/k/h", False),
        ("http://10.0.0.1:8080", "on", "http://10.0.0.1:8080/X/k/h", True),
        ("http://10.0.0.1:8080", "off", "http://restate.invalid:9070/query", True),
    ],
)
def test_the_ingress_gets_the_token_only_if_it_asks_for_it(ingress, setting, url, expected):
    cfg = {**CFG, "RESTATE_AUTH_TOKEN": "t", "RESTATE_INGRESS_URL": ingress, "RESTATE_INGRESS_AUTH": setting}
    assert admin.needs_token(cfg, url) == expected
    assert ("RESTATE_AUTH_TOKEN" in curl(cfg, "POST", url)) == expected
    assert not admin.needs_token({**cfg, "RESTATE_AUTH_TOKEN": ""}, url)


@pytest.mark.parametrize("value", ["2025-01' OR '1'='1", "", "a b", "x" * 201, "%", "a\n"])
def test_unsafe_value_never_becomes_part_of_a_query(value):
    with pytest.raises(Exit, match="nothing was sent to Restate"):
        admin.sql({}, "SELECT id FROM sys_invocation WHERE id = ?", value)


def test_an_update_in_progress_is_waited_for_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(shell, "PAUSE_SECONDS", 0)
    count = tmp_path / "count"
    command = f"echo x >> {count}; [ $(wc -l < {count}) -gt 2 ] || ! echo 'MESSAGE' >&2"
    shell.execute(
        Context(), CFG, command.replace("MESSAGE", "(ResourceConflictException): An update is in progress for resource")
    )
    assert len(count.read_text().split()) == 3
    count.unlink()
    with pytest.raises(Exit, match="Function already exist"):
        shell.execute(Context(), CFG, command.replace("MESSAGE", "(ResourceConflictException): Function already exist"))
    assert len(count.read_text().split()) == 1


def test_function_that_somebody_else_has_changed_is_reported():
    with pytest.raises(Exit, match="somebody else has changed the function"):
        shell.execute(Context(), CFG, "echo '(PreconditionFailedException) The RevisionId' >&2; exit 254")


@pytest.mark.parametrize(
    ("version", "heeds"), [("2.9.19", False), ("2.12.9", False), ("2.13.0", True), ("2.27.1", True), ("1.46.3", True)]
)
def test_a_cli_that_ignores_the_endpoint_is_refused_before_anything_is_sent(tmp_path, version, heeds):
    cli = tmp_path / "aws"
    cli.write_text(f"#!/bin/sh\necho aws-cli/{version} Python/3.11\n")
    cli.chmod(0o755)
    if heeds:
        shell.refuse_old_cli(str(cli), "http://127.0.0.1:1")
        return
    with pytest.raises(Exit, match=f"is aws-cli/{version}, which ignores AWS_ENDPOINT_URL"):
        shell.refuse_old_cli(str(cli), "http://127.0.0.1:1")


@pytest.fixture
def changes(monkeypatch):
    """Return the commands that would change something; they do not run."""
    made: list[str] = []
    monkeypatch.setattr(Target, "execute", lambda self, command: made.append(command) or "")
    monkeypatch.setattr(release, "delete_deployment", lambda target, identity: made.append(f"delete {identity}"))
    monkeypatch.setattr(release.function_url, "remove", lambda target: made.append("remove the URL"))
    return made


@pytest.mark.parametrize(
    ("asked", "attached", "states", "verbs"),
    [
        ("0", "", [], []),
        ("0", "PROVISIONED_CONCURRENCY=2", [("READY", 2)], ["delete-provisioned"]),
        ("0", "PROVISIONED_CONCURRENCY=2", [None], []),
        ("2", "PROVISIONED_CONCURRENCY=2", [("READY", 2)], []),
        ("2", "PROVISIONED_CONCURRENCY=2", [("IN_PROGRESS", 2), ("READY", 2)], ["get-provisioned"]),
        ("3", "PROVISIONED_CONCURRENCY=2", [("READY", 2), ("READY", 3)], ["put-provisioned", "get-provisioned"]),
    ],
)
def test_provisioned_concurrency_is_that_of_the_environment(changes, monkeypatch, asked, attached, states, verbs):
    answers = [one and dict(zip(("Status", "RequestedProvisionedConcurrentExecutions"), one)) for one in states]
    monkeypatch.setattr(Target, "query_json", lambda *words, **options: answers.pop(0))
    alias.ensure_concurrency(TARGET.having(PROVISIONED_CONCURRENCY=asked), attached)
    assert len(changes) == len(verbs)
    assert all(verb in change for verb, change in zip(verbs, changes))


def test_provisioned_concurrency_that_aws_cannot_provide_is_one_line(changes, monkeypatch):
    answers = [None, {"Status": "FAILED", "StatusReason": "no such capacity"}]
    monkeypatch.setattr(Target, "query_json", lambda *words, **options: answers.pop(0))
    with pytest.raises(Exit, match="could not provide 5 provisioned instances: no such capacity"):
        alias.ensure_concurrency(TARGET.having(PROVISIONED_CONCURRENCY="5"), "PROVISIONED_CONCURRENCY=5")


@pytest.mark.parametrize(
    ("drained", "made"), [([], []), ([{"id": "dp_url"}], ["delete dp_url", "remove the URL"])], ids=["runs", "drained"]
)
def test_a_url_stays_while_a_closing_that_began_on_it_runs(restate, changes, monkeypatch, drained, made):
    behind = {"id": "dp_url", "uri": "https://x.lambda-url.on.aws/", "metadata": {"arn": f"{ARN}:1"}}
    others = {"id": "dp_other", "uri": "https://other.example/", "metadata": {}}
    restate["GET", "deployments"] = [(200, {"deployments": [behind, others]})]
    monkeypatch.setattr(release, "sql", lambda cfg, query: drained)
    assert release.leave_url(TARGET, NEW) == bool(drained)
    assert changes == made


@pytest.mark.parametrize(
    ("given", "role"),
    [
        ("", ""),
        ("restate", "arn:aws:iam::000000000000:role/restate"),
        ("arn:aws:iam::111111111111:role/other", "arn:aws:iam::111111111111:role/other"),
    ],
)
def test_role_that_restate_assumes_is_of_the_function_s_account_unless_it_is_an_arn(given, role):
    cfg = {**CFG, "RESTATE_INVOKE_ROLE_ARN": given}
    assert release.invoke_role(cfg, f"{ARN}:2") == role
    assert (f"--assume-role-arn {role} " in f"{release.register(cfg, f'{ARN}:2')} ") is bool(role)
