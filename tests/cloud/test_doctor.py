"""inv doctor: each check made to fail on purpose, as far as the local cloud can, and fixed by the command it names."""

from __future__ import annotations

import json
import re
import time

import pytest
from invoke import Context, Exit
from support.helpers import ROOT, STATE, administer, connect, inv, like_local, output_of
from support.iam import make_invoking_role
from support.instantclient import AIO

from handler.client import ERRORS
from local.oracle.faults import Faults
from ops import closings, config, deploy, doctor, next_command, readiness
from ops.findings import Finding
from ops.restate import request
from ops.shell import aws
from ops.target import Target

C = Context()
PING = "lambda:InvokeFunction"


def findings(check, cfg: dict) -> list[Finding]:
    return list(check(Target(C, cfg, "local")))


def fix(cfg: dict, one: Finding) -> None:
    """Do what the finding's fix names; this test does the person's part of it."""
    if one.name == "rights":
        for grant in one.fix.partition("run ")[2].split("; "):
            inv("genius.sql", grant)
        return
    command = one.fix.rpartition("then ")[2]
    output_of(cfg, f"{command} --yes" if re.search(r"inv resolve|restate invocations", command) else command)


def diagnosis() -> dict[str, list[Finding]]:
    """Return the findings of the whole doctor, by name."""
    found: dict[str, list[Finding]] = {}
    for one in json.loads(inv("doctor", "--env", "local", "--json", check=False).stdout):
        found.setdefault(one["name"], []).append(Finding(**one))
    return found


def shrink_and_publish(cfg: dict) -> None:
    """Make a version with 512 MB live, of which Restate does not know."""
    name = cfg["FUNCTION_NAME"]
    output_of(cfg, aws(cfg, f"lambda update-function-configuration --function-name {name} --memory-size 512"))
    output_of(cfg, deploy.wait_until_updated(cfg))
    version = json.loads(output_of(cfg, aws(cfg, f"lambda publish-version --function-name {name}")))["Version"]
    output_of(cfg, aws(cfg, f"lambda update-alias --function-name {name} --name live --function-version {version}"))


def block(cfg: dict, period: str) -> None:
    blocked = {"date": f"{period}-09", "job": "GNS_X", "message": "STOPPED", "at": 1.0}
    body = {"object_key": period, "new_state": {"blocked": list(json.dumps(blocked).encode())}}
    assert request(cfg, "POST", f"{cfg['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state", body)[0] < 300


def pause(cfg: dict, date: str) -> None:
    """Pause a closing whose last step fails, as after the last of its retries."""
    inv("close", "--env", "local", "--date", date)
    deadline = time.monotonic() + 60
    while "does not exist" not in closings.current_step(cfg, date):
        assert time.monotonic() < deadline, closings.current_step(cfg, date)
        time.sleep(0.2)
    invocation = closings.invocation_of(cfg, "ClosingPeriod", date[:7], "close")["id"]
    output_of(cfg, f"restate invocations pause {invocation} --yes")


