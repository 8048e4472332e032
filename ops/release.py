"""What makes a published version live: its registration with Restate, the alias `live`, and a ping of it.

Restate calls a version by its ARN, or, with FUNCTION_URL=on, whatever the alias holds by the alias' URL.
"""

from __future__ import annotations

import contextlib
import json
import time
from shlex import quote as q

from invoke import Exit

from ops import commands, function_url, shell
from ops.closings import curl, message, one_line
from ops.shell import ROOT, execute, query_json, request, run_local, sql

# A new role needs about a minute until Restate can use it.
PROPAGATION_SECONDS, PAUSE_SECONDS = 90, 5
# Latest of no service, and no invocation that has not ended began on it; paused and suspended ones have not ended.
DRAINED = (
    "SELECT d.id FROM sys_deployment d WHERE d.id NOT IN (SELECT deployment_id FROM sys_service) AND d.id NOT IN"
    " (SELECT pinned_deployment_id FROM sys_invocation_status WHERE pinned_deployment_id IS NOT NULL"
    " AND status != 'completed')"
)


def take(c, cfg, env, version_arn, breaking, before) -> None:
    """Make a version live, compare before and ask after; Exit says what is live then and what mends it.

    before: shell.changes when the task began; where nothing has changed, nothing is asked.
    """
    mend = f"inv deploy --env {env}"
    try:
        if by_url(cfg):
            take_by_url(c, cfg, env, version_arn, breaking)
        else:
            take_by_arn(c, cfg, env, version_arn, breaking)
        if shell.changes > before:
            mend = f"inv rollback --env {env}"
            smoke(c, cfg, version_arn)
    except Exit as error:
        raise Exit(f"{str(error).rstrip('.')}. {what_is_live(c, cfg)}; `{mend}` mends it") from None


def by_url(cfg) -> bool:
    return cfg["FUNCTION_URL"] == "on"


def take_by_arn(c, cfg, env, version_arn, breaking) -> None:
    found = find_deployment(cfg, version_arn)
    if not found or found["id"] != newest(cfg):
        if not unpublished(c, version_arn):
            refuse_removed_handlers(cfg, version_arn, breaking, discover(cfg, version_arn))
        ensure_registered(c, cfg, version_arn, again=bool(found))
    borne = ensure_alias(c, cfg, version_arn)
    ensure_concurrency(c, cfg, borne)
    if "FUNCTION_URL=on" in borne and not leave_url(c, cfg, env, version_arn):
        return
    settle_alias(c, cfg, borne)


def take_by_url(c, cfg, env, version_arn, breaking) -> None:
    """The alias goes first: Restate discovers what is behind it, so the version itself is asked for its handlers."""
    found = find_deployment(cfg, version_arn)
    registered = found["uri"].rstrip("/") if found and found["id"] == newest(cfg) else ""
    if not registered and not unpublished(c, version_arn):
        refuse_removed_handlers(cfg, version_arn, breaking, handlers_of(c, cfg, version_arn))
    borne = ensure_alias(c, cfg, version_arn)
    ensure_concurrency(c, cfg, borne)
    url = function_url.ensure(c, cfg)
    if not registered or registered != url:
        ensure_registered_url(c, cfg, url or "URL", version_arn)
    settle_alias(c, cfg, borne)
    print(
        f"{env}: Restate calls {url or 'the new URL'}, which always runs the newest code, in a running closing, too."
        " Only calls that Restate has signed are answered"
    )


def unpublished(c, version_arn) -> bool:
    """Whether a version is one that a rehearsal would have published."""
    return c.config.run.dry and version_arn.endswith(":NEXT")


def what_is_live(c, cfg) -> str:
    """Half a line on which versions pings and Restate reach now; as much as can be seen."""
    alias = restate = "nobody knows which"
    with contextlib.suppress(Exit):
        found = query_json(c, cfg, commands.get_alias(cfg), missing="ResourceNotFoundException")
        alias = found["FunctionVersion"] if found else "none"
    with contextlib.suppress(Exit):
        arns = {one["id"]: arn_of(one) or one["id"] for one in deployments(cfg)} | {"": "none"}
        restate = arns[newest(cfg)].rpartition(":")[2]
    return f"Live now: the alias has version {alias}, Restate starts closings on version {restate}"


def newest(cfg) -> str:
    """The deployment on which Restate starts closings; "" before the first one."""
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/services/DailyClosing")
    return answer["deployment_id"] if status == 200 else ""


