"""One view of a closing: what Restate, Genius and closing_runs know of a date, as lines and as a live view."""

from __future__ import annotations

import statistics
import sys
import threading
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
REFRESH_SECONDS, INSPECT_SECONDS = 1.0, 10.0


class Answer(NamedTuple):
    """The function's knowledge of a date. job: its name and its state in Genius; advice: the next command; usual: the
    seconds of the median of earlier closings, None if there is none; at: when it was asked, epoch seconds."""

    job: str
    advice: str
    usual: float | None
    at: float


class View(NamedTuple):
    """calls: (invocation, its state in words, its last error); begun: epoch seconds; answer: None before the function
    has answered for the first time; ended: nothing runs any more."""

    calls: list[tuple[str, str, str]]
    step: str
    error: str
    begun: float | None
    answer: Answer | None
    ended: bool


def view_of(target: Target, date: str, answer: Answer | None) -> View:
    """Return the view of a date from Restate, with the function's newest answer."""
    cfg = target.cfg
    rows = sql(cfg, INVOLVED, date, date)
    state = closings.state_of(cfg, "ClosingPeriod", date[:7])
    closes = closings.live_closes(cfg, date[:7])
    behind = closes[0]["date"] if closes and closes[0]["date"] != date else None
    calls = [describe(cfg, row, behind) for row in rows if row["status"] != closings.ENDED]
    progress = state.get("progress") or {}
    if behind or not calls:
        progress = {}
    return View(
        calls,
        " ".join(str(progress[name]) for name in ("step", "state") if progress.get(name)),
        first_line(str(progress.get("error") or "")),
        moment(rows[0]["created_at"]) if calls else None,
        answer,
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


def ask(target: Target, date: str) -> Answer:
    """Ask the function what Genius and closing_runs know of a date.

    If it does not answer, job and duration are empty, and the command is that of the doctor.
    """
    at = time.time()
    try:
        known = next_command.known_state(target.cfg, date)
    except Exit as error:
        return Answer("", ping.with_next(error, target.env), None, at)
    advice, closing = next_command.worded(plan_next(known, target.env)), known["closing"] or {}
    jobs = known["jobs"] if isinstance(known["jobs"], list) else []
    of_date = [one for one in jobs if one["job"] == closing.get("job") and closing["date"] == date]
    states = [f"{one['job']} is {one['state'] or 'dropped'}" for one in of_date]
    job = "".join(states) or (known["jobs"] if isinstance(known["jobs"], str) else "")
    return Answer(job, advice, usual_seconds(target), at)


def keep_asking(target: Target, date: str, answers: list[Answer]) -> None:
    """Ask the function for ever; the list has its newest answer, and nothing before the first one."""
    while True:
        answers[:] = [ask(target, date)]
        time.sleep(INSPECT_SECONDS)


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
    if view.answer and view.answer.job:
        found.append(f"{'Genius':<9} {view.answer.job}")
    if view.step:
        found.append(f"{'step':<9} {view.step}{f': {view.error}' if view.error else ''}")
    if view.begun:
        usual = f", usually {history.format_seconds(view.answer.usual)}" if view.answer and view.answer.usual else ""
        found.append(f"{'time':<9} has run for {history.format_seconds(now - view.begun)}{usual}")
    return [*found, *([view.answer.advice] if view.answer else [])]


def watch(target: Target, date: str) -> None:
    """Follow a closing until it ends: a live view on a terminal, plain lines elsewhere; Exit if it failed."""
    # Imported here, because other tasks do not need it and it takes time.
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not sys.stdout.isatty() or console.is_dumb_terminal or not closings.running(target.cfg, date):
        history.follow(target, date)
        return
    # In a thread, because a function that does not answer must not stop the view of Restate.
    answers: list[Answer] = []
    threading.Thread(target=keep_asking, args=(target, date, answers), daemon=True).start()
    seen = view_of(target, date, None)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not seen.ended:
            live.update(picture(seen, time.time()), refresh=True)
            time.sleep(REFRESH_SECONDS)
            seen = view_of(target, date, answers[0] if answers else None)
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
    job, advice, usual, at = view.answer or ("", "", None, now)
    if usual:
        head.append(f" of usually {history.format_seconds(usual)}", style="default")
    bar = [ProgressBar(total=usual, completed=min(ran, usual), width=40)] if usual else []
    known = job and f"{job}, asked {history.format_seconds(now - at)} ago"
    rest = [Text(one) for one in (view.error and f"error: {view.error}", known, advice) if one]
    return Group(head, *bar, steps, table, *rest)
