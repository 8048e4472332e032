"""The doctor's look at AWS: CLI, credentials, roles, function, network, keep-warm rule."""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from shlex import quote as q

from layer import publish as layers
from ops import deploy, keep_warm, ping, roles, shell
from ops.env_tasks import SHAPE
from ops.finding import Finding, change, ill, well
from ops.shell import aws, query, query_json
from ops.target import Target

LEAST_MEMORY = 1024
ORACLE_PORT = 1521


def describe_subnets(cfg):
    return aws(cfg, f"ec2 describe-subnets --subnet-ids {words(cfg['VPC_SUBNET_IDS'])}")


def describe_route_tables(cfg, vpc):
    return aws(cfg, f"ec2 describe-route-tables --filters Name=vpc-id,Values={q(vpc)}")


def describe_groups(cfg):
    return aws(cfg, f"ec2 describe-security-groups --group-ids {words(cfg['VPC_SECURITY_GROUP_IDS'])}")


def let_out(cfg, port: int, address: str | None) -> str:
    """To a host whose address is not known here, let out to any; its own wall is the narrower one."""
    group, to = deploy.listed(cfg["VPC_SECURITY_GROUP_IDS"])[0], f"{address}/32" if address else "0.0.0.0/0"
    return aws(
        cfg, f"ec2 authorize-security-group-egress --group-id {q(group)} --protocol tcp --port {port} --cidr {to}"
    )


def words(names: str) -> str:
    return " ".join(map(q, deploy.listed(names)))


def cli(c, cfg: dict, env: str) -> Iterator[Finding]:
    said = query(c, cfg, "aws --version")
    version = tuple(int(part) for part in re.search(r"aws-cli/(\d+)\.(\d+)", said).groups())
    # An older one of version 2 takes no notice of AWS_ENDPOINT_URL and goes to AWS itself.
    if version[0] == 2 and version < shell.HEEDS_ENDPOINT:
        yield ill(f"{said.split()[0]} is too old", "make .venv/ready, which brings one of version 1")
    elif not shutil.which("restate", path=shell.command_environment(cfg)["PATH"]):
        yield ill("the restate CLI, by which a deploy registers, is not here", "inv local.tools")
    else:
        yield well(said.split()[0])


def credentials(c, cfg: dict, env: str) -> Iterator[Finding]:
    identity = query_json(c, cfg, aws(cfg, "sts get-caller-identity"))
    yield from judge_account(identity, cfg, env)


def judge_account(identity: dict, cfg: dict, env: str) -> Iterator[Finding]:
    """The role that Restate assumes is of the function's account, so it tells which account is meant."""
    meant = cfg["RESTATE_INVOKE_ROLE_ARN"].split(":")[4:5]
    if meant and meant != [identity["Account"]]:
        said = f"{identity['Arn']} is of account {identity['Account']}, RESTATE_INVOKE_ROLE_ARN of {meant[0]}"
        yield ill(said, f"name a profile of account {meant[0]}: {change(env, 'AWS_PROFILE', 'PROFILE')}")
    else:
        yield well(f"{identity['Arn']} in account {identity['Account']}")


def role(c, cfg: dict, env: str) -> Iterator[Finding]:
    """Each role of the environment, its trust and its policies, against policies/."""
    account = roles.found_account(Target(c, cfg, env), None)
    wanted = roles.planned(cfg)
    for name, trust, policies in wanted:
        found = roles.look(Target(c, cfg, env), name)
        if not found:
            yield ill(f"there is no role {name}", f"inv roles --env {env}")
            continue
        known = {**cfg, "ENVIRONMENT": env}
        differing = list(roles.differences(Target(c, known, env), account, found["Arn"], found, trust, policies))
        for one in differing:
            yield ill(one.said, f"inv roles --env {env}")
        if not differing:
            yield well(f"{name} is as policies/ says")


def function(c, cfg: dict, env: str) -> Iterator[Finding]:
    """What is live, against the file: a version's configuration cannot be changed any more."""
    found = query_json(c, cfg, ping.get_live(cfg), missing="ResourceNotFoundException")
    if not found:
        yield ill(f"{cfg['FUNCTION_NAME']} has no version that is live", f"inv deploy --env {env}")
        return
    cfg = deploy.completed(Target(c, cfg, env)).cfg
    faults = list(judge_function(found, {**cfg, "LAYER_VERSION_ARN": layers.attached(Target(c, cfg, env))}, env))
    yield from faults
    if not faults:
        yield well(f"version {found['Version']}, {found['Runtime']}, {found['MemorySize']} MB, {found['Timeout']} s")


