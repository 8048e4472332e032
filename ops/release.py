"""A release: publish a numbered version, register it with Restate, move the alias `live` to it, and ping it.

Restate calls a version by its ARN. With FUNCTION_URL=on it calls the URL of the alias, so the version of the alias.
"""

from __future__ import annotations

import contextlib
import json
import time
from shlex import quote as q

from invoke import Exit

from ops import alias, function_url, restate, roles, shell
from ops.ping import invoke_function
from ops.restate import (
    DRAINED,
    admin,
    arn_of,
    delete_deployment,
    deployments,
    function_of,
    message,
    newest,
    one_line,
    sql,
)
from ops.shell import ROOT, aws, save_json
from ops.target import Target

# Restate can use a new role after about a minute.
PROPAGATION_SECONDS, PAUSE_SECONDS = 90, 5

# Tags of the function: the version that has passed its ping, and the ones that rollbacks have left.
PASSED, LEFT = "ping-passed", "rolled-back"
# A tag's value has 256 characters at most.
LEFT_KEPT = 30

# Calls that have not begun: each will begin on the newest version.
WAITING = (
    "SELECT target_service_name AS service, count(*) AS n FROM sys_invocation_status"
    " WHERE pinned_deployment_id IS NULL AND status NOT IN ('completed', 'free') GROUP BY target_service_name"
)


def activate(target: Target, version_arn: str, breaking: bool, before: int, tags: dict[str, str]) -> None:
    """Register a version, move the alias to it and ping it; Exit reports what is live then and which command fixes it.

    before: shell.changes when the task began; tags: those of the function. If nothing has changed since, and by the
    tags this version has passed its ping, no ping is sent. So the next deploy repeats a ping that failed.
    """
    fix = f"correct the cause, then run `inv deploy --env {target.env}`"
    try:
        if function_url.by_url(target.cfg):
            activate_by_url(target, version_arn, breaking)
        else:
            activate_by_arn(target, version_arn, breaking)
        refuse_public(target)
        if shell.changes > before or tags.get(PASSED) != version_arn.rpartition(":")[2]:
            fix = f"run `inv rollback --env {target.env}`"
            check_live(target, version_arn)
            write_tag(target, version_arn, PASSED, version_arn.rpartition(":")[2])
    except Exit as error:
        raise Exit(f"{str(error).rstrip('.')}. {what_is_live(target)}; {fix}") from None


def read_tags(target: Target) -> dict[str, str]:
    """Return the function's tags."""
    return target.query_json(get_tags(target.cfg), missing="ResourceNotFoundException") or {}


def write_tag(target: Target, version_arn: str, name: str, value: str) -> None:
    target.execute(tag(target.cfg, function_of(version_arn), name, value))


def left_versions(tags: dict[str, str]) -> list[str]:
    """Return the versions that a rollback has left."""
    return [one for one in tags.get(LEFT, "").split(":") if one]


def report(target: Target, version_arn: str, before: int) -> None:
    """Print which version is live now, and whether the task has changed anything."""
    if target.dry:
        print(f"{target.env}: dry run, nothing was changed")
    elif shell.changes > before:
        print(f"{target.env}: {version_arn} is live")
    else:
        print(f"{target.env}: nothing changed; {version_arn} is live")


def activate_by_arn(target: Target, version_arn: str, breaking: bool) -> None:
    cfg = target.cfg
    found = find_deployment(cfg, version_arn)
    if not found or found["id"] != newest(cfg):
        if not unpublished(target, version_arn):
            refuse_removed_handlers(cfg, version_arn, breaking, discover(cfg, version_arn))
        ensure_registered(target, version_arn, again=bool(found))
    attached = alias.ensure(target, version_arn)
    alias.ensure_concurrency(target, attached)
    if "FUNCTION_URL=on" in attached and not leave_url(target, version_arn):
        return
    alias.settle(target, attached)


def activate_by_url(target: Target, version_arn: str, breaking: bool) -> None:
    """Move the alias first: Restate discovers the version behind it, so the version itself is asked for handlers."""
    cfg = target.cfg
    found = find_deployment(cfg, version_arn)
    registered = found["uri"].rstrip("/") if found and found["id"] == newest(cfg) else ""
    if not registered and not unpublished(target, version_arn):
        refuse_removed_handlers(cfg, version_arn, breaking, handlers_of(target, version_arn))
    attached = alias.ensure(target, version_arn)
    alias.ensure_concurrency(target, attached)
    url = function_url.ensure(target)
    if not registered or registered != url:
        ensure_registered_url(target, url or "URL", version_arn)
    alias.settle(target, attached)
    print(
        f"{target.env}: Restate calls {url or 'the new URL'}, which always runs the live version, also in a running"
        " closing. Only calls that Restate has signed are answered"
    )


