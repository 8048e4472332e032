"""inv keep-warm on | off | status: an EventBridge rule that pings the alias `live`, which a deploy moves."""

from __future__ import annotations

import re
from shlex import quote as q

from invoke import Exit

from ops import function_url
from ops.alias import get_alias
from ops.config import ENV_HELP
from ops.shell import aws, save_json
from ops.target import Target
from ops.task import ENVIRONMENT, NOTHING, task

TARGET, STATEMENT = "live", "keep-warm"
# Lambda keeps an idle instance for some minutes, without a guarantee.
USUAL = "5m"


def rule_name(cfg: dict) -> str:
    return f"{cfg['FUNCTION_NAME']}-keep-warm"


def describe_rule(cfg: dict) -> str:
    return aws(cfg, f"events describe-rule --name {q(rule_name(cfg))}")


def list_targets(cfg: dict) -> str:
    return aws(cfg, f"events list-targets-by-rule --rule {q(rule_name(cfg))}")


def put_rule(cfg: dict, schedule: str) -> str:
    return aws(cfg, f"events put-rule --name {q(rule_name(cfg))} --schedule-expression {q(schedule)} --state ENABLED")


def put_targets(cfg: dict, file: str) -> str:
    return aws(cfg, f"events put-targets --rule {q(rule_name(cfg))} --targets file://{q(file)}")


def remove_targets(cfg: dict) -> str:
    return aws(cfg, f"events remove-targets --rule {q(rule_name(cfg))} --ids {TARGET}")


def delete_rule(cfg: dict) -> str:
    return aws(cfg, f"events delete-rule --name {q(rule_name(cfg))}")


def add_permission(cfg: dict, rule_arn: str) -> str:
    return aws(
        cfg,
        f"lambda add-permission --function-name {q(cfg['FUNCTION_NAME'])} --qualifier live --statement-id {STATEMENT}"
        f" --action lambda:InvokeFunction --principal events.amazonaws.com --source-arn {q(rule_arn)}",
    )


def remove_permission(cfg: dict) -> str:
    return function_url.remove_permission(cfg, STATEMENT)


@task(group="keep-warm", changes=ENVIRONMENT, uses=("aws",), help={**ENV_HELP, "every": "how often, such as 5m or 1h"})
def on(c, env, every=USUAL):
    """Ping the live version at an interval, so that a closing begins without a cold start."""
    target = Target.load(c, env)
    schedule = rate(every)
    alias = live(target)
    found = inspect(target)
    if not found["rule"] or found["rule"].get("ScheduleExpression") != schedule or found["rule"]["State"] != "ENABLED":
        target.execute(put_rule(target.cfg, schedule))
    # Before the target, so that no ping is refused.
    if not found["permitted"]:
        target.execute(add_permission(target.cfg, rule_arn(target.cfg, alias)))
    if wanted_target(alias) not in found["targets"]:
        file = target.scratch("keep-warm.json")
        target.run_local(save_json([wanted_target(alias)], file))
        target.execute(put_targets(target.cfg, file))
    print(f"{env}: {rule_name(target.cfg)} pings {alias} every {every}")


@task(group="keep-warm", changes=ENVIRONMENT, uses=("aws",), help=ENV_HELP)
def off(c, env):
    """Stop the keep-warm pings."""
    target = Target.load(c, env)
    print(f"{env}: {'is no longer kept warm' if remove(target) else 'was not kept warm; nothing was changed'}")


def remove(target: Target) -> bool:
    """Delete rule, target and permission, if they exist; returns whether any existed."""
    found = inspect(target)
    # A rule that has a target cannot be deleted.
    if found["targets"]:
        target.execute(remove_targets(target.cfg))
    if found["rule"]:
        target.execute(delete_rule(target.cfg))
    if found["permitted"]:
        target.execute(remove_permission(target.cfg))
    return any(found.values())


@task(group="keep-warm", changes=NOTHING, uses=("aws",), help=ENV_HELP)
def status(c, env):
    """Show whether the live version is kept warm; exit 1 if it is not."""
    target = Target.load(c, env)
    fault = find_fault(inspect(target), live(target))
    if fault:
        raise Exit(f"{env}: {fault}; run `inv keep-warm on --env {env}`")
    print(f"{env}: {rule_name(target.cfg)} keeps the live version warm")


@task(
    group="keep-warm",
    changes=ENVIRONMENT,
    uses=("aws",),
    default=True,
    positional=["verb", "env"],
    help={"verb": "on, off or status", "every": "as of keep-warm.on", **ENV_HELP},
)
def do(c, verb, env, every=USUAL):
    """Run on, off or status, written with a space: `inv keep-warm on`."""
    if verb == "on":
        on(c, env, every)
    elif verb in ("off", "status"):
        {"off": off, "status": status}[verb](c, env)
    else:
        raise Exit(f"No {verb!r} for keep-warm. Known: on, off, status.")


def rate(every: str) -> str:
    """Return an interval in the format of EventBridge, which distinguishes one minute from several."""
    match = re.fullmatch(r"([1-9]\d{0,3})([mh])", every)
    if not match:
        raise Exit(f"--every {every!r} is malformed: expected minutes or hours, such as 5m or 1h")
    unit = {"m": "minute", "h": "hour"}[match[2]] + ("" if match[1] == "1" else "s")
    return f"rate({match[1]} {unit})"


def live(target: Target) -> str:
    cfg, env = target.cfg, target.env
    found = target.query_json(get_alias(cfg), missing="ResourceNotFoundException")
    if not found:
        raise Exit(f"{env}: {cfg['FUNCTION_NAME']} has no version that is live; run `inv deploy --env {env}`")
    return found["AliasArn"]


def inspect(target: Target) -> dict:
    """Return what exists: {"rule", "targets", "permitted"}, each false if it is missing."""
    rule = target.query_json(describe_rule(target.cfg), missing="ResourceNotFoundException")
    targets = target.query_json(list_targets(target.cfg))["Targets"] if rule else []
    return {"rule": rule, "targets": targets, "permitted": STATEMENT in function_url.permissions(target)}


def find_fault(found: dict, alias: str) -> str:
    """Return why the live version is not kept warm, "" if it is."""
    if not found["rule"]:
        return "the live version is not kept warm"
    if found["rule"]["State"] != "ENABLED":
        return f"the rule {found['rule']['Name']} is disabled"
    if wanted_target(alias) not in found["targets"]:
        return f"the rule {found['rule']['Name']} does not ping {alias}"
    return "" if found["permitted"] else f"EventBridge may not invoke {alias}"


def rule_arn(cfg: dict, alias: str) -> str:
    region, account = alias.split(":")[3:5]
    return f"arn:{alias.split(':')[1]}:events:{region}:{account}:rule/{rule_name(cfg)}"


def wanted_target(alias: str) -> dict:
    return {"Id": TARGET, "Arn": alias, "Input": '{"ping": true}'}
