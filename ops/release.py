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
from ops.shell import ROOT, request, sql
from ops.target import Target

# A new role needs about a minute until Restate can use it.
PROPAGATION_SECONDS, PAUSE_SECONDS = 90, 5
# Latest of no service, and no invocation that has not ended began on it; paused and suspended ones have not ended.
DRAINED = (
    "SELECT d.id FROM sys_deployment d WHERE d.id NOT IN (SELECT deployment_id FROM sys_service) AND d.id NOT IN"
    " (SELECT pinned_deployment_id FROM sys_invocation_status WHERE pinned_deployment_id IS NOT NULL"
    " AND status != 'completed')"
)

# Calls that have not begun: each will begin on the newest version.
WAITING = (
    "SELECT target_service_name AS service, count(*) AS n FROM sys_invocation_status"
    " WHERE pinned_deployment_id IS NULL AND status NOT IN ('completed', 'free') GROUP BY target_service_name"
)


def take(target: Target, version_arn, breaking, before) -> None:
    """Make a version live, compare before and ask after; Exit says what is live then and what mends it.

    before: shell.changes when the task began; where nothing has changed, nothing is asked.
    """
    mend = f"inv deploy --env {target.env}"
    try:
        if by_url(target.cfg):
            take_by_url(target, version_arn, breaking)
        else:
            take_by_arn(target, version_arn, breaking)
        refuse_public(target)
        if shell.changes > before:
            mend = f"inv rollback --env {target.env}"
            smoke(target, version_arn)
    except Exit as error:
        raise Exit(f"{str(error).rstrip('.')}. {what_is_live(target)}; `{mend}` mends it") from None


def by_url(cfg) -> bool:
    return cfg["FUNCTION_URL"] == "on"


def take_by_arn(target: Target, version_arn, breaking) -> None:
    found = find_deployment(target.cfg, version_arn)
    if not found or found["id"] != newest(target.cfg):
        if not unpublished(target, version_arn):
            refuse_removed_handlers(target.cfg, version_arn, breaking, discover(target.cfg, version_arn))
        ensure_registered(target, version_arn, again=bool(found))
    borne = ensure_alias(target, version_arn)
    ensure_concurrency(target, borne)
    if "FUNCTION_URL=on" in borne and not leave_url(target, version_arn):
        return
    settle_alias(target, borne)


def take_by_url(target: Target, version_arn, breaking) -> None:
    """The alias goes first: Restate discovers what is behind it, so the version itself is asked for its handlers."""
    found = find_deployment(target.cfg, version_arn)
    registered = found["uri"].rstrip("/") if found and found["id"] == newest(target.cfg) else ""
    if not registered and not unpublished(target, version_arn):
        refuse_removed_handlers(target.cfg, version_arn, breaking, handlers_of(target, version_arn))
    borne = ensure_alias(target, version_arn)
    ensure_concurrency(target, borne)
    url = function_url.ensure(target)
    if not registered or registered != url:
        ensure_registered_url(target, url or "URL", version_arn)
    settle_alias(target, borne)
    print(
        f"{target.env}: Restate calls {url or 'the new URL'}, which always runs the newest code, in a running closing,"
        " too. Only calls that Restate has signed are answered"
    )


def unpublished(target: Target, version_arn) -> bool:
    """Whether a version is one that a rehearsal would have published."""
    return target.dry and version_arn.endswith(":NEXT")


def what_is_live(target: Target) -> str:
    """Half a line on which versions pings and Restate reach now; as much as can be seen."""
    alias = restate = "nobody knows which"
    with contextlib.suppress(Exit):
        found = target.query_json(commands.get_alias(target.cfg), missing="ResourceNotFoundException")
        alias = found["FunctionVersion"] if found else "none"
    with contextlib.suppress(Exit):
        arns = {one["id"]: arn_of(one) or one["id"] for one in deployments(target.cfg)} | {"": "none"}
        restate = arns[newest(target.cfg)].rpartition(":")[2]
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


def handlers_of(target: Target, version_arn) -> dict[str, set[str]]:
    """The handlers of a version by service, as it says itself; a rehearsal asks nobody."""
    answer = invoke_event(target, {"handlers": True}, version_arn.rpartition(":")[2])
    return {service: set(names) for service, names in answer["handlers"].items()} if answer else {}


def refuse_other_protocol(target: Target, version: str) -> None:
    """Exit if a version understands another major version of the requests while calls wait for a version to run on."""
    theirs, ours = (protocol_of(target, qualifier) for qualifier in (version, "live"))
    waiting = sum(row["n"] for row in sql(target.cfg, WAITING))
    if waiting and theirs.split(".")[0] != ours.split(".")[0]:
        raise Exit(
            f"{target.env}: version {version} understands requests of protocol {theirs}, the live version {ours}, and"
            f" {waiting} calls are queued; let them end and run `inv schedule stop --env {target.env}`, then roll back."
            " Nothing was changed."
        )


def protocol_of(target: Target, qualifier: str) -> str:
    """The protocol version of a published version's requests; a dry run asks nobody."""
    return invoke_event(target, {"handlers": True}, qualifier).get("protocol", "1.0")


def refuse_public(target: Target) -> None:
    """Exit unless Restate keeps ClosingPeriod/close from all callers but our own services."""
    if target.dry:
        return
    status, found = request(
        target.cfg, "GET", f"{target.cfg['RESTATE_ADMIN_URL']}/services/ClosingPeriod/handlers/close"
    )
    if status != 200 or found.get("public") is not False:
        raise Exit("Restate has ClosingPeriod/close as public, so that anybody could close a period past its checks")


