"""The Function URL of the alias `live`, for a Restate that cannot call Lambda's own API.

It is public (AuthType NONE): handler/app.py refuses every call that Restate has not signed.
https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from shlex import quote as q

from invoke import Exit

from ops.restate import ANSWER_SECONDS
from ops.shell import aws
from ops.target import Target

# Statement -> the permission that it gives everybody; a URL created since October 2025 needs both.
STATEMENTS = {
    "function-url": "lambda:InvokeFunctionUrl --function-url-auth-type NONE",
    "function-url-invoke": "lambda:InvokeFunction --invoked-via-function-url",
}


def by_url(cfg: dict) -> bool:
    """Return whether Restate calls the Function URL instead of a version's ARN."""
    return cfg["FUNCTION_URL"] == "on"


def of_alias(cfg, verb: str) -> str:
    return f"lambda {verb} --function-name {q(cfg['FUNCTION_NAME'])} --qualifier live"


def get_url(cfg):
    return aws(cfg, of_alias(cfg, "get-function-url-config"))


def create_url(cfg):
    return aws(cfg, f"{of_alias(cfg, 'create-function-url-config')} --auth-type NONE")


def delete_url(cfg):
    return aws(cfg, of_alias(cfg, "delete-function-url-config"))


def get_policy(cfg):
    return aws(cfg, of_alias(cfg, "get-policy"))


def permit(cfg, statement):
    words = f"--statement-id {statement} --principal '*' --action {STATEMENTS[statement]}"
    return aws(cfg, f"{of_alias(cfg, 'add-permission')} {words}")


def remove_permission(cfg, statement):
    return aws(cfg, f"{of_alias(cfg, 'remove-permission')} --statement-id {statement}")


def ensure(target: Target) -> str:
    """Create the URL and its permissions if they are missing; returns its address, "" if a dry run has created none."""
    found = target.query_json(get_url(target.cfg), missing="ResourceNotFoundException")
    if found and found["AuthType"] != "NONE":
        raise Exit(
            f"the Function URL has the AuthType {found['AuthType']}, so Restate cannot call it; delete the URL with"
            f" `{delete_url(target.cfg)}`, and the next deploy creates it again"
        )
    permitted = permissions(target)
    for statement in STATEMENTS:
        if statement not in permitted:
            target.execute(permit(target.cfg, statement))
    if not found:
        output = target.execute(create_url(target.cfg))
        found = json.loads(output) if output else None
    return found["FunctionUrl"].rstrip("/") if found else ""


def remove(target: Target) -> None:
    """Delete the URL and its permissions, if they exist."""
    if target.query_json(get_url(target.cfg), missing="ResourceNotFoundException"):
        target.execute(delete_url(target.cfg))
    for statement in sorted(permissions(target) & set(STATEMENTS)):
        target.execute(remove_permission(target.cfg, statement))


def permissions(target: Target) -> set[str]:
    """Return the names of the statements in the alias' policy."""
    policy = target.query_json(get_policy(target.cfg), missing="ResourceNotFoundException")
    return {one.get("Sid", "") for one in json.loads(policy["Policy"])["Statement"]} if policy else set()


def refuse_open(url: str) -> None:
    """Raise Exit unless the URL refuses a call without Restate's signature."""
    try:
        with urllib.request.urlopen(f"{url}/discover", timeout=ANSWER_SECONDS) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Exit(f"{url} does not answer: {reason}; a new URL takes up to a minute: run it again") from None
    if status not in (401, 403):
        raise Exit(f"{url} answered {status} to a call that Restate has not signed; set FUNCTION_URL=off and deploy")