def refuse_removed_handlers(cfg, version_arn, breaking, new: dict[str, set[str]]) -> None:
    """Restate takes a version that lacks a handler without a word, and its callers then fail.

    Only the services that a version of this function serves are compared. new: the version's handlers by service.
    """
    ours = {one["id"] for one in deployments(cfg) if function_of(arn_of(one)) == function_of(version_arn)}
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
    return ask_discovery(cfg, version_arn, body, patient=bool(cfg["RESTATE_INVOKE_ROLE_ARN"]))


def ask_discovery(cfg, known_as: str, body: dict, patient: bool) -> dict[str, set[str]]:
    """patient: what Restate does not reach yet, it may reach within a minute."""
    deadline = time.monotonic() + PROPAGATION_SECONDS
    while True:
        status, answer = request(cfg, "POST", f"{cfg['RESTATE_ADMIN_URL']}/v3/deployments", body)
        if status < 300:
            return {one["name"]: {handler["name"] for handler in one["handlers"]} for one in answer["services"]}
        said = one_line(message(answer))[:300]
        if "META0003" not in said or not patient or time.monotonic() > deadline:
            raise Exit(f"Restate refused {known_as} with {status}: {said}")
        print(f"Restate does not reach {known_as} yet; a new role takes about a minute")
        time.sleep(PAUSE_SECONDS)


def handlers_of(c, cfg, version_arn) -> dict[str, set[str]]:
    """The handlers of a version by service, as it says itself; a rehearsal asks nobody."""
    answer = invoke_event(c, cfg, {"handlers": True}, version_arn.rpartition(":")[2])
    return {service: set(names) for service, names in answer["handlers"].items()} if answer else {}


def smoke(c, cfg, version_arn) -> None:
    """Ping what is live now; Exit unless this version answers."""
    answer = invoke_event(c, cfg, {"ping": True})
    if answer and (not answer.get("ok") or str(answer.get("version")) != version_arn.rpartition(":")[2]):
        raise Exit(f"the ping of the live version was answered by {answer}, expected {version_arn}")


def function_of(arn: str) -> str:
    """The ARN of a version or an alias without its number or name."""
    return arn.rpartition(":")[0]


def held_by(alias: dict) -> str:
    """The ARN of the version that an alias holds."""
    return f"{function_of(alias['AliasArn'])}:{alias['FunctionVersion']}"


def deployments(cfg) -> list[dict]:
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")
    if status != 200:
        mend = "; see that RESTATE_AUTH_TOKEN is right" if status in (401, 403) else ""
        raise Exit(
            f"Restate's admin API at {cfg['RESTATE_ADMIN_URL']} answered {status}: {one_line(message(answer))}{mend}"
        )
    return answer["deployments"]


def ensure_registered(c, cfg, version_arn, again=False) -> None:
    """Register a version's ARN with Restate and read it back: to Restate an option it does not know is no error.

    again: it is registered and something else has been since; without --force Restate would leave it at that.
    """
    execute(c, cfg, commands.register(cfg, version_arn, again))
    if c.config.run.dry:
        return
    deployment = find_deployment(cfg, version_arn)
    if not deployment:
        raise Exit(f"Restate does not list {version_arn} after its registration; run the deploy again")
    role = deployment.get("assume_role_arn") or ""
    if role != cfg["RESTATE_INVOKE_ROLE_ARN"]:
        raise Exit(f"Restate registered {version_arn} with role {role!r}, not {cfg['RESTATE_INVOKE_ROLE_ARN']!r}")


def ensure_registered_url(c, cfg, url, version_arn) -> None:
    """Register the URL anew, with the handlers of the version that is behind it now."""
    if not c.config.run.dry:
        body = {"uri": url, "use_http_11": True, "force": True, "dry_run": True}
        ask_discovery(cfg, url, body, patient=True)
    execute(c, cfg, commands.register_url(url, version_arn))
    if c.config.run.dry:
        return
    found = find_deployment(cfg, version_arn)
    if not found or found["uri"].rstrip("/") != url:
        raise Exit(f"Restate does not list {url} with {version_arn} after its registration; run the deploy again")
    function_url.refuse_open(url)


def arn_of(deployment: dict) -> str:
    """The version of a registration; of a URL, the one that was behind it when it was registered. "" of others."""
    return deployment.get("arn") or (deployment.get("metadata") or {}).get("arn", "")


def find_deployment(cfg, version_arn) -> dict | None:
    """The registration of a version in the way in which the environment wants it called."""
    return next(
        (one for one in deployments(cfg) if arn_of(one) == version_arn and ("uri" in one) == by_url(cfg)),
        None,
    )


def borne_by(cfg) -> str:
    """What hangs on the alias, as its description says: a deploy looks for no more than was ever there."""
    words = ["FUNCTION_URL=on"] if by_url(cfg) else []
    if int(cfg["PROVISIONED_CONCURRENCY"]):
        words.append(f"PROVISIONED_CONCURRENCY={cfg['PROVISIONED_CONCURRENCY']}")
    return " ".join(words)


