"""One view of a closing: what Restate, Genius and closing_runs know of a date, as lines and as a live view."""

from __future__ import annotations

import statistics
import sys
import time
from datetime import datetime
from typing import NamedTuple

from invoke import Exit

from handler.plan import next_command as plan_next
from handler.request import STEPS
from ops import closings, history, next_command, ping
from ops.restate import first_line, sql
from ops.target import Target

# The run of a date, and the call of close that it has made.
INVOLVED = (
    "SELECT one.id, one.target, one.status, one.retry_count, one.next_retry_at, one.last_failure, one.created_at"
    " FROM sys_invocation one LEFT JOIN sys_invocation run ON run.id = one.invoked_by_id"
    " WHERE (one.target_service_name = 'DailyClosing' AND one.target_handler_name = 'run'"
    " AND one.target_service_key = ?) OR (one.target_service_name = 'ClosingPeriod'"
    " AND one.target_handler_name = 'close' AND run.target_service_key = ?) ORDER BY one.created_at"
)
# How often the live view asks Restate, and how often Genius and closing_runs, in seconds.
REFRESH_SECONDS, INSPECT_SECONDS = 1.0, 30.0


class View(NamedTuple):
    """calls: (invocation, its state in words, its last error); job: its name and its state in Genius; begun: epoch
    seconds; usual: seconds of the median of earlier closings, None if there is none; ended: nothing runs any more."""

    calls: list[tuple[str, str, str]]
    step: str
    error: str
    job: str
    begun: float | None
    usual: float | None
    advice: str
    ended: bool


def view_of(target: Target, date: str, earlier: View | None = None) -> View:
    """Return the view of a date. earlier: take what the function answered then, and ask only Restate."""
    cfg = target.cfg
    rows = sql(cfg, INVOLVED, date, date)
    state = closings.state_of(cfg, "ClosingPeriod", date[:7])
    closes = closings.live_closes(cfg, date[:7])
    behind = closes[0]["date"] if closes and closes[0]["date"] != date else None
    calls = [describe(cfg, row, behind) for row in rows if row["status"] != closings.ENDED]
    progress = state.get("progress") or {}
    if behind or not calls:
        progress = {}
    job, advice, usual = (earlier.job, earlier.advice, earlier.usual) if earlier else ask(target, date, progress)
    return View(
        calls,
        " ".join(str(progress[name]) for name in ("step", "state") if progress.get(name)),
        first_line(str(progress.get("error") or "")),
        job,
        moment(rows[0]["created_at"]) if calls else None,
        usual,
        advice,
        not calls,
    )


def describe(cfg: dict, row: dict, behind: str | None) -> tuple[str, str, str]:
    """Return an unfinished invocation, its state in words, and its last error."""
    status, error = row["status"], row.get("last_failure") or ""
    if status == "paused":
        error = closings.last_failure(cfg, row)
    elif behind and row["target"].startswith("ClosingPeriod"):
        status = f"queued behind the closing of {behind}"
    elif status == "backing-off":
        at = f", next try at {row['next_retry_at'][11:19]} UTC" if row.get("next_retry_at") else ""
        status = f"failed {row.get('retry_count') or 1} times{at}"
    return row["target"], status, first_line(error)


def ask(target: Target, date: str, progress: dict) -> tuple[str, str, float | None]:
    """Return (the job's state in Genius, the next command, the median duration).

    If the function does not answer, state and duration are empty, and the command is that of the doctor.
    """
    try:
        known = next_command.known_state(target.cfg, date)
    except Exit as error:
        return "", ping.with_next(error, target.env), None
    advice = next_command.worded(plan_next(known, target.env))
    name = progress.get("job") or (known["closing"] or {}).get("job")
    jobs = known["jobs"] if isinstance(known["jobs"], list) else []
    states = [f"{one['job']} is {one['state'] or 'dropped'}" for one in jobs if one["job"] == name]
    return "".join(states) or (known["jobs"] if isinstance(known["jobs"], str) else ""), advice, usual_seconds(target)


def usual_seconds(target: Target) -> float | None:
    """Return the median duration of the last complete closings, None without one."""
    try:
        rows = history.fetch(target, history.ESTIMATE_RUNS)
    except Exit:
        return None
    took = [history.durations(row)["total"] for row in rows if all(row[step] == "succeeded" for step in STEPS)]
    took = [one for one in took if one is not None]
    return statistics.median(took) if took else None


def moment(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def lines(view: View, now: float) -> list[str]:
    """Return the view as plain lines, without its empty parts; the last line has the next command."""
    found = []
    for at, (call, status, error) in enumerate(view.calls):
        found.append(f"{'' if at else 'Restate':<9} {call}: {status}{f'; {error}' if error else ''}")
    if view.job:
        found.append(f"{'Genius':<9} {view.job}")
    if view.step:
        found.append(f"{'step':<9} {view.step}{f': {view.error}' if view.error else ''}")
    if view.begun:
        usual = f", usually {history.format_seconds(view.usual)}" if view.usual else ""
        found.append(f"{'time':<9} has run for {history.format_seconds(now - view.begun)}{usual}")
    return [*found, view.advice]


def watch(target: Target, date: str) -> None:
    """Follow a closing until it ends: a live view on a terminal, plain lines elsewhere; Exit if it failed."""
    # Imported here, because other tasks do not need it and it takes time.
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not sys.stdout.isatty() or console.is_dumb_terminal or not closings.running(target.cfg, date):
        history.follow(target, date)
        return
    seen, asked = view_of(target, date), time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not seen.ended:
            live.update(picture(seen, time.time()), refresh=True)
            time.sleep(REFRESH_SECONDS)
            again = time.monotonic() - asked > INSPECT_SECONDS
            asked = time.monotonic() if again else asked
            seen = view_of(target, date, None if again else seen)
    closings.follow(target.cfg, date)


def step_states(step: str) -> list[tuple[str, str]]:
    """Return the state of each step of a closing; step: the current one's words, "" for a closing in the queue."""
    name = step.partition(" ")[0]
    # Whatever is not a later step belongs to the procedure: a submit, a wait, the job of an earlier closing.
    current = STEPS.index(name) if name in STEPS else 0 if step else -1
    return [(one, "waits" if at > current else "runs" if at == current else "done") for at, one in enumerate(STEPS)]


def picture(view: View, now: float):
    """Return the live view: progress against the median of earlier closings, the invocations, the next command."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    ran = now - (view.begun or now)
    table = Table(box=None, pad_edge=False)
    for name in ("invocation", "state", "last error"):
        table.add_column(name, overflow="fold")
    for row in view.calls:
        table.add_row(*(Text(cell) for cell in row))
    steps = Table(box=None, pad_edge=False, show_header=False)
    for row in step_states(view.step):
        steps.add_row(*row)
    head = Text(f"{view.step or 'queued'}  {history.format_seconds(ran)}", style="bold")
    if view.usual:
        head.append(f" of usually {history.format_seconds(view.usual)}", style="default")
    bar = [ProgressBar(total=view.usual, completed=min(ran, view.usual), width=40)] if view.usual else []
    rest = [Text(one) for one in (view.error and f"error: {view.error}", view.job, view.advice) if one]
    return Group(head, *bar, steps, table, *rest)