@pytest.mark.slow
def test_each_failed_check_is_fixed_by_the_command_it_names(local, deployed, recorder):
    function = "financial_report.calculate_financial_metrics(uuid, integer, integer)"
    administer(local, f"ALTER FUNCTION {function} RENAME TO away")
    try:
        pause(deployed, "2025-12-02")
    finally:
        administer(local, "ALTER FUNCTION financial_report.away RENAME TO calculate_financial_metrics")
    shrink_and_publish(deployed)
    block(deployed, "2019-12")
    inv("genius.sql", "REVOKE CREATE JOB FROM genius")
    inv("genius.sql", "REVOKE EXECUTE ON acpdb.package_rpt_ac_fi806 FROM genius")
    role = f"iam delete-role-policy --role-name {deployed['ROLE_NAME']} --policy-name lambda-execution"
    output_of(deployed, aws(deployed, role))
    try:
        first = diagnosis()
        failures = {name: [one for one in found if not one.passed] for name, found in first.items()}
        for found in failures.values():
            for one in found:
                fix(deployed, one)
        closings.follow(deployed, "2025-12-02")
        left = [one for found in diagnosis().values() for one in found if not one.passed]
    finally:
        inv("schedule", "stop", "--env", "local")
        inv("keep-warm", "off", "--env", "local")
    messages = {name: " | ".join(one.message for one in found) for name, found in failures.items() if found}
    assert set(messages) == {"roles", "function", "rights", "restate", "schedule", "keep-warm", "periods", "paused"}
    assert "the policy lambda-execution" in messages["roles"] and "is not there" in messages["roles"]
    assert "MemorySize is 512" in messages["function"] and "at least 1024 are needed" in messages["function"]
    assert "lacks CREATE JOB and EXECUTE" in messages["rights"]
    assert "is not registered" in messages["restate"] and "GNS_X: STOPPED" in messages["periods"]
    assert "ClosingPeriod/2025-12/close" in messages["paused"] and "calculate_financial_metrics" in messages["paused"]
    assert left == []
    # The ping that it sends is the only call whose name is not that of a query.
    assert {call.action for call in recorder.calls() if call.task == "doctor" and not call.is_query} == {PING}
    others = {"cli", "env file", "credentials", "network", "ping", "layer", "postgres", "oracle", "schema", "charset"}
    others |= {"versions", "secrets", "dates", *readiness.FACTS}
    assert set(first) == {*messages, *others}
    assert not any(secret in str(first) for secret in (deployed["PG_PASSWORD"], deployed["ORACLE_PASSWORD"]))


@pytest.mark.slow
def test_version_registered_with_another_role_fails(deployed, tmp_path):
    other = make_invoking_role(deployed, "other", tmp_path)
    (before,) = findings(doctor.restate, deployed)
    arn = before.message.split()[0]
    output_of(deployed, f"restate deployments register {arn} --assume-role-arn {other} --force --yes")
    (one,) = findings(doctor.restate, deployed)
    assert not one.passed and f"is registered with {other}, expected none" in one.message
    output_of(deployed, one.fix)
    assert findings(doctor.restate, deployed)[0].passed


@pytest.mark.slow
def test_detached_layer_fails_and_the_attached_one_is_loaded(deployed, zips):
    client = zips["19"]
    made = {"INSTANT_CLIENT": str(client), "LIBAIO": str(client.parent / "system" / AIO)}
    inv("layer.build", "--runtime", deployed["RUNTIME"], **made)
    other = ROOT / "env" / "testlayer.env"
    other.write_text(like_local(LAYER_NAME="test-doctor", ORACLE_CLIENT="thick"))
    try:
        arn = inv("layer.publish", "--env", "testlayer").stdout.splitlines()[-1]
        output_of(deployed, doctor.set_value("testlayer", "LAYER_VERSION_ARN", arn))
        wanted = Target.load(C, "testlayer")
        one, mode = doctor.function(wanted)
        assert not one.passed and one.message == f"the layer is none, expected {arn}"
        assert not mode.passed and mode.message.endswith("differs from env/testlayer.env in ORACLE_CLIENT, TNS_ADMIN")
        output_of(wanted.cfg, one.fix)
        (one,) = doctor.function(wanted)
        assert one.passed
        found = {one.name: one for one in readiness.check(wanted)}
        assert re.match(r"Instant Client 19.28.0.0.0 of July 2025, \d+ months old", found["layer"].message)
        # The made client answers every connect so, as a listener that is down does.
        assert "ORA-12541: TNS:no listener: no listener answers" in found["oracle"].message
    finally:
        other.unlink()
        inv("deploy", "--env", "local")


@pytest.mark.slow
def test_missing_schema_fails(deployed):
    connection = connect(deployed)
    table = f'"{deployed["PG_SCHEMA"]}".closing_runs'
    connection.run(f"ALTER TABLE {table} RENAME TO closing_runs_aside")
    try:
        missing = [one for one in findings(readiness.check, deployed) if one.name == "schema"]
        assert not any(one.passed for one in missing) and any("closing_runs" in one.message for one in missing)
        output_of(deployed, missing[0].fix)
        (created,) = [one for one in findings(readiness.check, deployed) if one.name == "schema"]
        assert created.passed
    finally:
        connection.run(f"DROP TABLE IF EXISTS {table}")
        connection.run(f"ALTER TABLE {table}_aside RENAME TO closing_runs")
        connection.close()


