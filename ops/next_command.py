"""inv next: the one safe next command for a date, from what Restate, Genius and closing_runs report of it."""

from __future__ import annotations

from invoke import Exit

from handler import plan
from ops import closings
from ops.closings import checked_date, live_closes
from ops.config import ENV_HELP
from ops.invocations import ask
from ops.restate import message, newest, one_line
from ops.target import Target
from ops.task import NOTHING, task


@task(name="next", group="repair", changes=NOTHING, help={**ENV_HELP, "date": "a date, as YYYY-MM-DD"})
def next_(c, env, date):
    """Print the one safe next command for a date, and the reason."""
    target, date = Target.load(c, env), checked_date(date)
    print(advice(target, date))


def advice(target: Target, date: str) -> str:
    """Return the next command and its reason in one line."""
    return worded(plan.next_command(known_state(target.cfg, date), target.env))


def worded(found: dict) -> str:
    """Format an answer of plan.next_command in one line."""
    reason = one_line(found["reason"])
    return f"{reason}. Next: `{found['command']}`" if found["command"] else f"{reason}. Nothing is to be done."


def command(target: Target, date: str) -> str:
    """Return the next command for a date, for a line of the doctor: `inv next` if no command but the doctor helps."""
    try:
        found = plan.next_command(known_state(target.cfg, date), target.env)["command"]
    except Exit:
        found = ""
    return f"inv next --env {target.env} --date {date}" if not found or found.startswith("inv doctor") else found


def known_state(cfg: dict, date: str) -> dict:
    """Return what is known of a date: see handler.plan.next_command."""
    run = closings.invocation_of(cfg, "DailyClosing", date, "run")
    state = closings.state_of(cfg, "ClosingPeriod", date[:7])
    closes = live_closes(cfg, date[:7])
    involved = [one for one in (run, *closes[:1]) if one]
    paused = next((one for one in involved if one["status"] == "paused"), None)
    behind = (
        closes[0]["date"] if closes and closes[0]["date"] != date and run and run["status"] != closings.ENDED else None
    )
    return {
        "date": date,
        "run": run and {"status": run["status"], "failure": run["completion_failure"]},
        "paused": paused and paused["id"],
        "newer": bool(paused) and paused["pinned_deployment_id"] != newest(cfg),
        "queuedBehind": behind,
        "blocked": state.get("blocked"),
        "closing": state.get("closing"),
        "hold": closings.holding(cfg),
        **inspect(cfg, date),
    }


def inspect(cfg: dict, date: str) -> dict:
    """Return what Genius and closing_runs know of a date: {"jobs", "rows"}, each a list or an error's text."""
    status, answer = ask(cfg, "ClosingPeriod", date[:7], "inspect", {"date": date})
    if status >= 300:
        raise Exit(one_line(message(answer)))
    return {"jobs": answer["jobs"], "rows": answer["runs"]}
