"""What makes a published version live: its registration with Restate, the alias `live`, and a ping of it."""

from __future__ import annotations

import contextlib
import json
import time

from invoke import Exit

from env import commands, doors
from env.closings import message, one_line
from env.doors import ROOT, read_json, request, stage, write

# A new role needs about a minute until Restate can use it.
PROPAGATION_SECONDS, PAUSE_SECONDS = 90, 5


def take(c, cfg, env, version_arn, breaking, before) -> None:
    """Make a version live, compare before and ask after; Exit says what is live then and what mends it.

    before: doors.changes when the task began; where nothing has changed, nothing is asked.
    """
    mend = f"inv deploy --env {env}"
    try:
        found = find_deployment(cfg, version_arn)
        if not found or found["id"] != newest(cfg):
            if not (c.config.run.dry and version_arn.endswith(":NEXT")):
                refuse_removed_handlers(cfg, version_arn, breaking)
            ensure_registered(c, cfg, version_arn, again=bool(found))
        ensure_alias(c, cfg, version_arn.rpartition(":")[2])
        if doors.changes > before:
            mend = f"inv rollback --env {env}"
            smoke(c, cfg, version_arn)
    except Exit as error:
        raise Exit(f"{str(error).rstrip('.')}. {what_is_live(c, cfg)}; `{mend}` mends it") from None


def what_is_live(c, cfg) -> str:
    """Half a line on which versions pings and Restate reach now; as much as can be seen."""
    alias = restate = "nobody knows which"
    with contextlib.suppress(Exit):
        found = read_json(c, cfg, commands.get_alias(cfg), missing="ResourceNotFoundException")
        alias = found["FunctionVersion"] if found else "none"
    with contextlib.suppress(Exit):
        arns = {one["id"]: one.get("arn", one["id"]) for one in deployments(cfg)} | {"": "none"}
        restate = arns[newest(cfg)].rpartition(":")[2]
    return f"Live now: the alias has version {alias}, Restate starts closings on version {restate}"


def newest(cfg) -> str:
    """The deployment on which Restate starts closings; "" before the first one."""
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/services/DailyClosing")
    return answer["deployment_id"] if status == 200 else ""


def refuse_removed_handlers(cfg, version_arn, breaking) -> None:
    """Restate takes a version that lacks a handler without a word, and its callers then fail.

    Only the services that a version of this function serves are compared.
    """
    new = discover(cfg, version_arn)
    ours = {one["id"] for one in deployments(cfg) if function_of(one.get("arn", "")) == function_of(version_arn)}
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/services")
    if status != 200:
        raise Exit(f"Restate's admin API at {cfg['RESTATE_ADMIN_URL']} answered {status}: {one_line(message(answer))}")
    gone = [
        f"{service['name']}/{handler['name']}"
        for service in answer["services"]
        if service["deployment_id"] in ours
        for handler in service["handlers"]
        if handler["name"] not in new.get(service["name"], ())
    ]
    if gone and not breaking:
        raise Exit(
            f"{version_arn} no longer has {', '.join(sorted(gone))}, and calls of it would fail; keep the handler, or"
            " say --breaking. Nothing was registered"
        )


def discover(cfg, version_arn) -> dict[str, set[str]]:
    """The handlers of a version by service, as Restate itself discovers them; nothing is registered by it."""
    body = {"arn": version_arn, "dry_run": True}
    if cfg["RESTATE_INVOKE_ROLE_ARN"]:
        body["assume_role_arn"] = cfg["RESTATE_INVOKE_ROLE_ARN"]
    deadline = time.monotonic() + PROPAGATION_SECONDS
    while True:
        status, answer = request(cfg, "POST", f"{cfg['RESTATE_ADMIN_URL']}/v3/deployments", body)
        if status < 300:
            return {one["name"]: {handler["name"] for handler in one["handlers"]} for one in answer["services"]}
        said = one_line(message(answer))[:300]
        if "META0003" not in said or not cfg["RESTATE_INVOKE_ROLE_ARN"] or time.monotonic() > deadline:
            raise Exit(f"Restate refused {version_arn} with {status}: {said}")
        print(f"Restate does not reach {version_arn} yet; a new role takes about a minute")
        time.sleep(PAUSE_SECONDS)


def smoke(c, cfg, version_arn) -> None:
    """Ping what is live now; Exit unless this version answers."""
    answer = invoke_event(c, cfg, {"ping": True})
    if answer and (not answer.get("ok") or str(answer.get("version")) != version_arn.rpartition(":")[2]):
        raise Exit(f"the ping of the live version was answered by {answer}, expected {version_arn}")


def function_of(arn: str) -> str:
    """A version's ARN without its number."""
    return arn.rpartition(":")[0]


def deployments(cfg) -> list[dict]:
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")
    if status != 200:
        raise Exit(f"Restate's admin API at {cfg['RESTATE_ADMIN_URL']} answered {status}: {answer}")
    return answer["deployments"]


def ensure_registered(c, cfg, version_arn, again=False) -> None:
    """Register a version's ARN with Restate and read it back: to Restate an option it does not know is no error.

    again: it is registered and something else has been since; without --force Restate would leave it at that.
    """
    write(c, cfg, commands.register(cfg, version_arn, again))
    if c.config.run.dry:
        return
    deployment = find_deployment(cfg, version_arn)
    if not deployment:
        raise Exit(f"Restate does not list {version_arn} after its registration; run the deploy again")
    role = deployment.get("assume_role_arn") or ""
    if role != cfg["RESTATE_INVOKE_ROLE_ARN"]:
        raise Exit(f"Restate registered {version_arn} with role {role!r}, not {cfg['RESTATE_INVOKE_ROLE_ARN']!r}")


def find_deployment(cfg, version_arn) -> dict | None:
    return next((one for one in deployments(cfg) if one.get("arn") == version_arn), None)


def ensure_alias(c, cfg, version) -> None:
    """Point the alias `live` to a version: pings and keep-warm calls go to what Restate invokes."""
    found = read_json(c, cfg, commands.get_alias(cfg), missing="ResourceNotFoundException")
    if found and found["FunctionVersion"] == version:
        return
    write(c, cfg, commands.move_alias(cfg, "update" if found else "create", version))


def invoke_event(c, cfg, event: dict) -> dict:
    """Send one of our own events to the live version and return its answer; empty under --dry."""
    payload, answer = "build/event.json", "build/answer.json"
    stage(c, cfg, commands.save_json(event, payload))
    said = write(c, cfg, commands.invoke_function(cfg, payload, answer))
    if not said:
        return {}
    result = json.loads((ROOT / answer).read_text())
    if "FunctionError" in json.loads(said):
        raise Exit(f"the function failed: {result.get('errorMessage', result)}")
    return result
