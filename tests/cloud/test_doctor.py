"""Each line of inv doctor turned red on purpose, as far as the local cloud can, and mended by its own command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest
from invoke import Context
from oracledb import errors
from pg8000 import native
from support.helpers import ROOT, STATE, administer, inv, like_local
from support.instantclient import AIO, check_client

from local.oracle.faults import Faults
from ops import closings, commands, config, doctor, doctor_aws, doctor_service, finding, shell
from ops.shell import aws, request

C = Context()
PING = "lambda:InvokeFunction"
OTHER_ROLE = "arn:aws:iam::000000000000:role/other"
EGRESS = "aws --region ap-southeast-3 ec2 authorize-security-group-egress --group-id sg-0a --protocol tcp"


def lines(check, cfg: dict) -> list[finding.Finding]:
    return list(check(C, cfg, "local"))


def run(cfg: dict, command: str) -> str:
    """A command as an operator pastes it."""
    environ = {**os.environ, **shell.command_environment(cfg)}
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def mend(cfg: dict, one: finding.Finding) -> None:
    """What the line says; a person's part in it is that of this test."""
    if one.name == "rights":
        for grant in one.mend.partition("run ")[2].split("; "):
            inv("genius.sql", grant)
        return
    command = one.mend.rpartition("then ")[2].replace("succeeded|failed", "failed")
    run(cfg, f"{command} --yes" if re.search(r"inv resolve|restate invocations", command) else command)


def diagnosis() -> dict[str, list[finding.Finding]]:
    """The lines of the whole walk, by name."""
    found: dict[str, list[finding.Finding]] = {}
    for one in json.loads(inv("doctor", "--env", "local", "--json", check=False).stdout):
        found.setdefault(one["name"], []).append(finding.Finding(**one))
    return found


def shrink_and_publish(cfg: dict) -> None:
    """A version with 512 MB that Restate has never heard of, live."""
    name = cfg["FUNCTION_NAME"]
    run(cfg, aws(cfg, f"lambda update-function-configuration --function-name {name} --memory-size 512"))
    run(cfg, commands.wait_until_updated(cfg))
    version = json.loads(run(cfg, aws(cfg, f"lambda publish-version --function-name {name}")))["Version"]
    run(cfg, aws(cfg, f"lambda update-alias --function-name {name} --name live --function-version {version}"))


def block(cfg: dict, period: str) -> None:
    blocked = {"date": f"{period}-09", "job": "GNS_X", "message": "STOPPED", "at": 1.0}
    body = {"object_key": period, "new_state": {"blocked": list(json.dumps(blocked).encode())}}
    assert request(cfg, "POST", f"{cfg['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state", body)[0] < 300


def pause(cfg: dict, date: str) -> None:
    """A closing whose last step fails, paused as after the last of its retries."""
    inv("close", "--env", "local", "--date", date)
    deadline = time.monotonic() + 60
    while "does not exist" not in closings.current_step(cfg, date):
        assert time.monotonic() < deadline, closings.current_step(cfg, date)
        time.sleep(0.2)
    invocation = closings.invocation_of(cfg, "ClosingPeriod", date[:7], "close")["id"]
    run(cfg, f"restate invocations pause {invocation} --yes")


@pytest.mark.slow
def test_whatever_is_broken_is_named_and_mended_by_its_own_command(local, deployed, recorder):
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
    run(deployed, aws(deployed, role))
    try:
        first = diagnosis()
        ills = {name: [one for one in found if not one.ok] for name, found in first.items()}
        for found in ills.values():
            for one in found:
                mend(deployed, one)
        closings.follow(deployed, "2025-12-02")
        left = [one for found in diagnosis().values() for one in found if not one.ok]
    finally:
        inv("schedule", "stop", "--env", "local")
        inv("keep-warm", "off", "--env", "local")
    said = {name: " | ".join(one.said for one in found) for name, found in ills.items() if found}
    assert set(said) == {"roles", "function", "rights", "restate", "scheduler", "warmth", "periods", "paused"}
    assert "the policy lambda-execution" in said["roles"] and "is not there" in said["roles"]
    assert "MemorySize is 512" in said["function"] and "at least 1024 are needed" in said["function"]
    assert "lacks CREATE JOB and EXECUTE" in said["rights"]
    assert "is not registered" in said["restate"] and "GNS_X: STOPPED" in said["periods"]
    assert "ClosingPeriod/2025-12/close" in said["paused"] and "calculate_financial_metrics" in said["paused"]
    assert left == []
    # The ping that it sends is the one thing that is no look by its name.
    assert {call.action for call in recorder.calls() if call.task == "doctor" and not call.looks} == {PING}
    told = {"cli", "env file", "credentials", "network", "ping", "layer", "postgres", "oracle", "schema", "charset"}
    assert set(first) == {*said, *told}
    assert not any(secret in str(first) for secret in (deployed["PG_PASSWORD"], deployed["ORACLE_PASSWORD"]))