def judge_function(found: dict, cfg: dict, env: str) -> Iterator[Finding]:
    """cfg: with LAYER_VERSION_ARN as a deploy would attach it."""
    mend = f"inv deploy --env {env}"
    role_arn = f"{found['Role'].rpartition('/')[0]}/{cfg['ROLE_NAME']}"
    parts = deploy.differs(found, cfg, role_arn)
    for part in [part for part in parts if part in SHAPE and part != "Layers"]:
        yield ill(f"{part} is {found.get(part)}, env/{env}.env says {cfg[SHAPE[part]]}", mend)
    if found["MemorySize"] < LEAST_MEMORY:
        more = f"{change(env, 'MEMORY', str(LEAST_MEMORY))} && {mend}"
        yield ill(f"{found['MemorySize']} MB of memory, at least {LEAST_MEMORY} are needed", more)
    if found.get("LastUpdateStatus", "Successful") != "Successful":
        yield ill(f"its last update is {found['LastUpdateStatus']}: {found.get('LastUpdateStatusReason')}", mend)
    if "Layers" in parts:
        there = ", ".join(one["Arn"] for one in found.get("Layers") or []) or "none"
        yield ill(f"the layer is {there}, and {cfg['LAYER_VERSION_ARN'] or 'none'} is wanted", mend)
    for part, what in (("Role", "role"), ("VpcConfig", "network"), ("Handler", "handler")):
        if part in parts:
            yield ill(f"its {what} is not as env/{env}.env says: {found.get(part)}", mend)
    differing = [part for part in parts if part not in (*SHAPE, "Role", "VpcConfig", "Handler")]
    if differing:
        yield ill(f"its environment differs from env/{env}.env in {', '.join(differing)}", mend)


def network(c, cfg: dict, env: str) -> Iterator[Finding]:
    """Whether the function's subnets and groups let it get to both databases."""
    if not cfg["VPC_SUBNET_IDS"]:
        yield well("the function is in no VPC")
        return
    cfg = deploy.completed(Target(c, cfg, env)).cfg
    subnets = query_json(c, cfg, describe_subnets(cfg))["Subnets"]
    tables = query_json(c, cfg, describe_route_tables(cfg, subnets[0]["VpcId"]))["RouteTables"]
    groups = query_json(c, cfg, describe_groups(cfg))["SecurityGroups"]
    faults = []
    for host, port in databases(cfg):
        address = address_of(host)
        faults += judge_routes(subnets, tables, cfg, host, address)
        if not any(lets_out(group, port, address) for group in groups):
            named = cfg["VPC_SECURITY_GROUP_IDS"]
            faults.append(ill(f"{named} lets nothing out to {host}:{port}", let_out(cfg, port, address)))
    yield from dict.fromkeys(faults)
    if not faults:
        yield well(f"{len(subnets)} subnets and {len(groups)} groups let out to both databases")


def databases(cfg: dict) -> list[tuple[str, int]]:
    """Host and port of PostgreSQL and of Oracle, the latter of an Easy Connect string or a descriptor."""
    text = cfg["ORACLE_CONNECT_STRING"]
    host = re.search(r"HOST\s*=\s*([^)\s]+)", text, re.IGNORECASE) or re.match(r"(?:\w+:)?/*([^:/]+)", text)
    number = re.search(r"PORT\s*=\s*(\d+)", text, re.IGNORECASE) or re.search(r":(\d+)", text)
    oracle = (host[1], int(number[1]) if number else ORACLE_PORT)
    return [(cfg["PG_HOST"], int(cfg["PG_PORT"])), oracle]


def address_of(host: str) -> str | None:
    """A host's IPv4 address as far as this machine can tell; names of a private zone it cannot."""
    with suppress(OSError):
        return socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
    return None


def judge_routes(subnets: list, tables: list, cfg: dict, host: str, address: str | None) -> Iterator[Finding]:
    for subnet in subnets:
        table = table_of(subnet["SubnetId"], tables)
        if not any(leads(route, address) for route in table["Routes"]):
            way = aws(
                cfg,
                f"ec2 create-route --route-table-id {table['RouteTableId']}"
                " --destination-cidr-block 0.0.0.0/0 --nat-gateway-id NAT",
            )
            yield ill(f"{subnet['SubnetId']} has no route to {host}", f"{way}, with the NAT gateway of its VPC")


def table_of(subnet: str, tables: list) -> dict:
    """The route table that a subnet is associated with, or else the VPC's main one."""
    named = (one for one in tables if any(a.get("SubnetId") == subnet for a in one["Associations"]))
    main = (one for one in tables if any(a.get("Main") for a in one["Associations"]))
    return next(named, None) or next(main, {"RouteTableId": "none", "Routes": []})


def leads(route: dict, address: str | None) -> bool:
    """Whether a route takes a function to an address; to one that is not known only a way out of the VPC does.

    An internet gateway does not: a function's network interface has no public address.
    """
    if route.get("State") == "blackhole" or (route.get("GatewayId") or "").startswith("igw-"):
        return False
    cidr = route.get("DestinationCidrBlock")
    if address is None:
        return cidr is not None and route.get("GatewayId") != "local"
    return cidr is not None and ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def lets_out(group: dict, port: int, address: str | None) -> bool:
    """Whether a group's egress has a rule for TCP to a port of an address; one to another group may be it."""
    return any(
        rule["IpProtocol"] in ("-1", "6", "tcp")
        and (rule["IpProtocol"] == "-1" or rule["FromPort"] <= port <= rule["ToPort"])
        and (rule.get("UserIdGroupPairs") or rule.get("PrefixListIds") or any(holds(rule, address)))
        for rule in group["IpPermissionsEgress"]
    )


def holds(rule: dict, address: str | None) -> Iterator[bool]:
    for one in rule.get("IpRanges") or []:
        yield address is None or ipaddress.ip_address(address) in ipaddress.ip_network(one["CidrIp"])


def warmth(c, cfg: dict, env: str) -> Iterator[Finding]:
    fault = keep_warm.wrong(keep_warm.look(Target(c, cfg, env)), keep_warm.live(Target(c, cfg, env)))
    yield ill(fault, f"inv keep-warm on --env {env}") if fault else well("the live version is kept warm")