@pytest.mark.slow
def test_wrong_oracle_password_fails_with_the_setting_to_correct(deployed):
    other = ROOT / "env" / "testpassword.env"
    other.write_text(like_local(ORACLE_PASSWORD="mistyped"))
    try:
        inv("deploy", "--env", "testpassword")
        found = {one.name: one for one in readiness.check(Target.load(C, "testpassword"))}
        other.write_text(like_local())
        fix(deployed, found["oracle"])
        fixed = {one.name: one for one in findings(readiness.check, deployed)}
    finally:
        other.unlink()
        inv("deploy", "--env", "local")
    wrong = found["oracle"]
    assert "ORA-01017" in wrong.message and "correct ORACLE_USER and ORACLE_PASSWORD" in wrong.message
    assert wrong.fix == "as in the message; then inv deploy --env testpassword" and "rights" not in found
    assert "mistyped" not in str(found) and fixed["oracle"].passed


def test_database_that_basic_lite_or_the_driver_does_not_know_is_a_warning(deployed):
    faults = Faults(STATE / "genius")
    faults.inject("nls_characterset", "TH8TISASCII")
    faults.inject("database_version", "10.2.0.5.0")
    try:
        found = {one.name: one for one in findings(readiness.check, deployed)}
    finally:
        faults.clear("nls_characterset")
        faults.clear("database_version")
    charset, versions = found["charset"], found["versions"]
    assert found["oracle"].passed and charset.warning and versions.warning
    assert charset.message.startswith("TH8TISASCII: Basic Lite does not support") and "ENV=local" in charset.fix
    assert "Oracle 10.2.0.5.0: its driver is tested with a database from 11.2 on" in versions.message
    assert "in handler/requirements.in and requirements.txt, then inv lock" in versions.fix


@pytest.mark.parametrize(
    ("vpc", "words"),
    [
        ({}, ["in no VPC"]),
        (
            {"VPC_SUBNET_IDS": "subnet-0a,subnet-0b", "VPC_SECURITY_GROUP_IDS": "sg-0c"},
            ["subnet-0a,subnet-0b need a route", "sg-0c must allow outbound TCP"],
        ),
    ],
)
def test_network_names_what_must_be_open(cfg, vpc, words):
    (one,) = findings(doctor.network, {**cfg, "PG_HOST": "10.9.1.5", "PG_PORT": "5433", **vpc})
    assert one.passed
    for word in [*words, "10.9.1.5:5433", cfg["ORACLE_CONNECT_STRING"], "1521"]:
        assert word in one.message


def test_unreachable_database_names_its_settings_and_the_network(cfg):
    vpc = {**cfg, "PG_HOST": "10.9.1.5", "VPC_SUBNET_IDS": "subnet-0a", "VPC_SECURITY_GROUP_IDS": "sg-0c"}
    for name, setting in (("postgres", "PG_HOST"), ("oracle", "ORACLE_CONNECT_STRING")):
        one = readiness.evaluate_database(name, {"ok": False, "error": "no answer within 8 s"}, vpc, "prod")
        assert not one.passed and one.message == "no answer within 8 s"
        assert f"or if {setting}" in one.fix and "sg-0c must allow outbound TCP" in one.fix


def test_account_that_differs_from_the_role_s_fails(cfg):
    identity = {"Arn": "arn:aws:iam::222222222222:user/me", "Account": "222222222222"}
    assert doctor.evaluate_account(identity, cfg, "prod").passed
    other = {**cfg, "RESTATE_INVOKE_ROLE_ARN": "arn:aws:iam::111111111111:role/restate"}
    one = doctor.evaluate_account(identity, other, "prod")
    assert not one.passed and "is in account 222222222222" in one.message and "of account 111111111111" in one.fix


