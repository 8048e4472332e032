"""Find what needs a person, from Restate's admin API: closings that make no progress, blocked periods, the schedule.

It asks only Restate, so it answers also when the function or a database does not.
"""

from __future__ import annotations

import json
import time
from datetime import datetime

from handler.plan import describe_hold
from ops import closings, schedule
from ops.invocations import manual_command
from ops.restate import first_line, sql
from ops.target import Target

SERVICES = "('DailyClosing', 'ClosingPeriod', 'DailyClosingScheduler')"
UNFINISHED = (
    "SELECT id, target, status, target_service_name AS service, target_service_key AS key, invoked_by_id AS caller,"
    " created_at, retry_count, last_failure FROM sys_invocation"
    f" WHERE status != 'completed' AND target_service_name IN {SERVICES} ORDER BY created_at"
)
BLOCKED = "SELECT service_key, value_utf8 FROM state WHERE service_name = 'ClosingPeriod' AND key = 'blocked'"
# Retries that are not reported: with the default pauses the tenth comes after about three minutes.
PATIENCE = 10


def find(target: Target) -> list[str]:
    """Return a line for each finding, with its next command; Exit in one line if Restate does not answer."""
    cfg = target.cfg
    rows, blocked = sql(cfg, UNFINISHED), blocked_periods(cfg)
    state = closings.state_of(cfg, schedule.SERVICE, schedule.KEY)
    for row in rows:
        if row["status"] == "paused":
            row |= {"last_failure": closings.last_failure(cfg, row), "resume": manual_command(cfg, row["id"], "resume")}
    late_after = float(cfg["CLOSING_LATE_AFTER"])
    lines = evaluate(rows, blocked, failed_dates(cfg, state, blocked), late_after, time.time(), target.env)
    if hold := state.get("hold"):
        lines.append(f"{describe_hold(hold)}; next: inv release --env {target.env}")
    # A schedule that was never started is a decision, as in a test environment; one that was stopped needs a person.
    if "generation" not in state:
        return lines
    runs, *line = schedule.check(cfg, state, target.env)
    return lines if runs else [*lines, schedule.with_fix(*line)]


def blocked_periods(cfg: dict) -> dict[str, dict]:
    """Return what blocks each blocked period."""
    return {row["service_key"]: json.loads(row["value_utf8"]) for row in sql(cfg, BLOCKED)}


def failed_dates(cfg: dict, state: dict, blocked: dict) -> dict[str, str]:
    """Return the failure of each date of the schedule's last run that has failed, but not because of its period.

    state: the scheduler's; blocked: blocked_periods, which are reported once each.
    """
    dates = [date for date in (state.get("last") or {}).get("dates", []) if date[:7] not in blocked]
    runs = {date: closings.invocation_of(cfg, "DailyClosing", date, "run") for date in dates}
    return {date: run["completion_failure"] for date, run in runs.items() if run and run["completion_failure"]}


def evaluate(rows: list[dict], blocked: dict, failed: dict, late_after: float, now: float, env: str) -> list[str]:
    """Return the lines of unfinished invocations, blocked periods and failed scheduled dates, each cause once.

    rows: of UNFINISHED, a paused one with "resume", the manual command; blocked: blocked_periods; failed: the failure
    by date; late_after: seconds; now: epoch seconds.
    """
    dates = {row["id"]: row["key"] for row in rows if row["service"] == "DailyClosing"}
    lines, known = [], {one["date"] for one in blocked.values()}
    for period, one in blocked.items():
        date = one["date"] or f"{period}-01"
        reason = first_line(one["message"])
        lines.append(f"{period} is blocked by {one['job']}: {reason}; next: {following('next', env, date)}")
    for row in rows:
        date = date_of(row, dates)
        tries = row.get("retry_count") or 0
        cause = first_line(row.get("last_failure") or "Restate shows no reason")
        if row["status"] == "paused":
            command = following("next", env, date) if date else row["resume"]
            lines.append(f"{row['target']} is paused: {cause}; next: fix the cause, then {command}")
            known.add(date)
        elif row["status"] == "backing-off" and tries >= PATIENCE:
            lines.append(f"{row['target']} has failed {tries} times: {cause}; next: inv doctor --env {env}")
            known.add(date)
    for row in rows:
        age = now - datetime.fromisoformat(row["created_at"].replace("Z", "+00:00")).timestamp()
        if row["service"] == "DailyClosing" and row["key"] not in known and age > late_after:
            hours = f"{age / 3600:.1f} h"
            lines.append(f"{row['key']} is late: not closed after {hours}; next: {following('next', env, row['key'])}")
    for date, failure in failed.items():
        if date not in known:
            lines.append(f"{date} failed: {first_line(failure)}; next: {following('next', env, date)}")
    return lines


def date_of(row: dict, dates: dict[str, str]) -> str:
    """Return the date of a closing's invocation; "" for another one. dates: of the runs, by id."""
    return dates.get(row["id"]) or dates.get(row.get("caller", ""), "")


def following(task: str, env: str, date: str) -> str:
    return f"inv {task} --env {env} --date {date}"
