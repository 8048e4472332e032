"""Calls of our handlers through Restate, and changes of invocations: cancel, kill, resume."""

from __future__ import annotations

import time

from invoke import Exit

from ops.restate import curl, execute, first_line, message, needs_token, one_line, request, sql
from ops.target import Target

LIVE = "status != 'completed'"
WITHDRAWING_SECONDS, POLL_SECONDS = 10, 0.5
NEWEST_CALL = (
    "SELECT id, last_failure FROM sys_invocation WHERE target_service_name = ? AND target_service_key = ?"
    f" AND target_handler_name = ? AND {LIVE} ORDER BY created_at DESC LIMIT 1"
)


def url(cfg: dict, service: str, key: str, handler: str) -> str:
    return f"{cfg['RESTATE_INGRESS_URL']}/{service}/{key}/{handler}"


def ask(cfg: dict, service: str, key: str, handler: str, body: object = None) -> tuple[int, object]:
    """Call a handler that changes nothing; Exit names the part that does not answer, Restate or the function."""
    try:
        return request(cfg, "POST", url(cfg, service, key, handler), body)
    except Exit as error:
        raise Exit(silence(cfg, service, key, handler, error)) from None


def call(target: Target, service: str, key: str, handler: str, body: object = None) -> tuple[int, object]:
    """Call a handler that changes something; a call without an answer is withdrawn, so that it does not act later."""
    try:
        return execute(target, "POST", url(target.cfg, service, key, handler), body)
    except Exit as error:
        reason = silence(target.cfg, service, key, handler, error)
        raise Exit(f"{withdraw(target, service, key, handler)}: {reason}") from None


def silence(cfg: dict, service: str, key: str, handler: str, error: Exit) -> str:
    """Return why a call had no answer: Restate is up, and the function does not answer it; or else the error.

    Restate's ingress waits for the function, so its silence alone does not separate the two.
    """
    rows = sql(cfg, NEWEST_CALL, service, key, handler)
    if not rows:
        return str(error.message)
    cause = first_line(rows[0].get("last_failure") or "it takes too long")
    return f"Restate is up, and the function does not answer it: {cause}. Next: `inv doctor --env {cfg['ENVIRONMENT']}`"


def withdraw(target: Target, service: str, key: str, handler: str) -> str:
    """Kill the newest live call of a handler, and return in half a line what became of it."""
    rows = sql(target.cfg, NEWEST_CALL, service, key, handler)
    if not rows:
        return "Nothing was changed"
    found = rows[0]["id"]
    change(target, found, "kill")
    deadline = time.monotonic() + WITHDRAWING_SECONDS
    while sql(target.cfg, f"SELECT id FROM sys_invocation WHERE id = ? AND {LIVE}", found):
        if time.monotonic() > deadline:
            return f"The call is pending and can act later; `{manual_command(target.cfg, found, 'kill')}` withdraws it"
        time.sleep(POLL_SECONDS)
    return "Nothing was changed, the call was withdrawn"


def change(target: Target, invocation: str, verb: str, options: str = "") -> None:
    """Cancel, kill or resume an invocation through Restate's admin API."""
    path = f"/invocations/{invocation}/{verb}{options}"
    status, answer = execute(target, "PATCH", f"{target.cfg['RESTATE_ADMIN_URL']}{path}")
    if status >= 300:
        raise Exit(f"Restate answered {status} to PATCH {path}: {one_line(message(answer))}")


def manual_command(cfg: dict, invocation: str, verb: str) -> str:
    """Return the command by which a person changes an invocation that no task of ours is for."""
    url = f"{cfg['RESTATE_ADMIN_URL']}/invocations/{invocation}/{verb}"
    return with_shell(cfg, curl(cfg, "PATCH", url)) if needs_token(cfg, url) else curl(cfg, "PATCH", url)


def with_shell(cfg: dict, command: str) -> str:
    """Return a command with the variables of the environment that it needs, so that it can be pasted as it is."""
    return f'eval "$(inv env.shell --env {cfg["ENVIRONMENT"]})" && {command}'