def configuration(cfg: dict, **changed) -> dict:
    shape = {"Runtime": cfg["RUNTIME"], "Timeout": 900, "MemorySize": 1024, "LastUpdateStatus": "Successful"}
    shape |= {"Role": f"arn:aws:iam::1:role/{cfg['ROLE_NAME']}", "Handler": "handler.app.handler"}
    return {**shape, "Environment": {"Variables": config.function_environment(cfg)}, **changed}


@pytest.mark.parametrize(
    ("changed", "message", "fix"),
    [
        ({"MemorySize": 512}, "at least 1024", "sed -i.bak 's|^MEMORY=.*|MEMORY=1024|' env/local.env && inv deploy"),
        ({"Timeout": 60}, "Timeout is 60", "inv deploy --env local"),
        ({"Runtime": "python3.9"}, "Runtime is python3.9", "inv deploy --env local"),
        ({"Role": "arn:aws:iam::1:role/other"}, "its role differs from", "inv deploy --env local"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "its network differs from", "inv deploy --env local"),
        ({"Layers": [{"Arn": "arn:layer:1"}]}, "the layer is arn:layer:1, expected none", "inv deploy"),
        ({"LastUpdateStatus": "Failed"}, "last update is Failed", "inv deploy --env local"),
        ({"Environment": {"Variables": {}}}, "differs from env/local.env in", "inv deploy --env local"),
    ],
)
def test_function_that_differs_from_the_env_file_fails(cfg, changed, message, fix):
    found = list(doctor.evaluate_function(configuration(cfg, **changed), cfg, "local"))
    assert any(message in one.message and fix in one.fix for one in found), found
    assert not any(one.passed for one in found)
    assert list(doctor.evaluate_function(configuration(cfg), cfg, "local")) == []


def test_each_library_of_thick_mode_is_required():
    whole = ["libaio.so.1", "libclntsh.so", "libclntsh.so.19.1", "libnsl.so.1", "libociicus.so"]
    client = {"mode": "thick", "version": "19.28.0.0.0", "libraries": whole, "error": None}
    assert readiness.evaluate_client(client, "prod").passed
    for name in whole[:-1]:
        one = readiness.evaluate_client({**client, "libraries": [lib for lib in whole if lib != name]}, "prod")
        missing = "libclntsh.so.VERSION" if name == "libclntsh.so.19.1" else name
        assert (one.passed, one.message) == (False, f"the function has no {missing}")
        assert one.fix == "make layer publish deploy ENV=prod"
    assert not readiness.evaluate_character_set("TH8TISASCII", client, "prod").passed
    assert readiness.evaluate_character_set("AL32UTF8", client, "prod").passed
    basic = {**client, "libraries": [*whole, readiness.BASIC_DATA]}
    assert readiness.evaluate_character_set("TH8TISASCII", basic, "prod").passed


def test_error_that_the_function_knows_is_not_explained_a_second_time(cfg):
    for code, (cause, its_fix) in ERRORS.items():
        error = f"{code}: as Oracle writes it; {cause}; {its_fix}"
        one = readiness.evaluate_database("oracle", {"ok": False, "error": error}, cfg, "prod")
        assert (one.message, one.fix) == (error, "as in the message; then inv deploy --env prod")


def test_restate_that_does_not_answer_is_one_finding(deployed, monkeypatch):
    asking = ("restate", "schedule", "periods", "paused")
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in asking})
    away = {**deployed, "RESTATE_ADMIN_URL": "http://127.0.0.1:1"}
    found = list(doctor.examine(Target(C, away, "local"), doctor.CHECKS))
    (one,) = found
    assert one.name == "restate" and "does not answer" in one.message and one.fix == "inv local.up"


def test_refused_key_of_aws_is_one_finding(cfg):
    """The commands of STS and of the other services have different words for it."""
    words = "`aws sts …` failed with exit 255: An error occurred ({}) when calling X: The security token is invalid"

    def check(code: str):
        raise Exit(words.format(code))

    codes = ("InvalidClientTokenId", "UnrecognizedClientException", "InvalidSignatureException")
    checks = {code: (lambda target, code=code: check(code), "another fix") for code in codes}
    (one,) = doctor.examine(Target(C, cfg, "local"), checks)
    assert one.fix == "sign in, or name a profile as AWS_PROFILE in env/local.env"