def unpublished(target: Target, version_arn: str) -> bool:
    """Return whether a version is one that a dry run would have published."""
    return target.dry and version_arn.endswith(":NEXT")


def what_is_live(target: Target) -> str:
    """Return a sentence on the versions that the alias and Restate use now, as far as they can be found out."""
    called = registered = "an unknown version"
    with contextlib.suppress(Exit):
        found = target.query_json(alias.get_alias(target.cfg), missing="ResourceNotFoundException")
        called = f"version {found['FunctionVersion']}" if found else "no version"
    with contextlib.suppress(Exit):
        arns = {one["id"]: arn_of(one) or one["id"] for one in deployments(target.cfg)}
        latest = newest(target.cfg)
        registered = f"version {arns[latest].rpartition(':')[2]}" if latest else "no version"
    return f"Live now: the alias has {called}, Restate starts closings on {registered}"


def refuse_removed_handlers(cfg: dict, version_arn: str, breaking: bool, new: dict[str, set[str]]) -> None:
    """Raise Exit if a version lacks handlers that are registered now: Restate accepts it, and their callers then fail.

    Only services that a version of this function serves are compared. new: the version's handlers by service.
    """
    ours = {one["id"] for one in deployments(cfg) if function_of(arn_of(one)) == function_of(version_arn)}
    removed = [
        f"{service['name']}/{handler['name']}"
        for service in admin(cfg, "services")["services"]
        if service["deployment_id"] in ours
        for handler in service["handlers"]
        if handler["name"] not in new.get(service["name"], ())
    ]
    if removed and not breaking:
        raise Exit(
            f"{version_arn} no longer has {', '.join(sorted(removed))}, and calls of it would fail; keep the handler,"
            " or add --breaking. Nothing was registered"
        )


def discover(cfg: dict, version_arn: str) -> dict[str, set[str]]:
    """Return the handlers of a version by service, as Restate itself discovers them; this registers nothing."""
    body, role = {"arn": version_arn, "dry_run": True}, invoke_role(cfg, version_arn)
    if role:
        body["assume_role_arn"] = role
    return ask_discovery(cfg, version_arn, body, patient=bool(role))


def invoke_role(cfg: dict, version_arn: str) -> str:
    """Return the ARN of the role that Restate assumes, "" if there is none; a name is one of the function's account."""
    return roles.role_arn(cfg["RESTATE_INVOKE_ROLE_ARN"], version_arn)


def ask_discovery(cfg: dict, name: str, body: dict, patient: bool) -> dict[str, set[str]]:
    """Let Restate discover a version or a URL; returns its handlers by service.

    patient: retry, because Restate may need a minute until it can call what is new.
    """
    deadline = time.monotonic() + PROPAGATION_SECONDS
    while True:
        status, answer = restate.request(cfg, "POST", f"{cfg['RESTATE_ADMIN_URL']}/v3/deployments", body)
        if status < 300:
            return {one["name"]: {handler["name"] for handler in one["handlers"]} for one in answer["services"]}
        reason = one_line(message(answer))[:300]
        if "META0003" not in reason or not patient or time.monotonic() > deadline:
            raise Exit(f"Restate refused {name} with {status}: {reason}")
        print(f"Restate cannot call {name} yet; a new role takes about a minute")
        time.sleep(PAUSE_SECONDS)


def handlers_of(target: Target, version_arn: str) -> dict[str, set[str]]:
    """Return the handlers of a version by service, as the version itself answers; {} under --dry."""
    answer = invoke_event(target, {"handlers": True}, version_arn.rpartition(":")[2])
    return {service: set(names) for service, names in answer["handlers"].items()} if answer else {}


def refuse_other_protocol(target: Target, version: str) -> None:
    """Raise Exit if a version understands other requests than the live one (major protocol) while calls are queued.

    A live version that does not answer is not compared: it is the usual reason for a rollback.
    """
    theirs = protocol_of(target, version)
    try:
        ours = protocol_of(target, "live")
    except Exit as error:
        print(f"{target.env}: the live version does not answer: {error}")
        return
    waiting = sum(row["n"] for row in sql(target.cfg, WAITING))
    if waiting and theirs.split(".")[0] != ours.split(".")[0]:
        raise Exit(
            f"{target.env}: version {version} understands requests of protocol {theirs}, the live version {ours}, and"
            f" {waiting} calls are queued; let them end and run `inv schedule stop --env {target.env}`, then roll back."
            " Nothing was changed."
        )