def ensure_alias(c, cfg, version_arn) -> str:
    """Point the alias `live` to a version: pings and keep-warm calls go to what Restate invokes.

    Returns its description: what hangs on it, and what hung on it before and may have to go.
    """
    version = version_arn.rpartition(":")[2]
    found = query_json(c, cfg, commands.get_alias(cfg), missing="ResourceNotFoundException")
    if not found:
        execute(c, cfg, commands.move_alias(cfg, "create", version, borne_by(cfg) or None))
        return borne_by(cfg)
    borne = " ".join(sorted({*found.get("Description", "").split(), *borne_by(cfg).split()}))
    if (found["FunctionVersion"], found.get("Description", "")) != (version, borne):
        update_alias(c, cfg, version, borne, found)
    return borne


def update_alias(c, cfg, version, description, found) -> None:
    """found: the alias as it was looked at; Exit where somebody else has moved it since."""
    file = "build/alias-revision"
    run_local(c, cfg, commands.save_alias_revision(cfg, file))
    if not c.config.run.dry and (ROOT / file).read_text().split()[1] != found["FunctionVersion"]:
        raise Exit("somebody else has moved the alias live meanwhile; look with `inv versions`, then run it again")
    changed = description if description != found.get("Description", "") else None
    execute(c, cfg, commands.move_alias(cfg, "update", version, changed, file))


def settle_alias(c, cfg, borne: str) -> None:
    """Let the alias' description say what hangs on it now."""
    if borne == borne_by(cfg):
        return
    found = query_json(c, cfg, commands.get_alias(cfg))
    update_alias(c, cfg, found["FunctionVersion"], borne_by(cfg), found)


def ensure_concurrency(c, cfg, borne: str) -> None:
    """Have as many sandboxes ready as the environment says, and wait until they are."""
    wanted = int(cfg["PROVISIONED_CONCURRENCY"])
    if not wanted and "PROVISIONED_CONCURRENCY=" not in borne:
        return
    found = query_json(c, cfg, commands.get_concurrency(cfg), missing="NotFoundException") or {}
    if not wanted:
        if found:
            execute(c, cfg, commands.delete_concurrency(cfg))
        return
    if found.get("RequestedProvisionedConcurrentExecutions") != wanted:
        execute(c, cfg, commands.put_concurrency(cfg))
    elif found["Status"] == "READY":
        return
    execute(c, cfg, commands.wait_for_concurrency(cfg))
    found = query_json(c, cfg, commands.get_concurrency(cfg), missing="NotFoundException")
    if found and found["Status"] == "FAILED":
        raise Exit(f"AWS keeps no {wanted} sandboxes ready: {found.get('StatusReason')}")


def leave_url(c, cfg, env, version_arn) -> bool:
    """Take the URL and its registration away once nothing runs on it; whether it is gone."""
    ours = [one for one in deployments(cfg) if "uri" in one and function_of(arn_of(one)) == function_of(version_arn)]
    drained = {row["id"] for row in sql(cfg, DRAINED)}
    if not c.config.run.dry and any(one["id"] not in drained for one in ours):
        print(f"{env}: the Function URL stays until the closings that began on it have ended; then deploy again")
        return False
    for one in ours:
        delete_deployment(c, cfg, one["id"])
    function_url.remove(c, cfg)
    return True


def delete_deployment(c, cfg, identity: str) -> None:
    """Restate deletes with force alone, and then checks nothing: whoever calls this has checked."""
    url = f"{cfg['RESTATE_ADMIN_URL']}/deployments/{identity}?force=true"
    shell.changes += 1
    shell.announce(curl(cfg, "DELETE", q(url)))
    if c.config.run.dry:
        return
    status, answer = request(cfg, "DELETE", url)
    if status not in (202, 204, 200, 404):
        raise Exit(f"Restate did not delete {identity}: {status}: {one_line(message(answer))}")


def invoke_event(c, cfg, event: dict, qualifier: str = "live") -> dict:
    """Send one of our own events to the live version, or to another, and return its answer; empty under --dry."""
    payload, answer = "build/event.json", "build/answer.json"
    run_local(c, cfg, commands.save_json(event, payload))
    said = execute(c, cfg, commands.invoke_function(cfg, payload, answer, qualifier))
    if not said:
        return {}
    result = json.loads((ROOT / answer).read_text())
    if "FunctionError" in json.loads(said):
        raise Exit(f"the function failed: {result.get('errorMessage', result)}")
    return result
