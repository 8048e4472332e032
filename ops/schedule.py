"""The daily schedule: inv schedule start | stop | status. Its state is read from Restate, not through the function."""

from __future__ import annotations

import time
from datetime import date, timedelta

from invoke import Exit

from handler.plan import describe_hold
from ops import closings, invocations
from ops.config import ENV_HELP
from ops.invocations import manual_command
from ops.restate import first_line, message, one_line, sql
from ops.target import Target
from ops.task import ENVIRONMENT, NOTHING, task

SERVICE, KEY = "DailyClosingScheduler", "main"
HELD = ("backing-off", "paused")
READS, READ_SECONDS = 3, 0.3
PLANNED = ("scheduled", "pending", "ready", "running", "suspended", *HELD)


@task(group="schedule", changes=ENVIRONMENT, help=ENV_HELP)
def start(c, env):
    """Start one closing a day, or apply a changed time to a running schedule."""
    target = Target.load(c, env)
    answer = call(target, "start")
    for line in format_start(answer, env) if answer else []:
        print(f"{env}: {line}")


def format_start(answer: dict, env: str) -> list[str]:
    """Format the scheduler's answer to start, one line each."""
    lines = []
    if answer["alreadyRunning"]:
        change = "the time has changed" if answer["changed"] else "nothing has changed"
        lines.append(f"was already running, next run at {answer['previousNext']}; {change}")
    lines.append(f"runs; next run {answer['next']}, closes {answer['date']}, generation {answer['generation']}")
    missed = date.fromisoformat(answer["done"]) + timedelta(days=1)
    if missed < date.fromisoformat(answer["date"]):
        newest = date.fromisoformat(answer["date"]) - timedelta(days=1)
        close = f"inv close --env {env} --date {newest}"
        lines.append(f"the next run also covers what was missed since {missed}; if it cannot wait: `{close}`")
    return lines


@task(group="schedule", changes=ENVIRONMENT, help=ENV_HELP)
def stop(c, env):
    """Stop the daily schedule; a running closing goes on."""
    answer = call(Target.load(c, env), "stop")
    if answer and answer["wasRunning"]:
        print(f"{env}: stopped; the run at {answer['previousNext']} is cancelled")
    elif answer:
        print(f"{env}: was not running; nothing has changed")


@task(group="schedule", changes=NOTHING, help=ENV_HELP)
def status(c, env):
    """Show the next run, the last run and the result of the last closing; exit 1 if the schedule is not running."""
    cfg = Target.load(c, env).cfg
    state = closings.state_of(cfg, SERVICE, KEY)
    runs, *line = check(cfg, state, env)
    for one in [with_fix(*line), *past(cfg, state)]:
        print(f"{env}: {one}")
    if not runs:
        raise Exit(code=1)


@task(
    group="schedule",
    changes=ENVIRONMENT,
    default=True,
    positional=["verb", "env"],
    help={"verb": "start, stop or status", **ENV_HELP},
)
def do(c, verb, env):
    """Run one of the three tasks, as in `inv schedule start`, with a space."""
    verbs = {"start": start, "stop": stop, "status": status}
    if verb not in verbs:
        raise Exit(f"The schedule has no task {verb!r}. Known: {', '.join(verbs)}.")
    verbs[verb](c, env)


def url(cfg: dict, verb: str) -> str:
    return invocations.url(cfg, SERVICE, KEY, verb)


def call(target: Target, verb: str, body: object = None) -> dict:
    """Call a handler of the scheduler and return its answer, {} under --dry; Exit in one line if it fails."""
    blocking, fix = blocking_call(target.cfg)
    if blocking:
        raise Exit(f"Nothing was sent, because the call would wait for {with_fix(blocking, fix)}")
    status, answer = invocations.call(target, SERVICE, KEY, verb, body)
    if status == 404:
        fix = f"run `inv deploy --env {target.env}` first"
        raise Exit(f"Restate has no handler {SERVICE}/{verb}: {message(answer)}; {fix}")
    if status == 400:
        raise Exit(one_line(message(answer)))
    if status >= 300 or not isinstance(answer, dict):
        fix = f"see `inv doctor --env {target.env}`"
        raise Exit(f"Restate refused {SERVICE}/{verb} with status {status}: {message(answer)}; {fix}")
    return answer


def blocking_call(cfg: dict) -> tuple[str, str]:
    """Describe the call that holds the scheduler's key and makes no progress, and its next command; two "" for none."""
    rows = sql(
        cfg,
        "SELECT id, status, target_handler_name, last_failure FROM sys_invocation"
        " WHERE target_service_name = ? AND target_service_key = ?"
        f" AND status IN {HELD} ORDER BY created_at LIMIT 1",
        SERVICE,
        KEY,
    )
    if not rows:
        return "", ""
    row = rows[0]
    trouble = closings.TROUBLE[row["status"]]
    text = (
        f"its call {row['target_handler_name']} {row['id']}: {trouble}: {first_line(closings.last_failure(cfg, row))}"
    )
    # One that fails goes on by itself as soon as the function answers it.
    fix = (
        manual_command(cfg, row["id"], "resume")
        if row["status"] == "paused"
        else f"inv doctor --env {cfg['ENVIRONMENT']}"
    )
    return text, fix


def check(cfg: dict, state: dict, env: str) -> tuple[bool, str, str]:
    """Return whether a next run is planned and alive, one line about it, and the command that helps if it is not.

    The state alone is not enough: it stays as it is if somebody cancels the planned invocation.
    """
    fix = f"inv schedule start --env {env}"
    # At a schedule time the planned run that was read can just have ended; then the state already has the next one.
    for _ in range(READS):
        planned = state.get("next")
        if not planned:
            return False, "the schedule is not running", fix
        rows = sql(cfg, "SELECT status FROM sys_invocation WHERE id = ?", planned["invocation"])
        alive = bool(rows) and rows[0]["status"] in PLANNED
        if alive:
            break
        time.sleep(READ_SECONDS)
        state = closings.state_of(cfg, SERVICE, KEY)
    if not alive:
        return False, f"the schedule's next run {planned['invocation']} was cancelled or killed", fix
    blocking, fix = blocking_call(cfg)
    if blocking:
        return False, f"the schedule waits for {blocking}", fix
    text = f"the schedule runs; next run {planned['at']}, closes {planned['date']}, generation {planned['generation']}"
    return True, text, ""


def with_fix(text: str, fix: str) -> str:
    """Return a line with its next command, if it has one."""
    return f"{text}; next: {fix}" if fix else text


def past(cfg: dict, state: dict) -> list[str]:
    """Describe, one line each, what exists of: the hold, the last run, covered and left-out dates, the last closing."""
    lines = [describe_hold(state["hold"])] if state.get("hold") else []
    if last := state.get("last"):
        lines.append(f"last run {last['at']}, started {', '.join(last['dates'])}")
    lines += [f"{one['by']} covers {one['from']} to {one['to']}" for one in state.get("covered", [])[-5:]]
    lines += [f"left out: {one['from']} to {one['to']}" for one in state.get("leftOut", [])[-5:]]
    if "closing" in state:
        lines.append(f"last closing {closings.summary(cfg, state['closing'])}")
    return lines


def remind(target: Target) -> None:
    """Print one line if the schedule is not running; a deploy neither starts nor stops it."""
    runs, *line = check(target.cfg, closings.state_of(target.cfg, SERVICE, KEY), target.env)
    if not runs:
        print(f"{target.env}: {with_fix(*line)}")
