"""inv doctor: walks the chain from the credentials to the running closings, a line each. Read only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from invoke import Exit, task

from env import closings, deploy, environment, live, ping, schedule, warm
from env.doors import aws, read, read_json, request, sql

# Of what the Oracle client and driver say: what it means, and the command that mends it.
ORACLE = {
    "DPI-1047": ("the client library cannot be loaded", "make layer publish ENV={env}, then inv deploy --env {env}"),
    "DPI-1050": ("the layer's client is older than 19.1", "make layer publish ENV={env} with a 19.x ZIP"),
    "DPY-3010": ("thin mode does not reach this old database", "ORACLE_CLIENT=thick in env/{env}.env, then inv deploy"),
    "ORA-12170": ("Genius' host does not answer", "let the security group out to Genius' port, and Genius' wall in"),
    "ORA-12541": ("no listener at Genius' port", "correct ORACLE_CONNECT_STRING in env/{env}.env, then inv deploy"),
    "ORA-12737": ("Basic Lite does not know the database's character set", "make layer of the Basic ZIP, publish it"),
    "ORA-01017": ("user or password is wrong", "correct ORACLE_PASSWORD of env/{env}.env, then inv deploy --env {env}"),
    "ORA-28000": ("the account is locked", "have Genius' administrator unlock it"),
}
LEAST_MEMORY = 1024


class Finding(NamedTuple):
    """One line: what was looked at, whether it is well, what was seen and the command that mends it."""

    name: str
    ok: bool
    said: str
    mend: str = ""


@task(help={"env": "a file name in env/, such as local", "json": "print JSON, for machines"})
def doctor(c, env, json=False):
    """Check the whole chain, from credentials to closings that wait for a person; exit 1 when anything is wrong."""
    cfg = environment.load(env)
    wrong = 0
    found = []
    for finding in examine(c, cfg, env):
        wrong += not finding.ok
        found.append(finding)
        if not json:
            print(line(finding), flush=True)
    if json:
        print(as_json(found))
    if wrong:
        raise Exit(code=1) if json else Exit(f"{env}: {wrong} of {len(found)} are wrong")


def as_json(found: list[Finding]) -> str:
    return json.dumps([finding._asdict() for finding in found], indent=2)


def line(finding: Finding) -> str:
    mend = f"; mend it: {finding.mend}" if finding.mend else ""
    return f"{'ok   ' if finding.ok else 'WRONG'} {finding.name:<12} {finding.said}{mend}"


def examine(c, cfg: dict, env: str) -> Iterator[Finding]:
    for name, check in CHECKS.items():
        try:
            for finding in check(c, cfg, env):
                yield finding._replace(name=name) if not finding.name else finding
        except Exit as error:
            yield Finding(name, False, str(error.message), MENDS.get(name, "").format(env=env))


def well(said: str) -> Finding:
    return Finding("", True, said)


def ill(said: str, mend: str) -> Finding:
    return Finding("", False, said, mend)


def credentials(c, cfg: dict, env: str) -> Iterator[Finding]:
    identity = read_json(c, cfg, aws(cfg, "sts get-caller-identity"))
    yield well(f"{identity['Arn']} in account {identity['Account']}")


def function(c, cfg: dict, env: str) -> Iterator[Finding]:
    """What is live, against the file: a version's configuration cannot be changed any more."""
    found = read_json(c, cfg, ping.get_live(cfg), missing="ResourceNotFoundException")
    if not found:
        yield ill(f"{cfg['FUNCTION_NAME']} has no version that is live", f"inv deploy --env {env}")
        return
    faults = list(judge_function(found, deploy.completed(c, cfg, env), env))
    yield from faults
    if not faults:
        yield well(f"version {found['Version']}, {found['Runtime']}, {found['MemorySize']} MB, {found['Timeout']} s")


def judge_function(found: dict, cfg: dict, env: str) -> Iterator[Finding]:
    mend = f"inv deploy --env {env}"
    wanted = {"Runtime": cfg["RUNTIME"], "Timeout": int(cfg["TIMEOUT"]), "MemorySize": int(cfg["MEMORY"])}
    for key, value in wanted.items():
        if found.get(key) != value:
            yield ill(f"{key} is {found.get(key)}, env/{env}.env says {value}", mend)
    if found["MemorySize"] < LEAST_MEMORY:
        change = f"MEMORY={LEAST_MEMORY} in env/{env}.env, then {mend}"
        yield ill(f"{found['MemorySize']} MB of memory, at least {LEAST_MEMORY} are needed", change)
    if found.get("LastUpdateStatus", "Successful") != "Successful":
        yield ill(f"its last update is {found['LastUpdateStatus']}: {found.get('LastUpdateStatusReason')}", mend)
    given = found.get("Environment", {}).get("Variables", {})
    target = environment.function_environment(cfg)
    differing = [key for key in sorted({*given, *target}) if given.get(key) != target.get(key)]
    if differing:
        yield ill(f"its environment differs from env/{env}.env in {', '.join(differing)}", mend)
    if cfg["ORACLE_CLIENT"] == "thick" and not found.get("Layers"):
        yield ill("no layer is attached, and thick mode needs Instant Client", f"make layer publish deploy ENV={env}")


def databases(c, cfg: dict, env: str) -> Iterator[Finding]:
    answer = ping.ask(c, cfg, env, {"ping": "deep"})
    for name in ("postgres", "oracle"):
        one = answer[name]
        if one["ok"]:
            yield Finding(name, True, f"{one['version']} in {one['seconds'] * 1000:.0f} ms")
        else:
            yield Finding(name, False, *explained(name, one["error"], env))
    if answer["postgres"]["ok"]:
        yield schema(c, cfg, env)