def smoke(target: Target, version_arn) -> None:
    """Ping what is live now; Exit unless this version answers."""
    answer = invoke_event(target, {"ping": True})
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


def ensure_registered(target: Target, version_arn, again=False) -> None:
    """Register a version's ARN with Restate and read it back: to Restate an option it does not know is no error.

    again: it is registered and something else has been since; without --force Restate would leave it at that.
    """
    target.execute(commands.register(target.cfg, version_arn, again))
    if target.dry:
        return
    deployment = find_deployment(target.cfg, version_arn)
    if not deployment:
        raise Exit(f"Restate does not list {version_arn} after its registration; run the deploy again")
    role = deployment.get("assume_role_arn") or ""
    if role != target.cfg["RESTATE_INVOKE_ROLE_ARN"]:
        raise Exit(
            f"Restate registered {version_arn} with role {role!r}, not {target.cfg['RESTATE_INVOKE_ROLE_ARN']!r}"
        )


def ensure_registered_url(target: Target, url, version_arn) -> None:
    """Register the URL anew, with the handlers of the version that is behind it now."""
    if not target.dry:
        body = {"uri": url, "use_http_11": True, "force": True, "dry_run": True}
        ask_discovery(target.cfg, url, body, patient=True)
    target.execute(commands.register_url(url, version_arn))
    if target.dry:
        return
    found = find_deployment(target.cfg, version_arn)
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


def ensure_alias(target: Target, version_arn) -> str:
    """Point the alias `live` to a version: pings and keep-warm calls go to what Restate invokes.

    Returns its description: what hangs on it, and what hung on it before and may have to go.
    """
    version = version_arn.rpartition(":")[2]
    found = target.query_json(commands.get_alias(target.cfg), missing="ResourceNotFoundException")
    if not found:
        target.execute(commands.move_alias(target.cfg, "create", version, borne_by(target.cfg) or None))
        return borne_by(target.cfg)
    borne = " ".join(sorted({*found.get("Description", "").split(), *borne_by(target.cfg).split()}))
    if (found["FunctionVersion"], found.get("Description", "")) != (version, borne):
        update_alias(target, version, borne, found)
    return borne


def update_alias(target: Target, version, description, found) -> None:
    """found: the alias as it was looked at; Exit where somebody else has moved it since."""
    file = "build/alias-revision"
    target.run_local(commands.save_alias_revision(target.cfg, file))
    if not target.dry and (ROOT / file).read_text().split()[1] != found["FunctionVersion"]:
        raise Exit("somebody else has moved the alias live meanwhile; look with `inv versions`, then run it again")
    changed = description if description != found.get("Description", "") else None
    target.execute(commands.move_alias(target.cfg, "update", version, changed, file))


def settle_alias(target: Target, borne: str) -> None:
    """Let the alias' description say what hangs on it now."""
    if borne == borne_by(target.cfg):
        return
    found = target.query_json(commands.get_alias(target.cfg))
    update_alias(target, found["FunctionVersion"], borne_by(target.cfg), found)


def ensure_concurrency(target: Target, borne: str) -> None:
    """Have as many sandboxes ready as the environment says, and wait until they are."""
    wanted = int(target.cfg["PROVISIONED_CONCURRENCY"])
    if not wanted and "PROVISIONED_CONCURRENCY=" not in borne:
        return
    found = target.query_json(commands.get_concurrency(target.cfg), missing="NotFoundException") or {}
    if not wanted:
        if found:
            target.execute(commands.delete_concurrency(target.cfg))
        return
    if found.get("RequestedProvisionedConcurrentExecutions") != wanted:
        target.execute(commands.put_concurrency(target.cfg))
    elif found["Status"] == "READY":
        return
    target.execute(commands.wait_for_concurrency(target.cfg))
    found = target.query_json(commands.get_concurrency(target.cfg), missing="NotFoundException")
    if found and found["Status"] == "FAILED":
        raise Exit(f"AWS keeps no {wanted} sandboxes ready: {found.get('StatusReason')}")


def leave_url(target: Target, version_arn) -> bool:
    """Take the URL and its registration away once nothing runs on it; whether it is gone."""
    ours = [
        one for one in deployments(target.cfg) if "uri" in one and function_of(arn_of(one)) == function_of(version_arn)
    ]
    drained = {row["id"] for row in sql(target.cfg, DRAINED)}
    if not target.dry and any(one["id"] not in drained for one in ours):
        print(f"{target.env}: the Function URL stays until the closings that began on it have ended; then deploy again")
        return False
    for one in ours:
        delete_deployment(target, one["id"])
    function_url.remove(target)
    return True


def delete_deployment(target: Target, identity: str) -> None:
    """Restate deletes with force alone, and then checks nothing: whoever calls this has checked."""
    url = f"{target.cfg['RESTATE_ADMIN_URL']}/deployments/{identity}?force=true"
    shell.changes += 1
    shell.announce(curl(target.cfg, "DELETE", q(url)))
    if target.dry:
        return
    status, answer = request(target.cfg, "DELETE", url)
    if status not in (202, 204, 200, 404):
        raise Exit(f"Restate did not delete {identity}: {status}: {one_line(message(answer))}")


def invoke_event(target: Target, event: dict, qualifier: str = "live") -> dict:
    """Send one of our own events to the live version, or to another, and return its answer; empty under --dry."""
    payload, answer = "build/event.json", "build/answer.json"
    target.run_local(commands.save_json(event, payload))
    said = target.execute(commands.invoke_function(target.cfg, payload, answer, qualifier))
    if not said:
        return {}
    result = json.loads((ROOT / answer).read_text())
    if "FunctionError" in json.loads(said):
        raise Exit(f"the function failed: {result.get('errorMessage', result)}")
    return result
