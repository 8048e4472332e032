"""inv history: the last closings as a table, and how long the one that runs may take yet."""

from __future__ import annotations

import statistics
import time
from datetime import datetime, timezone

from invoke import Exit

from handler import findings
from ops import closings, config, ping
from ops.task import NOTHING, task

STEPS = ("genius", "ledger", "metrics")
# An estimate looks at so many of the newest runs, and a table shows no more.
LOOKED_AT, MOST = 20, 366


@task(group="watch", changes=NOTHING, help={**config.ENV_HELP, "count": "how many closings"})
def history(c, env, count=10):
    """Show the last closings as closing_runs has them, with how long each step took."""
    cfg = config.load(env)
    if not 1 <= count <= MOST:
        raise Exit(f"--count {count} is out of range: expected a number from 1 to {MOST}")
    rows = ask(c, cfg, env, count)
    if not rows:
        print(f"{env}: closing_runs has no closing yet; start one with `inv close --env {env} --date D`")
        return
    print(table(rows))


def ask(c, cfg: dict, env: str, count: int) -> list[dict]:
    """The newest rows of closing_runs, through the function: it is the one that reaches the database."""
    answer = ping.ask(c, cfg, env, {"history": count})
    if not isinstance(answer, dict) or "runs" not in answer:
        raise Exit(f"{env}: the live version knows no history; run `inv deploy --env {env}`")
    return answer["runs"]


def follow(c, cfg: dict, env: str, date: str) -> None:
    """Follow a running closing to its end, after a line on how long it has run and may take yet."""
    if closings.running(cfg, date):
        try:
            print(f"{env}: {expectation(ask(c, cfg, env, LOOKED_AT), date, time.time())}", flush=True)
        except Exit as error:
            # What can be seen of the closing itself comes from Restate and needs no estimate.
            print(f"{env}: no estimate: {error.message}", flush=True)
    closings.follow(cfg, date)


def table(rows: list[dict]) -> str:
    lines = [f"{'date':<10}  {'started (UTC)':<16} {'status':<9} {'total':>9}" + "".join(f" {s:>10}" for s in STEPS)]
    for row in rows:
        known = durations(row)
        parts = "".join(f" {shown(row[step], known[step]):>10}" for step in STEPS)
        total = span(known["total"])
        line = f"{row['closing_date']:<10}  {row['started_at'][:16]:<16} {row['status']:<9} {total:>9}{parts}"
        lines.append(f"{line}  {' '.join(row['message'].split())[:80]}".rstrip())
        lines += [f"            {text}" for text in findings.texts(row["detail"])]
    return "\n".join(lines)


def shown(outcome: str, seconds: float | None) -> str:
    """A step that took time by its duration, any other by its outcome."""
    return span(seconds) if outcome == "succeeded" and seconds is not None else outcome


def durations(row: dict) -> dict[str, float | None]:
    """Seconds of a run's steps and of all of it, None where the row does not tell."""
    before = begin = moment(row["started_at"])
    known: dict[str, float | None] = {}
    for step in STEPS:
        at = row["detail"].get(step, {}).get("at")
        known[step] = None if at is None else max(0.0, at - before)
        before = at or before
    known["total"] = moment(row["ended_at"]) - begin if row["ended_at"] else None
    return known


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def span(seconds: float | None) -> str:
    """A duration as a person reads it: 0.4 s, 12 s, 3:05, 5:59:07."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def expectation(rows: list[dict], date: str, now: float) -> str:
    """One line on how long a date's closing has run and when it may end, from the whole closings before it."""
    own = next((row for row in rows if row["closing_date"] == date and row["status"] == "running"), None)
    whole = [
        durations(row)["total"]
        for row in rows
        if row["status"] == "succeeded" and all(row[step] == "succeeded" for step in STEPS)
    ]
    begun = f"{date} has run for {span(now - moment(own['started_at']))}" if own else f"{date} is not running"
    if not whole:
        return f"{begun}; no whole closing before it, so no estimate"
    usual = statistics.median(whole)
    line = f"{begun}; the last {len(whole)} whole closings took {span(usual)} (median)"
    if not own:
        return line
    end = moment(own["started_at"]) + usual
    if end < now:
        return f"{line}: this one takes longer"
    return f"{line}: expect its end at about {datetime.fromtimestamp(end, timezone.utc):%H:%M:%S} UTC"
