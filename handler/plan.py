"""Which steps of a date are done, and which a new run leaves out: plain values in, plain values out."""

from __future__ import annotations

from .job_status import GIVEN_UP
from .request import STEPS

# Outcomes of the genius step that leave the result of its job in Genius unrecorded.
OPEN = ("pending", "unknown", "unobserved")


def done(rows: list[dict]) -> list[str]:
    """Return the steps that need not be done again, given a date's earlier runs in the order of their start.

    A step counts only on top of the one before it: a procedure that ran later makes ledger and metrics stale, and
    one that failed later leaves Genius' balances in doubt.
    """
    found: list[str] = []
    for row in rows:
        if row["genius"] == "succeeded":
            found = ["genius"]
        elif row["genius"] in ("failed", "unknown"):
            found = []
        for step, below in (("ledger", "genius"), ("metrics", "ledger")):
            if row[step] == "succeeded" and below in found:
                found = [*STEPS[: STEPS.index(step)], step]
    return found


def plan(date: str, rows: list[dict], resume: bool, first: str | None) -> list[str]:
    """Return the steps that a new run of a date leaves out; raises ValueError if it must not start.

    resume: go on at the first step that has not succeeded; first: go on at this step, even if it has succeeded.
    """
    already = done(rows)
    if already == list(STEPS) and first is None:
        raise ValueError(f"{date} is closed already; to repeat it: `inv rerun --env ENV --date {date} --from genius`")
    if not resume:
        return []
    before = list(STEPS[: STEPS.index(first)]) if first else already
    missing = [step for step in before if step not in already]
    if missing:
        raise ValueError(
            f"{date} has no {missing[0]} step that succeeded; rerun it without --from, or with --from {missing[0]}"
        )
    return before


def next_command(state: dict, env: str = "ENV") -> dict:
    """Return the one safe next command for a date: {"command", "reason"}; an empty command if nothing is to be done.

    state: {"date", "run", "paused", "newer", "queuedBehind", "blocked", "closing", "hold", "jobs", "rows"}, each absent
    or None if unknown or not there:
    run: {"status": Restate's invocation status, "failure"} of DailyClosing/DATE/run; paused: the id of the paused
    invocation that this date waits for; newer: whether a newer version than its own is deployed; queuedBehind: the date
    that holds the period; blocked and closing: ClosingPeriod's state; hold: the scheduler's, see describe_hold; jobs:
    genius.period_jobs of the period, or an error; rows: closing_runs of the date, or an error.
    """
    date, period = state["date"], state["date"][:7]
    run, blocked = state.get("run"), state.get("blocked")

    def answer(reason: str, task: str, *words: str) -> dict:
        return {"command": " ".join(["inv", task, "--env", env, *words]) if task else "", "reason": reason}

    of_date = ("--date", date)
    for part in ("rows", "jobs"):
        if isinstance(state.get(part), str):
            return answer(f"{'PostgreSQL' if part == 'rows' else 'Genius'} cannot be read: {state[part]}", "doctor")
    rows, jobs = state.get("rows") or [], {one["job"]: one for one in state.get("jobs") or []}
    if state.get("paused"):
        reason = f"Restate has paused {state['paused']} after repeated errors; fix their cause, then resume it"
        if state.get("newer"):
            # A resumed invocation keeps the code, settings and passwords of its own version.
            return answer(f"{reason} on the version that was deployed meanwhile", "resume", *of_date, "--latest")
        return answer(reason, "resume", *of_date)
    if run and run["status"] != "completed":
        if behind := state.get("queuedBehind"):
            return answer(f"{date} waits for the closing of {behind}", "next", "--date", behind)
        return answer(f"{date} is not closed yet", "status", *of_date, "--watch")
    left, finished = left_jobs(state), done(rows)
    if finished == list(STEPS) and not left and not (blocked and blocked["date"] == date):
        return answer(f"{date} is closed", "")
    if blocked:
        reason = f"{period} is blocked by job {blocked['job']}: {blocked['message']}"
        if jobs.get(blocked["job"], {}).get("state") == "RUNNING":
            return answer(f"{reason}; it is still RUNNING: wait for its end", "next", *of_date)
        question = "find out in Genius whether the procedure did its work; if it did, decide --as succeeded"
        return answer(f"{reason}; {question}", "resolve", "--period", period, "--as", "failed")
    if state.get("hold"):
        return answer(f"{describe_hold(state['hold'])}; after its end {date} can be closed", "release")
    if left:
        return answer(f"the outcome of job {left[0]} is not recorded yet", "rerun", *of_date, "--adopt")
    if not run and not rows:
        return answer(f"{date} was never accepted", "close", *of_date)
    lacking = [step for step in STEPS if step not in finished]
    return answer(f"{date} lacks {', '.join(lacking)}: {end_of(rows, run)}", "rerun", *of_date)