def schema(c, cfg: dict, env: str) -> Finding:
    try:
        ping.ask(c, cfg, env, {"history": 1})
    except Exit as error:
        return Finding("schema", False, str(error.message).splitlines()[0], f"inv schema --env {env}")
    return Finding("schema", True, f"closing_runs is in {cfg['PG_SCHEMA']}")


def explained(name: str, error: str, env: str) -> tuple[str, str]:
    """An error of a database with what it means and what mends it; its own words stay."""
    for code, (meaning, mend) in ORACLE.items():
        if re.search(rf"\b{code}\b", error):
            return f"{meaning}: {error}", mend.format(env=env)
    if "password authentication failed" in error:
        return error, f"correct PG_PASSWORD of env/{env}.env, then inv deploy --env {env}"
    where = "PG_HOST and PG_PORT" if name == "postgres" else "ORACLE_CONNECT_STRING"
    return error, f"see that {where} of env/{env}.env are right and the security group lets out to it; inv deploy"


def restate(c, cfg: dict, env: str) -> Iterator[Finding]:
    alias = read_json(c, cfg, warm.get_alias(cfg), missing="ResourceNotFoundException")
    status, _ = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")
    if status != 200:
        yield ill(f"{cfg['RESTATE_ADMIN_URL']} answered {status}", f"RESTATE_AUTH_TOKEN of env/{env}.env")
        return
    arn = f"{alias['AliasArn'].rpartition(':')[0]}:{alias['FunctionVersion']}" if alias else "no live version"
    found = live.find_deployment(cfg, arn)
    if not found:
        yield ill(f"{arn} is not registered", f"inv deploy --env {env}")
    elif "arn" in found and (found.get("assume_role_arn") or "") != cfg["RESTATE_INVOKE_ROLE_ARN"]:
        role = found.get("assume_role_arn") or "no role"
        yield ill(f"{arn} is registered with {role}", f"restate deployments register {arn} --force, with the role")
    else:
        yield well(f"{arn} is registered as {found['id']}")


def scheduler(c, cfg: dict, env: str) -> Iterator[Finding]:
    alive, said = schedule.chain(cfg, closings.state_of(cfg, schedule.SERVICE, schedule.KEY), env)
    yield well(said) if alive else ill(said.partition(";")[0], f"inv schedule start --env {env}")


def warmth(c, cfg: dict, env: str) -> Iterator[Finding]:
    fault = warm.wrong(warm.look(c, cfg), warm.live(c, cfg, env))
    yield ill(fault, f"inv warm on --env {env}") if fault else well("the live version is kept warm")


def periods(c, cfg: dict, env: str) -> Iterator[Finding]:
    rows = sql(
        cfg, "SELECT service_key, value_utf8 FROM state WHERE service_name = 'ClosingPeriod' AND key = 'blocked'"
    )
    for row in rows:
        known, key = json.loads(row["value_utf8"]), row["service_key"]
        said = f"{key} is blocked by {known['job']}: {closings.one_line(known['message'])}"
        yield ill(said, f"look in Genius, then inv resolve --env {env} --period {key} --as succeeded|failed")
    if not rows:
        yield well("no period is blocked")


def paused(c, cfg: dict, env: str) -> Iterator[Finding]:
    rows = sql(cfg, "SELECT id, target, last_failure FROM sys_invocation WHERE status = 'paused' ORDER BY created_at")
    for row in rows:
        why = row.get("last_failure") or last_failure(cfg, row["id"])
        said = f"{row['target']} {row['id']} is paused: {closings.one_line(why)}"
        yield ill(said, f"mend the cause, then restate invocations resume {row['id']}")
    if not rows:
        yield well("no invocation is paused")


def last_failure(cfg: dict, invocation: str) -> str:
    """A paused invocation shows its failure in the journal's events alone."""
    rows = sql(
        cfg, f"SELECT event_json FROM sys_journal_events WHERE id = '{invocation}' ORDER BY appended_at DESC LIMIT 1"
    )
    return str(json.loads(rows[0]["event_json"]).get("last_failure", rows[0]["event_json"])) if rows else "unknown"


def cli(c, cfg: dict, env: str) -> Iterator[Finding]:
    said = read(c, cfg, "aws --version")
    version = tuple(int(part) for part in re.search(r"aws-cli/(\d+)\.(\d+)", said).groups())
    # An older one of version 2 takes no notice of AWS_ENDPOINT_URL and goes to AWS itself.
    if version[0] == 2 and version < (2, 13):
        yield ill(f"{said.split()[0]} is too old", "make .venv/ready, which brings one of version 1")
    else:
        yield well(said.split()[0])


CHECKS: dict[str, Callable[..., Iterator[Finding]]] = {
    "cli": cli,
    "credentials": credentials,
    "function": function,
    "databases": databases,
    "restate": restate,
    "scheduler": scheduler,
    "warmth": warmth,
    "periods": periods,
    "paused": paused,
}
MENDS = {
    "credentials": "sign in, or name a profile as AWS_PROFILE in env/{env}.env",
    "databases": "inv logs --env {env} --since 1h",
    "restate": "see that RESTATE_ADMIN_URL of env/{env}.env is right and the server is up",
    "warmth": "inv deploy --env {env}",
}