@pytest.mark.slow
def test_a_version_registered_with_another_role(deployed):
    (well,) = lines(doctor_service.restate, deployed)
    arn = well.said.split()[0]
    run(deployed, f"restate deployments register {arn} --assume-role-arn {OTHER_ROLE} --force --yes")
    (one,) = lines(doctor_service.restate, deployed)
    assert not one.ok and f"is registered with {OTHER_ROLE}, none is wanted" in one.said
    run(deployed, one.mend)
    assert lines(doctor_service.restate, deployed)[0].ok


@pytest.mark.slow
def test_a_layer_that_is_detached(deployed, zips):
    client = zips["19"]
    made = {"INSTANT_CLIENT": str(client), "LIBAIO": str(client.parent / "system" / AIO)}
    inv("layer.build", "--runtime", deployed["RUNTIME"], **made)
    other = ROOT / "env" / "testlayer.env"
    other.write_text(like_local(LAYER_NAME="test-doctor"))
    try:
        arn = inv("layer.publish", "--env", "testlayer").stdout.splitlines()[-1]
        run(deployed, finding.change("testlayer", "LAYER_VERSION_ARN", arn))
        wanted = config.load("testlayer")
        (one,) = doctor_aws.function(C, wanted, "testlayer")
        assert not one.ok and one.said == f"the layer is none, and {arn} is wanted"
        run(wanted, one.mend)
        (one,) = doctor_aws.function(C, wanted, "testlayer")
        assert one.ok
    finally:
        other.unlink()
        inv("deploy", "--env", "local")


@pytest.mark.slow
def test_a_schema_that_is_missing(deployed):
    given = (deployed[f"PG_{name}"] for name in ("USER", "HOST", "DATABASE", "PORT", "PASSWORD"))
    connection = native.Connection(*given)
    table = f'"{deployed["PG_SCHEMA"]}".closing_runs'
    connection.run(f"ALTER TABLE {table} RENAME TO closing_runs_aside")
    try:
        one = doctor_service.schema(C, deployed, "local")
        assert not one.ok and "closing_runs" in one.said
        run(deployed, one.mend)
        assert doctor_service.schema(C, deployed, "local").ok
    finally:
        connection.run(f"DROP TABLE IF EXISTS {table}")
        connection.run(f"ALTER TABLE {table}_aside RENAME TO closing_runs")
        connection.close()


@pytest.mark.slow
def test_a_wrong_password_in_the_file(deployed):
    other = ROOT / "env" / "testpassword.env"
    other.write_text(like_local(ORACLE_PASSWORD="mistyped"))
    try:
        inv("deploy", "--env", "testpassword")
        found = {one.name: one for one in doctor_service.ping_deep(C, config.load("testpassword"), "testpassword")}
        other.write_text(like_local())
        mend(deployed, found["oracle"])
        well = {one.name: one for one in lines(doctor_service.ping_deep, deployed)}
    finally:
        other.unlink()
        inv("deploy", "--env", "local")
    assert found["oracle"].said.startswith("user or password is wrong: ") and "ORA-01017" in found["oracle"].said
    assert "correct ORACLE_PASSWORD" in found["oracle"].mend and "rights" not in found
    assert "mistyped" not in str(found) and well["oracle"].ok


def test_a_character_set(deployed):
    faults = Faults(STATE / "genius")
    faults.inject("nls_characterset", "TH8TISASCII")
    try:
        found = {one.name: one for one in lines(doctor_service.ping_deep, deployed)}
    finally:
        faults.clear("nls_characterset")
    assert found["oracle"].ok and found["charset"].said == "TH8TISASCII"


