"""inv status: function, version, layer, alias, Restate, schedule and last closings on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterator

from invoke import Exit

from handler import findings
from ops import closing_view, closings, history, ping, release, schedule
from ops.alias import get_alias, held_by
from ops.config import ENV_HELP
from ops.restate import arn_of, deployments, one_line, sql
from ops.target import Target
from ops.task import NOTHING, task
from ops.versions import RUNNING, age

LAST_CLOSINGS = 5
NEWEST = "SELECT deployment_id AS id FROM sys_service WHERE name = 'DailyClosing'"


@task(
    group="watch",
    changes=NOTHING,
    uses=("aws",),
    help={**ENV_HELP, "date": "a date, as YYYY-MM-DD; without it: the function", "watch": "follow it until it ends"},
)
def status(c, env, date="", watch=False):
    """Show function, version, Restate, schedule and last closings of an environment, or the closing of one date."""
    target = Target.load(c, env)
    if watch:
        closing_view.watch(target, closings.checked_date(date))
    elif date:
        date = closings.checked_date(date)
        print(closings.summary(target.cfg, date))
        for line in closing_view.lines(closing_view.view_of(target, date, closing_view.ask(target, date)), time.time()):
            print(line)
        for text in findings.texts(closings.state_of(target.cfg, "DailyClosing", date).get("status", {})):
            print(f"  {text}")
    else:
        show(target)


def show(target: Target) -> None:
    """Print each section of the status, or the error of one that cannot be read; Exit if no version is live."""
    cfg, env = target.cfg, target.env
    alias = target.query_json(get_alias(cfg), missing="ResourceNotFoundException")
    if not alias:
        raise Exit(f"{env}: {cfg['FUNCTION_NAME']} has no live version; run `inv deploy --env {env}`")
    arn = held_by(alias)
    print(f"{env}: {arn}  {registration(cfg, arn)}")
    sections = {
        "function": lambda: function(target),
        "alias": lambda: [f"live is version {alias['FunctionVersion']}{describe(alias)}"],
        "Restate": lambda: restate(cfg),
        "schedule": lambda: past_and_next(cfg, env),
        "closings": lambda: last_closings(target),
    }
    for name, section in sections.items():
        try:
            lines = list(section())
        except Exit as error:
            lines = [one_line(f"cannot be read: {error.message}")]
        for at, line in enumerate(lines):
            print(f"{'' if at else name:<9} {line}", flush=True)


def registration(cfg: dict, arn: str) -> str:
    try:
        found = release.find_deployment(cfg, arn)
    except Exit as error:
        return one_line(error.message)
    return f"registered as {found['id']}" if found else "NOT registered with Restate"


def function(target: Target) -> Iterator[str]:
    found = target.query_json(ping.get_configuration(target.cfg))
    shape = f"{found['Runtime']}, {found['MemorySize']} MB, {found['Timeout']} s"
    description = found.get("Description") or "without a description"
    yield f"{shape}, published {age(found['LastModified'])} ago as {description}"
    subnets = (found.get("VpcConfig") or {}).get("SubnetIds") or []
    yield f"layer {', '.join(one['Arn'] for one in found.get('Layers') or []) or 'none'}; " + (
        f"in the VPC by {', '.join(subnets)}" if subnets else "in no VPC"
    )


def describe(alias: dict) -> str:
    return f"; {alias['Description']}" if alias.get("Description") else ""


def restate(cfg: dict) -> Iterator[str]:
    versions = {one["id"]: arn_of(one).rpartition(":")[2] or one["id"] for one in deployments(cfg)}
    newest = ", ".join(versions.get(row["id"], row["id"]) for row in sql(cfg, NEWEST)) or "none"
    running = ", ".join(f"{row['n']} on version {versions.get(row['id'], row['id'])}" for row in sql(cfg, RUNNING))
    yield f"{cfg['RESTATE_ADMIN_URL']} starts closings on version {newest}; running: {running or 'nothing'}"


def past_and_next(cfg: dict, env: str) -> Iterator[str]:
    state = closings.state_of(cfg, schedule.SERVICE, schedule.KEY)
    yield schedule.with_fix(*schedule.check(cfg, state, env)[1:])
    yield from schedule.past(cfg, state)


def last_closings(target: Target) -> list[str]:
    rows = history.fetch(target, LAST_CLOSINGS)
    return history.table(rows).splitlines() if rows else ["none yet"]