def protocol_of(target: Target, qualifier: str) -> str:
    """Return the protocol version of the requests that a published version understands; "1.0" under --dry."""
    return invoke_event(target, {"handlers": True}, qualifier).get("protocol", "1.0")


def refuse_public(target: Target) -> None:
    """Raise Exit unless Restate keeps ClosingPeriod/close from all callers but our own services."""
    if target.dry:
        return
    status, found = restate.request(
        target.cfg, "GET", f"{target.cfg['RESTATE_ADMIN_URL']}/services/ClosingPeriod/handlers/close"
    )
    if status != 200 or found.get("public") is not False:
        raise Exit("Restate lists ClosingPeriod/close as public, so anybody could close a period without its checks")


def check_live(target: Target, version_arn: str) -> None:
    """Ping the live version; raises Exit unless this version answers that all is well."""
    answer = invoke_event(target, {"ping": True})
    if answer and (not answer.get("ok") or str(answer.get("version")) != version_arn.rpartition(":")[2]):
        raise Exit(f"the ping of the live version was answered by {answer}, expected {version_arn}")


def find_deployment(cfg: dict, version_arn: str) -> dict | None:
    """Return the registration of a version, by ARN or by URL as the environment requires."""
    return next(
        (one for one in deployments(cfg) if arn_of(one) == version_arn and ("uri" in one) == function_url.by_url(cfg)),
        None,
    )


def ensure_registered(target: Target, version_arn: str, again: bool = False) -> None:
    """Register a version's ARN with Restate and read it back, because Restate ignores options that it does not know.

    again: it is registered, and another version has been registered since; Restate then only accepts it with --force.
    """
    target.execute(register(target.cfg, version_arn, again))
    if target.dry:
        return
    deployment = find_deployment(target.cfg, version_arn)
    if not deployment:
        raise Exit(f"Restate does not list {version_arn} after its registration; run the deploy again")
    role, wanted = deployment.get("assume_role_arn") or "", invoke_role(target.cfg, version_arn)
    if role != wanted:
        raise Exit(f"Restate registered {version_arn} with role {role!r}, not {wanted!r}")


def ensure_registered_url(target: Target, url: str, version_arn: str) -> None:
    """Register the URL again, with the handlers of the version that is behind it now."""
    if not target.dry:
        body = {"uri": url, "use_http_11": True, "force": True, "dry_run": True}
        ask_discovery(target.cfg, url, body, patient=True)
    target.execute(register_url(url, version_arn))
    if target.dry:
        return
    found = find_deployment(target.cfg, version_arn)
    if not found or found["uri"].rstrip("/") != url:
        raise Exit(f"Restate does not list {url} with {version_arn} after its registration; run the deploy again")
    function_url.refuse_open(url)


def leave_url(target: Target, version_arn: str) -> bool:
    """Remove the URL and its registration once nothing runs on it; returns whether it is removed."""
    cfg = target.cfg
    ours = [one for one in deployments(cfg) if "uri" in one and function_of(arn_of(one)) == function_of(version_arn)]
    drained = {row["id"] for row in sql(cfg, DRAINED)}
    if not target.dry and any(one["id"] not in drained for one in ours):
        print(f"{target.env}: the Function URL stays until the closings that began on it have ended; then deploy again")
        return False
    for one in ours:
        delete_deployment(target, one["id"])
    function_url.remove(target)
    return True


def invoke_event(target: Target, event: dict, qualifier: str = "live") -> dict:
    """Send an event to the live version, or to another one, and return its answer, {} under --dry."""
    payload, answer = target.scratch("event.json"), target.scratch("answer.json")
    target.run_local(save_json(event, payload))
    output = target.execute(invoke_function(target.cfg, payload, answer, qualifier))
    if not output:
        return {}
    result = json.loads((ROOT / answer).read_text())
    if "FunctionError" in json.loads(output):
        raise Exit(f"the function failed: {result.get('errorMessage', result)}")
    return result


def get_tags(cfg):
    return aws(cfg, f"lambda get-function --function-name {q(cfg['FUNCTION_NAME'])} --query Tags --output json")


def tag(cfg, function_arn, name, value):
    return aws(cfg, f"lambda tag-resource --resource {q(function_arn)} --tags {q(f'{name}={value}')}")


def register(cfg, version_arn, again=False):
    role = invoke_role(cfg, version_arn)
    role = f" --assume-role-arn {q(role)}" if role else ""
    return f"restate deployments register {q(version_arn)}{role}{' --force' if again else ''} --yes"


def register_url(url, version_arn):
    """Return the command that registers the Function URL, with the version as metadata: a URL does not show it."""
    return f"restate deployments register {q(url)} --use-http1.1 --force --metadata arn={q(version_arn)} --yes"