def end_of(rows: list[dict], run: dict | None) -> str:
    """Return why a date's last run ended: a person's decision on its job, the reason of its row, or Restate's."""
    last = rows[-1] if rows else {}
    if decided := (last.get("detail") or {}).get("resolved"):
        return f"{last['job']} was decided as {decided['as']} by {decided['who']}"
    return last.get("message") or (run or {}).get("failure") or "its run has ended"


def describe_hold(hold: dict) -> str:
    """Describe a hold in one line; hold: {"who", "reason", "at", "until"}, until None for one that a person ends."""
    until = f" until {hold['until']}" if hold["until"] else ""
    return f"closings are held by {hold['who']} since {hold['at']}{until}: {hold['reason']}"


def announce(state: dict, first: str | None, adopt: bool) -> dict:
    """Return what a rerun will do: {"procedure": "run" | "none", "text"}; raises ValueError if it must not start.

    state: as of next_command; first: the step to repeat from; adopt: take over the outcome of the job that is left.
    The service refuses to run the procedure if this answer was not "run".
    """
    date, closing = state["date"], state.get("closing")
    if state.get("blocked") or isinstance(state.get("rows"), str) or isinstance(state.get("jobs"), str):
        raise ValueError(next_command(state)["reason"])
    left = left_jobs(state)
    if adopt and first:
        raise ValueError("--adopt never runs a step again; leave out --from")
    if adopt and not left:
        raise ValueError(f"no earlier closing of {date} left a job to take over; leave out --adopt")
    other = closing if closing and closing["date"] != date else None
    before = f"waits for the end of {other['job']} of {other['date']} and records it; " if other else ""
    if adopt:
        text = f"{before}waits for the end of {left[0]} and takes over its outcome; the procedure does not run again"
        return {"procedure": "none", "text": text}
    if left and first != "genius":
        raise ValueError(
            f"the outcome of job {left[0]} of this date is not recorded: --adopt takes it over, --from genius waits for"
            " its end and runs the procedure again"
        )
    left_out = plan(date, state.get("rows") or [], True, first)
    procedure = "none" if left_out else "run"
    if closing and not other:
        before = f"waits for the end of {closing['job']} of {date} and records it; "
    kept = f"keeps {', '.join(left_out)}; " if left_out else ""
    step = STEPS[len(left_out)]
    return {
        "procedure": procedure,
        "text": f"{before}{kept}goes on with {step}{': the PROCEDURE RUNS' * (not left_out)}",
    }


def left_jobs(state: dict) -> list[str]:
    """Return a date's jobs whose outcome is not recorded: of a killed closing, or of one that Restate has forgotten."""
    closing, rows, jobs = state.get("closing"), state.get("rows") or [], state.get("jobs") or []
    if closing and closing["date"] == state["date"]:
        return [closing["job"]]
    recorded = {row["job"] for row in rows if row["genius"] not in OPEN}
    return [
        job["job"]
        for job in jobs
        if job["ours"] and job["date"] == state["date"] and job["mark"] != GIVEN_UP and job["job"] not in recorded
    ]
