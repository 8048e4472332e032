"""inv history: the last closings as a table, and an estimate of how long the running one takes."""

from __future__ import annotations

import statistics
import time
from datetime import datetime, timezone

from invoke import Exit

from handler import findings
from handler.request import STEPS
from ops import closings, config, next_command, ping, terminal
from ops.target import Target
from ops.task import NOTHING, task

# The number of runs that an estimate reads, and the most that a table shows.
ESTIMATE_RUNS, MAX_RUNS = 20, 366


@task(group="watch", changes=NOTHING, uses=("aws",), help={**config.ENV_HELP, "count": "how many closings"})
def history(c, env, count=10):
    """Show the last closings from closing_runs, with the duration of each step and what to do for those that failed."""
    target = Target.load(c, env)
    if not 1 <= count <= MAX_RUNS:
        raise Exit(f"--count {count} is out of range: expected a number from 1 to {MAX_RUNS}")
    rows = fetch(target, count)
    if not rows:
        print(f"{env}: closing_runs has no closing yet; start one with `inv close --env {env} --date D`")
        return
    print(table(rows))
    for date in sorted(open_dates(rows)):
        print(f"{date}: {next_command.advice(target, date)}")


def open_dates(rows: list[dict]) -> list[str]:
    """Return the dates whose newest run has not succeeded; rows: of closing_runs, the newest first."""
    newest = {row["closing_date"]: row["status"] for row in reversed(rows)}
    return [date for date, status in newest.items() if status != "succeeded"]


def fetch(target: Target, count: int) -> list[dict]:
    """Return the newest rows of closing_runs, through the function, because only it reaches the database."""
    answer = ping.send(target, {"history": count})
    if not isinstance(answer, dict) or "runs" not in answer:
        raise Exit(f"{target.env}: the live version has no history; run `inv deploy --env {target.env}`")
    return answer["runs"]


def follow(target: Target, date: str) -> None:
    """Follow a running closing until it ends, after one line with its duration so far and an estimate of its end."""
    if closings.running(target.cfg, date):
        try:
            print(f"{target.env}: {estimate(fetch(target, ESTIMATE_RUNS), date, time.time())}", flush=True)
        except Exit as error:
            # The closing itself is read from Restate, which needs no estimate.
            print(f"{target.env}: no estimate: {error.message}", flush=True)
    closings.follow(target.cfg, date)


def table(rows: list[dict]) -> str:
    """Format rows of closing_runs as a table."""
    cells = []
    for row in rows:
        known = durations(row)
        steps = [format_step(row[step], known[step]) for step in STEPS]
        begun, message = row["started_at"][:16], " ".join(row["message"].split())[:80]
        cells.append((row["closing_date"], begun, row["status"], format_seconds(known["total"]), *steps, message))
        cells += [("", "", "", "", "", "", "", text) for text in findings.texts(row["detail"])]
    return terminal.table(cells, ("date", "started (UTC)", "status", "total", *STEPS, ""), right=(3, 4, 5, 6))


def format_step(outcome: str, seconds: float | None) -> str:
    """Format a step that succeeded as its duration, and any other step as its outcome."""
    return format_seconds(seconds) if outcome == "succeeded" and seconds is not None else outcome


def durations(row: dict) -> dict[str, float | None]:
    """Return the seconds of a run's steps and its total, each None if the row does not have it."""
    before = begin = timestamp(row["started_at"])
    known: dict[str, float | None] = {}
    for step in STEPS:
        at = row["detail"].get(step, {}).get("at")
        known[step] = None if at is None else max(0.0, at - before)
        before = at or before
    known["total"] = timestamp(row["ended_at"]) - begin if row["ended_at"] else None
    return known


def timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def format_seconds(seconds: float | None) -> str:
    """Format a duration for a person: 0.4 s, 12 s, 3:05, 5:59:07."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def estimate(rows: list[dict], date: str, now: float) -> str:
    """Describe in one line how long a date's closing has run and when it may end, given the complete closings."""
    own = next((row for row in rows if row["closing_date"] == date and row["status"] == "running"), None)
    complete = [
        durations(row)["total"]
        for row in rows
        if row["status"] == "succeeded" and all(row[step] == "succeeded" for step in STEPS)
    ]
    begun = f"{date} is not running"
    if own:
        begun = f"{date} has run for {format_seconds(now - timestamp(own['started_at']))}"
    if not complete:
        return f"{begun}; no complete closing before it, so no estimate"
    usual = statistics.median(complete)
    line = f"{begun}; the last {len(complete)} complete closings took {format_seconds(usual)} (median)"
    if not own:
        return line
    end = timestamp(own["started_at"]) + usual
    if end < now:
        return f"{line}: this one takes longer"
    return f"{line}: expect its end at about {datetime.fromtimestamp(end, timezone.utc):%H:%M:%S} UTC"