def test_function_that_was_never_deployed_is_one_finding(deployed):
    cfg = {**deployed, "FUNCTION_NAME": "none", "PG_PASSWORD": "ssm:/none"}
    names = ("function", "ping", "secrets", "restate", "keep-warm")
    (one,) = doctor.examine(Target(C, cfg, "local"), {name: doctor.CHECKS[name] for name in names})
    assert (one.name, one.message, one.fix) == ("function", "none has no live version", "inv deploy --env local")


def test_test_job_is_left_out_if_genius_has_failed_already(cfg):
    down = Finding("oracle", False, "ORA-12541", "have it started")
    checks = {"ping": (lambda target: iter([down]), ""), **doctor.TEST_JOB}
    assert list(doctor.examine(Target(C, cfg, "local"), checks)) == [down]


def test_unknown_environment_is_one_line_as_for_other_tasks():
    found = [inv(*words, "--env", "nope", check=False) for words in (["doctor"], ["doctor", "--json"], ["env.check"])]
    assert {(one.returncode, one.stdout, one.stderr) for one in found} == {(1, "", found[-1].stderr)}
    assert found[-1].stderr.startswith("No environment 'nope'. Known: ") and found[-1].stderr.count("\n") == 1


def test_misspelled_key_of_an_env_file_is_the_only_finding():
    other = ROOT / "env" / "testslip.env"
    other.write_text((ROOT / "env" / "local.env").read_text().replace("MEMORY=", "MEMROY="))
    try:
        (one,) = doctor.walk(C, "testslip")
    finally:
        other.unlink()
    assert not one.passed and "MEMROY: MEMORY?" in one.message and "inv env.check --env testslip" in one.fix


def test_blocked_period_fails_with_the_command_that_resolves_it(deployed):
    try:
        block(deployed, "2019-11")
        deadline = time.monotonic() + 20
        found = []
        while not found and time.monotonic() < deadline:
            found = [one for one in findings(doctor.periods, deployed) if "2019-11" in one.message]
        (one,) = found
    finally:
        url = f"{deployed['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state"
        request(deployed, "POST", url, {"object_key": "2019-11", "new_state": {}})
    assert not one.passed and "GNS_X" in one.message and "inv resolve --env local --period 2019-11" in one.fix


def test_paused_invocation_fails_with_its_last_failure(cfg, monkeypatch):
    run = {"run_service": "DailyClosing", "run_key": "2025-01-31"}
    close = {"id": "inv_1", "target": "close", "own_service": "ClosingPeriod", "own_key": "2025-01", **run}
    events = [{"event_json": json.dumps({"last_failure": "ORA-01017: no"})}]
    paused = [close]
    monkeypatch.setattr(closings, "sql", lambda cfg, query, *values: events if values else paused)
    monkeypatch.setattr(next_command, "known_state", lambda cfg, date: {"date": date, "paused": "inv_1"})
    (one,) = findings(doctor.paused, cfg)
    assert not one.passed and "is paused: ORA-01017: no" in one.message
    assert one.fix == "remove its cause, then inv resume --env local --date 2025-01-31"
    # A run that the schedule has started, and a call of the schedule itself.
    schedule = {"run_service": "DailyClosingScheduler", "run_key": "main"}
    paused[:] = [{"id": "inv_2", "target": "run", "own_service": "DailyClosing", "own_key": "2025-01-30", **schedule}]
    paused.append({"id": "inv_3", "target": "trigger", "own_service": "DailyClosingScheduler", "own_key": "main"})
    assert [one.fix for one in findings(doctor.paused, cfg)] == [
        "remove its cause, then inv resume --env local --date 2025-01-30",
        f"remove its cause, then curl -X PATCH {cfg['RESTATE_ADMIN_URL']}/invocations/inv_3/resume",
    ]
    paused[:] = [close]
    # Genius cannot be read: the doctor does not answer with itself.
    monkeypatch.setattr(next_command, "known_state", lambda cfg, date: {"date": date, "jobs": "ORA-12541"})
    (one,) = findings(doctor.paused, cfg)
    assert one.fix == "remove its cause, then inv next --env local --date 2025-01-31"