@pytest.mark.slow
def test_a_group_that_lets_nothing_out_and_a_subnet_without_a_route(cfg):
    def ec2(words: str) -> dict:
        return json.loads(run(cfg, aws(cfg, f"ec2 {words} --output json")) or "{}")

    vpc = ec2("create-vpc --cidr-block 10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2(f"create-subnet --vpc-id {vpc} --cidr-block 10.9.1.0/24")["Subnet"]["SubnetId"]
    group = ec2(f"create-security-group --vpc-id {vpc} --group-name test --description test")["GroupId"]
    ec2(f"revoke-security-group-egress --group-id {group} --protocol=-1 --cidr 0.0.0.0/0")
    inside = {**cfg, "VPC_SUBNET_IDS": subnet, "VPC_SECURITY_GROUP_IDS": group, "PG_HOST": "10.9.1.5"}
    inside |= {"PG_PORT": "5432", "ORACLE_CONNECT_STRING": "192.0.2.7/GENIUS"}
    found = lines(doctor_aws.network, inside)
    assert [one.said for one in found] == [
        f"{group} lets nothing out to 10.9.1.5:5432",
        f"{subnet} has no route to 192.0.2.7",
        f"{group} lets nothing out to 192.0.2.7:1521",
    ]
    nat = ec2(f"create-nat-gateway --subnet-id {subnet}")["NatGateway"]["NatGatewayId"]
    for one in found:
        run(cfg, one.mend.partition(", with")[0].replace("NAT", nat))
    (one,) = lines(doctor_aws.network, inside)
    assert one.ok and one.said == "1 subnets and 1 groups let out to both databases"


@pytest.mark.parametrize(
    ("route", "address", "does"),
    [
        ({"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local"}, "10.0.7.7", True),
        ({"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local"}, "10.1.0.1", False),
        ({"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local"}, None, False),
        ({"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}, None, True),
        ({"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}, "192.0.2.7", False),
        ({"DestinationCidrBlock": "172.16.0.0/12", "TransitGatewayId": "tgw-1"}, "172.20.0.1", True),
        ({"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "blackhole"}, "192.0.2.7", False),
        ({"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1"}, "192.0.2.7", False),
    ],
)
def test_where_a_route_leads(route, address, does):
    assert doctor_aws.leads(route, address) is does


@pytest.mark.parametrize(
    ("rule", "does"),
    [
        ({"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, True),
        ({"IpProtocol": "tcp", "FromPort": 1521, "ToPort": 1521, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}, True),
        ({"IpProtocol": "tcp", "FromPort": 1521, "ToPort": 1521, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}, False),
        ({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, False),
        ({"IpProtocol": "udp", "FromPort": 1521, "ToPort": 1521, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, False),
        ({"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": "sg-1"}]}, True),
    ],
)
def test_what_a_rule_lets_out(rule, does):
    assert doctor_aws.lets_out({"IpPermissionsEgress": [rule]}, 1521, "192.0.2.7") is does
    assert not doctor_aws.lets_out({"IpPermissionsEgress": []}, 1521, "192.0.2.7")


@pytest.mark.parametrize(
    ("text", "oracle"),
    [
        ("genius.internal:1521/GENIUS", ("genius.internal", 1521)),
        ("genius.internal/GENIUS", ("genius.internal", 1521)),
        ("tcp://10.0.0.1:1600/GENIUS", ("10.0.0.1", 1600)),
        ("(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST = 10.0.0.1)(PORT=1527))(CONNECT_DATA=))", ("10.0.0.1", 1527)),
    ],
)
def test_host_and_port_of_a_connect_string(text, oracle):
    given = {"PG_HOST": "pg", "PG_PORT": "5432", "ORACLE_CONNECT_STRING": text}
    assert doctor_aws.databases(given) == [("pg", 5432), oracle]


def test_another_account_than_that_of_the_role(cfg):
    identity = {"Arn": "arn:aws:iam::222222222222:user/me", "Account": "222222222222"}
    assert [one.ok for one in doctor_aws.judge_account(identity, cfg, "prod")] == [True]
    other = {**cfg, "RESTATE_INVOKE_ROLE_ARN": "arn:aws:iam::111111111111:role/restate"}
    (one,) = doctor_aws.judge_account(identity, other, "prod")
    assert not one.ok and "is of account 222222222222" in one.said and "of account 111111111111" in one.mend


def configuration(cfg: dict, **changed) -> dict:
    shape = {"Runtime": cfg["RUNTIME"], "Timeout": 900, "MemorySize": 1024, "LastUpdateStatus": "Successful"}
    shape |= {"Role": f"arn:aws:iam::1:role/{cfg['ROLE_NAME']}", "Handler": "handler.app.handler"}
    return {**shape, "Environment": {"Variables": config.function_environment(cfg)}, **changed}


@pytest.mark.parametrize(
    ("changed", "said", "mend"),
    [
        ({"MemorySize": 512}, "at least 1024", "sed -i 's|^MEMORY=.*|MEMORY=1024|' env/local.env && inv deploy"),
        ({"Timeout": 60}, "Timeout is 60", "inv deploy --env local"),
        ({"Runtime": "python3.9"}, "Runtime is python3.9", "inv deploy --env local"),
        ({"Role": "arn:aws:iam::1:role/other"}, "its role is not as", "inv deploy --env local"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "its network is not as", "inv deploy --env local"),
        ({"Layers": [{"Arn": "arn:layer:1"}]}, "the layer is arn:layer:1, and none is wanted", "inv deploy"),
        ({"LastUpdateStatus": "Failed"}, "last update is Failed", "inv deploy --env local"),
        ({"Environment": {"Variables": {}}}, "differs from env/local.env in", "inv deploy --env local"),
    ],
)
def test_a_function_that_is_not_as_the_file_says(cfg, changed, said, mend):
    found = list(doctor_aws.judge_function(configuration(cfg, **changed), cfg, "local"))
    assert any(said in one.said and mend in one.mend for one in found), found
    assert not any(one.ok for one in found)
    assert list(doctor_aws.judge_function(configuration(cfg), cfg, "local")) == []


def test_what_thick_mode_needs_of_the_layer():
    whole = ["libaio.so.1", "libclntsh.so", "libclntsh.so.19.1", "libnsl.so.1", "libociicus.so"]
    client = {"mode": "thick", "version": "19.28.0.0.0", "libraries": whole}
    assert doctor_service.judge_client(client, "prod").ok
    for name in whole[:-1]:
        one = doctor_service.judge_client({**client, "libraries": [lib for lib in whole if lib != name]}, "prod")
        missing = "libclntsh.so.VERSION" if name == "libclntsh.so.19.1" else name
        assert (one.ok, one.said) == (False, f"the function has no {missing}")
        assert one.mend == "make layer publish deploy ENV=prod"
    assert not doctor_service.judge_character_set("TH8TISASCII", client, "prod").ok
    assert doctor_service.judge_character_set("AL32UTF8", client, "prod").ok
    basic = {**client, "libraries": [*whole, doctor_service.BASIC_DATA]}
    assert doctor_service.judge_character_set("TH8TISASCII", basic, "prod").ok


# As the driver or the database writes them; what this machine can produce is produced.
SAID = {
    "DPI-1047": lambda: check_client(None)[0]["error"],
    "DPI-1050": lambda: "DPI-1050: Oracle Client library is at version 12.1 but version 19.1 or higher is needed",
    "DPY-3010": lambda: errors._get_error_text(errors.ERR_SERVER_VERSION_NOT_SUPPORTED),
    "ORA-12170": lambda: "ORA-12170: TNS:Connect timeout occurred",
    "ORA-12541": lambda: "ORA-12541: TNS:no listener",
    "ORA-12737": lambda: "ORA-12737: Instant Client Light: unsupported server character set TH8TISASCII",
    "ORA-01017": lambda: "ORA-01017: invalid username/password; logon denied",
    "ORA-28000": lambda: "ORA-28000: the account is locked",
}


@pytest.mark.parametrize("code", sorted(doctor_service.ORACLE))
def test_each_error_of_oracle_is_explained(code, cfg):
    text = SAID[code]()
    assert code in text
    vpc = {**cfg, "VPC_SECURITY_GROUP_IDS": "sg-0a", "ORACLE_CONNECT_STRING": "192.0.2.7:1521/GENIUS"}
    said, mend = doctor_service.explained("oracle", text, vpc, "prod")
    assert said == f"{doctor_service.ORACLE[code][0]}: {text}"
    assert mend and "{" not in mend
    if code == "ORA-12170":
        assert mend.startswith(f"{EGRESS} --port 1521 --cidr 192.0.2.7/32, and")


def test_a_restate_that_is_away(deployed, monkeypatch):
    asking = ("restate", "scheduler", "periods", "paused")
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in asking})
    away = {**deployed, "RESTATE_ADMIN_URL": "http://127.0.0.1:1"}
    found = list(doctor.examine(C, away, "local"))
    assert [one.name for one in found if not one.ok and "does not answer" in one.said and one.mend] == list(asking)


def test_an_env_file_with_a_slip_is_one_line_and_nobody_is_asked():
    other = ROOT / "env" / "testslip.env"
    other.write_text((ROOT / "env" / "local.env").read_text().replace("MEMORY=", "MEMROY="))
    try:
        (one,) = doctor.walk(C, "testslip")
    finally:
        other.unlink()
    assert not one.ok and "MEMROY: MEMORY?" in one.said and "inv env.check --env testslip" in one.mend


def test_a_blocked_period_is_named_with_its_way_out(deployed):
    try:
        block(deployed, "2019-11")
        deadline = time.monotonic() + 20
        found = []
        while not found and time.monotonic() < deadline:
            found = [one for one in lines(doctor_service.periods, deployed) if "2019-11" in one.said]
        (one,) = found
    finally:
        url = f"{deployed['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state"
        request(deployed, "POST", url, {"object_key": "2019-11", "new_state": {}})
    assert not one.ok and "GNS_X" in one.said and "inv resolve --env local --period 2019-11" in one.mend


def test_a_paused_invocation_is_named_with_its_last_failure(cfg, monkeypatch):
    rows = [{"id": "inv_1", "target": "ClosingPeriod/2025-01/close"}]
    events = [{"event_json": json.dumps({"last_failure": "ORA-01017: no"})}]
    monkeypatch.setattr(doctor_service, "sql", lambda cfg, query: events if "sys_journal_events" in query else rows)
    (one,) = lines(doctor_service.paused, cfg)
    assert not one.ok and "is paused: ORA-01017: no" in one.said
    assert one.mend.endswith("restate invocations resume inv_1")
