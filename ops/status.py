"""What `inv status` shows on one screen: function, version, layer, alias, Restate, schedule and last closings."""

from __future__ import annotations

from collections.abc import Iterator

from invoke import Exit

from handler import findings
from ops import closings, config, history, ping, release, schedule
from ops.commands import get_alias
from ops.config import ENV_HELP
from ops.shell import query_json, sql
from ops.task import NOTHING, task
from ops.versions import RUNNING, age

SHOWN_CLOSINGS = 5
NEWEST = "SELECT deployment_id AS id FROM sys_service WHERE name = 'DailyClosing'"


def show(c, cfg: dict, env: str) -> None:
    """Print it, a part that cannot be seen as its error; Exit where no version is live."""
    alias = query_json(c, cfg, get_alias(cfg), missing="ResourceNotFoundException")
    if not alias:
        raise Exit(f"{env}: {cfg['FUNCTION_NAME']} has no version that is live; run `inv deploy --env {env}`")
    arn = release.held_by(alias)
    print(f"{env}: {arn}  {registration(cfg, arn)}")
    parts = {
        "function": lambda: function(c, cfg),
        "alias": lambda: [f"live holds version {alias['FunctionVersion']}{borne(alias)}"],
        "Restate": lambda: restate(cfg),
        "schedule": lambda: past_and_next(cfg, env),
        "closings": lambda: last_closings(c, cfg, env),
    }
    for name, part in parts.items():
        try:
            lines = list(part())
        except Exit as error:
            lines = [closings.one_line(f"cannot be seen: {error.message}")]
        for at, line in enumerate(lines):
            print(f"{'' if at else name:<9} {line}", flush=True)


def registration(cfg: dict, arn: str) -> str:
    try:
        found = release.find_deployment(cfg, arn)
    except Exit as error:
        return closings.one_line(error.message)
    return f"registered as {found['id']}" if found else "NOT registered with Restate"


def function(c, cfg: dict) -> Iterator[str]:
    found = query_json(c, cfg, ping.get_live(cfg))
    shape = f"{found['Runtime']}, {found['MemorySize']} MB, {found['Timeout']} s"
    known_as = found.get("Description") or "without a description"
    yield f"{shape}, published {age(found['LastModified'])} ago as {known_as}"
    subnets = (found.get("VpcConfig") or {}).get("SubnetIds") or []
    yield f"layer {', '.join(one['Arn'] for one in found.get('Layers') or []) or 'none'}; " + (
        f"in the VPC by {', '.join(subnets)}" if subnets else "in no VPC"
    )


def borne(alias: dict) -> str:
    return f"; {alias['Description']}" if alias.get("Description") else ""


def restate(cfg: dict) -> Iterator[str]:
    known = {one["id"]: release.arn_of(one).rpartition(":")[2] or one["id"] for one in release.deployments(cfg)}
    newest = ", ".join(known.get(row["id"], row["id"]) for row in sql(cfg, NEWEST)) or "none"
    running = ", ".join(f"{row['n']} on version {known.get(row['id'], row['id'])}" for row in sql(cfg, RUNNING))
    yield f"{cfg['RESTATE_ADMIN_URL']} starts closings on version {newest}; running: {running or 'nothing'}"


def past_and_next(cfg: dict, env: str) -> Iterator[str]:
    state = closings.state_of(cfg, schedule.SERVICE, schedule.KEY)
    yield schedule.chain(cfg, state, env)[1]
    yield from schedule.told(cfg, state)


def last_closings(c, cfg: dict, env: str) -> list[str]:
    rows = history.ask(c, cfg, env, SHOWN_CLOSINGS)
    return history.table(rows).splitlines() if rows else ["none yet"]


@task(
    group="watch",
    changes=NOTHING,
    help={**ENV_HELP, "date": "a date, as YYYY-MM-DD; without it: the function", "watch": "follow it to its end"},
)
def status(c, env, date="", watch=False):
    """Show function, version, Restate, schedule and last closings of an environment, or how a date's closing stands."""
    cfg = config.load(env)
    if watch:
        history.follow(c, cfg, env, closings.checked_date(date))
        return
    if date:
        print(closings.standing(cfg, closings.checked_date(date)))
        for text in findings.texts(closings.state_of(cfg, "DailyClosing", date).get("status", {})):
            print(f"  {text}")
        return
    show(c, cfg, env)
