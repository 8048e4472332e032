"""The daily schedule as tasks: inv schedule start | stop | status. Looks go past the function, to Restate."""

from __future__ import annotations

from datetime import date, timedelta

from invoke import Exit

from ops import closings, config
from ops.config import ENV_HELP
from ops.shell import announce, request, sql
from ops.task import ENVIRONMENT, NOTHING, task

SERVICE, KEY = "DailyClosingScheduler", "main"
HELD = ("backing-off", "paused")
PLANNED = ("scheduled", "pending", "ready", "running", "suspended", *HELD)


@task(group="schedule", changes=ENVIRONMENT, help=ENV_HELP)
def start(c, env):
    """Start one closing a day, or bring a running schedule in step with a changed time."""
    cfg = config.load(env)
    answer = call(c, cfg, "start")
    if not answer:
        return
    for line in started(answer):
        print(f"{env}: {line}")


def started(answer: dict) -> list[str]:
    lines = []
    if answer["alreadyRunning"]:
        change = "that has changed" if answer["changed"] else "nothing has changed"
        lines.append(f"was running already, with its next tick at {answer['previousNext']}; {change}")
    lines.append(f"runs; next tick {answer['next']}, closes {answer['date']}, generation {answer['generation']}")
    missed = date.fromisoformat(answer["done"]) + timedelta(days=1)
    if missed < date.fromisoformat(answer["date"]):
        lines.append(f"due with it: what was missed from {missed} on; close one now with `inv close` if it cannot wait")
    return lines


@task(group="schedule", changes=ENVIRONMENT, help=ENV_HELP)
def stop(c, env):
    """End the daily schedule; a closing that runs is left alone."""
    answer = call(c, config.load(env), "stop")
    if answer and answer["wasRunning"]:
        print(f"{env}: stopped; the tick at {answer['previousNext']} will not come")
    elif answer:
        print(f"{env}: was not running; nothing has changed")


@task(group="schedule", changes=NOTHING, help=ENV_HELP)
def status(c, env):
    """Show the next tick, the last one and how the last closing came out; exit 1 when it is not running."""
    cfg = config.load(env)
    state = closings.state_of(cfg, SERVICE, KEY)
    alive, line = chain(cfg, state, env)
    print(f"{env}: {line}")
    for one in told(cfg, state):
        print(f"{env}: {one}")
    if not alive:
        raise Exit(code=1)


@task(
    group="schedule",
    changes=ENVIRONMENT,
    default=True,
    positional=["verb", "env"],
    help={"verb": "start, stop or status", **ENV_HELP},
)
def do(c, verb, env):
    """The three of them as `inv schedule start`, with a space."""
    verbs = {"start": start, "stop": stop, "status": status}
    if verb not in verbs:
        raise Exit(f"No {verb!r} for the schedule. Known: {', '.join(verbs)}.")
    verbs[verb](c, env)


def url(cfg: dict, verb: str) -> str:
    return f"{cfg['RESTATE_INGRESS_URL']}/{SERVICE}/{KEY}/{verb}"


def call(c, cfg: dict, verb: str) -> dict:
    """Call a handler of the scheduler and return its answer; empty under --dry. Exit in one line."""
    announce(closings.curl(cfg, "POST", url(cfg, verb)))
    if c.config.run.dry:
        return {}
    held = holder(cfg)
    if held:
        raise Exit(f"nothing was sent, the call would wait behind {held}")
    status, answer = request(cfg, "POST", url(cfg, verb))
    if status == 404:
        raise Exit(f"Restate knows no {SERVICE}/{verb}: {closings.message(answer)}; run `inv deploy` first")
    if status >= 300 or not isinstance(answer, dict):
        raise Exit(f"Restate refused to {verb} the schedule with {status}: {closings.message(answer)}")
    return answer


def holder(cfg: dict) -> str:
    """The call that holds the scheduler's key and does not get on, with the way out; empty where there is none."""
    rows = sql(
        cfg,
        "SELECT id, status, target_handler_name, last_failure FROM sys_invocation"
        f" WHERE target_service_name = '{SERVICE}' AND target_service_key = '{KEY}'"
        f" AND status IN {HELD} ORDER BY created_at LIMIT 1",
    )
    if not rows:
        return ""
    row = rows[0]
    way = "resume" if row["status"] == "paused" else "kill"
    return (
        f"{row['target_handler_name']} {row['id']}, which is {row['status']}:"
        f" {closings.one_line(row.get('last_failure', 'Restate shows no reason'))};"
        f" repair that, or `restate invocations {way} {row['id']}`"
    )


def chain(cfg: dict, state: dict, env: str) -> tuple[bool, str]:
    """Whether a next tick is planned and lives, and the line that says so: state alone may outlive its tick."""
    planned, begin = state.get("next"), f"start it with `inv schedule start --env {env}`"
    if not planned:
        return False, f"the schedule is not running; {begin}"
    rows = sql(cfg, f"SELECT status FROM sys_invocation WHERE id = '{planned['invocation']}'")
    if not rows or rows[0]["status"] not in PLANNED:
        return False, f"the schedule's next tick {planned['invocation']} is gone, somebody has ended it; {begin}"
    held = holder(cfg)
    if held:
        return False, f"the schedule waits for {held}"
    return True, (
        f"the schedule runs; next tick {planned['at']}, closes {planned['date']}, generation {planned['generation']}"
    )


def told(cfg: dict, state: dict) -> list[str]:
    """What there is to tell of the past: the last tick, what outages left, the last closing."""
    lines = []
    if last := state.get("last"):
        lines.append(f"last tick {last['at']}, closed {', '.join(last['dates'])}")
    lines += [f"{one['by']} covers {one['from']} to {one['to']}" for one in state.get("covered", [])[-5:]]
    lines += [f"left out: {one['from']} to {one['to']}" for one in state.get("leftOut", [])[-5:]]
    if "closing" in state:
        lines.append(f"last closing {closings.standing(cfg, state['closing'])}")
    return lines


def reminder(cfg: dict, env: str) -> None:
    """Say so in one line where the schedule is not running; a deploy neither starts nor stops it."""
    alive, line = chain(cfg, closings.state_of(cfg, SERVICE, KEY), env)
    if not alive:
        print(f"{env}: {line}")
