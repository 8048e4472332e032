"""The doctor's look at what runs: the function's own word on both databases, Restate, the schedule, the closings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ops import closings, commands, deploy, ping, release, schedule
from ops.doctor_aws import address_of, databases, let_out
from ops.finding import Finding, change, ill, well
from ops.shell import query_json, request, sql
from ops.target import Target

PUBLISH = "make layer publish deploy ENV={env}"
THICK = change("{env}", "ORACLE_CLIENT", "thick")
# Of what the Oracle client and driver say: what it means, and the command that mends it.
ORACLE = {
    "DPI-1047": ("the client library cannot be loaded", PUBLISH),
    "DPI-1050": (
        "the layer's client is older than 19.1",
        f"{PUBLISH} INSTANT_CLIENT=instantclient-basiclite-linux.x64-19….zip",
    ),
    "DPY-3010": ("thin mode does not reach this old database", f"{THICK} && {PUBLISH}"),
    "ORA-12170": ("Genius' host does not answer", "{let_out}, and have Genius' own wall let the function in"),
    "ORA-12541": (
        "no listener at Genius' port",
        "correct ORACLE_CONNECT_STRING in env/{env}.env, then inv deploy --env {env}",
    ),
    "ORA-12737": (
        "Basic Lite does not know the database's character set",
        f"{PUBLISH} INSTANT_CLIENT=instantclient-basic-linux.x64-19….zip",
    ),
    "ORA-01017": (
        "user or password is wrong",
        "correct ORACLE_PASSWORD where env/{env}.env has it from, then inv deploy --env {env}",
    ),
    "ORA-28000": ("the account is locked", "have Genius' administrator run ALTER USER {user} ACCOUNT UNLOCK"),
}
# https://docs.oracle.com/en/database/oracle/oracle-database/19/lnoci/instant-client.html, of 19's Basic Lite.
BASIC_LITE = {"US7ASCII", "WE8DEC", "WE8MSWIN1252", "WE8ISO8859P1", "WE8EBCDIC37C", "WE8EBCDIC1047", "UTF8", "AL32UTF8"}
# The data library of Basic, which knows every character set.
BASIC_DATA = "libociei.so"
LIBRARIES = ("libclntsh.so", "libaio.so.1", "libnsl.so.1")
RIGHTS = {
    "CREATE JOB": "GRANT CREATE JOB TO {user}",
    "EXECUTE": "GRANT EXECUTE ON Package_Rpt_Ac_Fi806 TO {user}",
}


def ping_deep(c, cfg: dict, env: str) -> Iterator[Finding]:
    """One deep ping, and what its answer tells of the client, both databases, the schema and the rights."""
    cfg = deploy.completed(Target(c, cfg, env)).cfg
    answer = ping.ask(c, cfg, env, {"ping": "deep"})
    temper = "cold" if answer["cold"] else "warm"
    yield well(f"version {answer['version']} answers, {temper}, up {answer['uptimeSeconds']:.0f} s", "ping")
    yield judge_client(answer["client"], env)
    postgres, oracle = answer["postgres"], answer["oracle"]
    for name, one in (("postgres", postgres), ("oracle", oracle)):
        if one["ok"]:
            yield well(f"{one['version']} in {one['seconds'] * 1000:.0f} ms", name)
        else:
            yield ill(*explained(name, one["error"], cfg, env), name)
    if postgres["ok"]:
        yield from schema(postgres, cfg, env)
    if oracle["ok"]:
        yield judge_character_set(oracle["characterSet"], answer["client"], env)
        yield judge_rights(oracle["rights"], cfg)


def judge_client(client: dict, env: str) -> Finding:
    """Whether the function itself sees all that thick mode needs of the layer."""
    if client["mode"] == "thin":
        return well("thin mode, which needs no layer", "layer")
    there = client["libraries"]
    missing = [name for name in LIBRARIES if name not in there]
    if not any(re.fullmatch(r"libclntsh\.so\.\d+\.\d+", name) for name in there):
        missing.append("libclntsh.so.VERSION")
    if missing:
        return ill(f"the function has no {', '.join(missing)}", PUBLISH.format(env=env), "layer")
    return well(f"Instant Client {client['version'] or 'of no known version'}, {len(there)} libraries", "layer")


def judge_character_set(name: str, client: dict, env: str) -> Finding:
    if client["mode"] == "thin" or name in BASIC_LITE or BASIC_DATA in client["libraries"]:
        return well(name, "charset")
    meaning, mend = ORACLE["ORA-12737"]
    return ill(f"{meaning}, {name}: ORA-12737 is what thick mode says to it", mend.format(env=env), "charset")


def judge_rights(rights: list[str], cfg: dict) -> Finding:
    missing = [right for right in RIGHTS if right not in rights]
    if not missing:
        return well(f"{cfg['ORACLE_USER']} has {' and '.join(RIGHTS)} of its own", "rights")
    grants = "; ".join(RIGHTS[right] for right in missing).format(user=cfg["ORACLE_USER"])
    return ill(f"{cfg['ORACLE_USER']} lacks {' and '.join(missing)}", f"have Genius' owner run {grants}", "rights")


def schema(answer: dict, cfg: dict, env: str) -> Iterator[Finding]:
    """What the function itself finds wrong with tables, columns, function, encoding and grants."""
    for fault in answer["faults"]:
        yield ill(fault, f"inv schema --env {env}", "schema")
    if not answer["faults"]:
        yield well(f"tables, columns, function, encoding and grants of {cfg['PG_SCHEMA']} are as expected", "schema")


def explained(name: str, error: str, cfg: dict, env: str) -> tuple[str, str]:
    """An error of a database with what it means and what mends it; its own words stay."""
    given = {"env": env, "user": cfg["ORACLE_USER"], "let_out": way_out(cfg, name)}
    for code, (meaning, mend) in ORACLE.items():
        if re.search(rf"\b{code}\b", error):
            return f"{meaning}: {error}", mend.format(**given)
    if "password authentication failed" in error:
        return error, f"correct PG_PASSWORD where env/{env}.env has it from, then inv deploy --env {env}"
    where = "PG_HOST and PG_PORT" if name == "postgres" else "ORACLE_CONNECT_STRING"
    return error, f"see that {where} of env/{env}.env are right, then inv deploy --env {env}; or {given['let_out']}"


def way_out(cfg: dict, name: str) -> str:
    """The command that lets the function out to a database, where it is in a VPC."""
    host, port = databases(cfg)[0 if name == "postgres" else 1]
    if not cfg["VPC_SECURITY_GROUP_IDS"]:
        return f"see that {host}:{port} is reached from outside a VPC"
    return let_out(cfg, port, address_of(host))


def restate(c, cfg: dict, env: str) -> Iterator[Finding]:
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")
    if status != 200:
        said = f"{cfg['RESTATE_ADMIN_URL']} answered {status}: {closings.one_line(closings.message(answer))}"
        yield ill(said, f"correct RESTATE_AUTH_TOKEN where env/{env}.env has it from")
        return
    alias = query_json(c, cfg, commands.get_alias(cfg), missing="ResourceNotFoundException")
    arn = release.held_by(alias) if alias else "no live version"
    found = release.find_deployment(cfg, arn)
    if not found:
        yield ill(f"{arn} is not registered", f"inv deploy --env {env}")
    elif "arn" in found and (found.get("assume_role_arn") or "") != cfg["RESTATE_INVOKE_ROLE_ARN"]:
        known, wanted = found.get("assume_role_arn") or "no role", cfg["RESTATE_INVOKE_ROLE_ARN"] or "none"
        yield ill(f"{arn} is registered with {known}, {wanted} is wanted", commands.register(cfg, arn, again=True))
    elif found["id"] != release.newest(cfg):
        yield ill(f"Restate starts closings on {release.newest(cfg)}, not on {arn}", f"inv deploy --env {env}")
    else:
        yield well(f"{arn} is registered as {found['id']}, and closings start on it")


def scheduler(c, cfg: dict, env: str) -> Iterator[Finding]:
    alive, said = schedule.chain(cfg, closings.state_of(cfg, schedule.SERVICE, schedule.KEY), env)
    yield well(said) if alive else ill(said.partition(";")[0], f"inv schedule start --env {env}")


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
