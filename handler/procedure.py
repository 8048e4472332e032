"""The job protocol: a closing starts the procedure at most once. Its outcome is recorded, or a person decides about it.

A job has a name that belongs to one closing. Its guard takes the start mark `{job}_S` before it calls the procedure.
Whoever gives a job up takes the same mark: so either the job has started, or it never will. The state `closing` of the
period holds the job until its outcome is recorded in closing_runs; `blocked` holds a job whose outcome a person must
decide.
"""

from __future__ import annotations

from datetime import timedelta

from restate import ObjectContext, TerminalError

from . import entry, genius, plan, runs, settings
from .errors import Refused, Unavailable
from .job_status import GIVEN_UP, evaluate, interval
from .step import report_progress, report_stuck, step

SETTINGS = settings.current()
# HTTP's status codes: the job is not in the state that the request expects; the period waits for a person's decision;
# the closing was cancelled.
MISMATCH, BLOCKED, CANCELLED = 412, 423, 409


async def refuse_blocked(ctx: ObjectContext) -> None:
    blocked = await ctx.get("blocked", type_hint=dict)
    if blocked:
        raise TerminalError(blocked_message(ctx.key(), blocked), status_code=BLOCKED)


def blocked_message(key: str, blocked: dict) -> str:
    found = plan.next_command({"date": blocked["date"] or f"{key}-01", "blocked": blocked})
    return f"{found['reason']}; check it in Genius, then run `{found['command']}`"


async def recover_previous_job(ctx: ObjectContext, request: dict) -> None:
    """Record the outcome of a job whose closing ended without recording it; wait for the outcome if necessary.

    A rerun of the same date must decide about the job: take over its outcome, or run the procedure again.
    """
    previous = await ctx.get("closing", type_hint=dict)
    chosen = request["resume"] and (request["adopt"] or request["fromStep"] == "genius")
    if previous and previous["date"] != request["date"]:
        report_progress(ctx, "previous job", previous)
        await settle(ctx, previous)
        previous = None
    if not previous and chosen:
        # Restate may have lost its data, or PostgreSQL the run: Genius still has the job.
        found = await step(ctx, "unaccounted jobs", unaccounted_jobs, period=ctx.key())
        previous = next((one for one in found if one["date"] == request["date"]), None)
    if request["adopt"] and not previous:
        message = f"no earlier closing of {request['date']} left a job to take over; rerun without --adopt"
        raise TerminalError(message, status_code=MISMATCH)
    if not previous:
        return
    if request["resume"] and not chosen:
        found = plan.next_command({"date": previous["date"], "closing": previous})
        raise TerminalError(f"{found['reason']}; `{found['command']}` takes it over", status_code=MISMATCH)
    report_progress(ctx, "previous job", previous)
    known = await settle(ctx, previous)
    if request["adopt"] and known["outcome"] != "succeeded":
        raise TerminalError(
            f"{previous['job']} {known['outcome']}: {known['message']}; --adopt starts no other job:"
            f" `inv rerun --env ENV --date {previous['date']}` prints what it would run"
        )


async def settle(ctx: ObjectContext, closing: dict) -> dict:
    """Return the recorded outcome of a job that an earlier closing submitted, or was about to submit."""
    if not closing["submitted"] and await step(ctx, "reserve name", genius.reserve_name, job=closing["job"]):
        known = {"outcome": "never-submitted", "message": "its closing ended before the job was created"}
    else:
        known = await wait(ctx, closing["job"], closing)
    return await conclude(ctx, closing["job"], known, closing)


async def run_procedure(ctx: ObjectContext, owner: str, request: dict) -> dict:
    """Submit the closing job, wait for its end and record it; raises TerminalError unless it succeeded."""
    if request["procedure"] == "none":
        raise TerminalError(
            f"{request['date']}: the procedure would run again, and the request did not confirm that; nothing was"
            f" started: `inv rerun --env ENV --date {request['date']}` prints what it would run",
            status_code=MISMATCH,
        )
    job = genius.job_name(ctx.key(), owner)
    await refuse_unaccounted(ctx)
    closing = {"owner": owner, "date": request["date"], "job": job, "userId": request["userId"], "submitted": False}
    # Journaled before the submit, because the step between the two is acknowledged by a new invocation.
    ctx.set("closing", closing)
    await await_live_jobs(ctx, job)
    report_progress(ctx, "submit", closing)
    known = {"owner": owner, "date": request["date"], "user_id": request["userId"]}
    submitted = await step(ctx, "submit", genius.submit, period=ctx.key(), **known)
    closing = {**closing, "submitted": True, "since": submitted["at"]}
    ctx.set("closing", closing)
    known = await conclude(ctx, job, await wait(ctx, job, closing), closing)
    if known["outcome"] != "succeeded":
        raise TerminalError(f"{job} {known['outcome']}: {known['message']}")
    return known


async def refuse_unaccounted(ctx: ObjectContext) -> None:
    """Block the period if Genius has a closing job of it that no recorded run accounts for.

    Restate's data or PostgreSQL's may have been lost or restored from an older backup: the job can be the one of an
    accepted request, and only a person can know.
    """
    found = await step(ctx, "unaccounted jobs", unaccounted_jobs, period=ctx.key())
    if found:
        message = f"no recorded run accounts for it (it is {found[0]['state']}): Restate or PostgreSQL has lost data"
        known = {name: found[0][name] for name in ("job", "date")}
        await block(ctx, {**known, "ours": True, "at": None, "message": message})


def unaccounted_jobs(period: str) -> list[dict]:
    """Return our closing jobs that may have started and that neither closing_runs nor a decision accounts for, by name.

    Returns them as `closing` has them, with "state".
    """
    jobs = {one["job"]: one for one in genius.period_jobs(period) if one["ours"] and one["mark"] != GIVEN_UP}
    names = ("job", "date", "owner", "userId", "state")
    return [{name: jobs[job][name] for name in names} | {"submitted": True} for job in runs.unaccounted(sorted(jobs))]


async def await_live_jobs(ctx: ObjectContext, own: str) -> None:
    """Wait until no other job of the period is live, such as one that a person or the older service has started."""
    for job in await step(ctx, "live jobs", genius.live_jobs, period=ctx.key(), job=own):
        report_progress(ctx, "other job", {"job": job})
        await conclude(ctx, job, await wait(ctx, job, {}, ours=False), None)


async def wait(ctx: ObjectContext, job: str, closing: dict, ours: bool = True) -> dict:
    """Sleep and poll until the job's end is known; returns the last result of job_status.evaluate.

    ours: the job has our guard, so that it can be given up if it does not start in time.
    The clock is that of the polls, which the journal keeps: the wall clock would differ at each replay.
    """
    known = {"since": closing["since"]} if "since" in closing else {}
    polls = 0
    while "outcome" not in known:
        pause = interval(polls, SETTINGS.poll_initial_seconds, SETTINGS.poll_factor, SETTINGS.poll_cap_seconds)
        await ctx.sleep(timedelta(seconds=pause))
        about = {"job": job, "silent_since": known.get("unreachableSince")}
        seen = await step(ctx, f"poll {polls + 1}", poll, **about, period=ctx.key(), invocation=ctx.request().id)
        before = known.get("state"), known.get("error")
        known = evaluate(known, seen, SETTINGS.start_limit_seconds, SETTINGS.deadline_seconds, ours)
        polls += 1
        if known.get("overdue"):
            known |= await step(ctx, "give up", give_up, job=job)
        if (known.get("state"), known.get("error")) != before:
            report_progress(ctx, "wait", {"job": job, **known})
    return {**known, "polls": polls}


def poll(job: str, silent_since: float | None, period: str, invocation: str) -> dict:
    """Poll a job once, see genius.poll_job; report a silence of Genius, which fails no step, when it lasts.

    silent_since: epoch seconds of the first poll since which Genius has not answered.
    """
    seen = genius.poll_job(job)
    if not seen["reachable"] and silent_since:
        about = {"step": "poll", "period": period, "invocation": invocation, "job": job}
        report_stuck(seen["at"] - silent_since, **about, error=seen["error"])
    return seen


def give_up(job: str) -> dict:
    """Give up a job that has not started; returns its outcome, or {} if it has started or Genius does not answer."""
    try:
        mark = genius.give_up(job)
    except (Refused, Unavailable):
        # The next poll reports the error.
        return {}
    if mark != GIVEN_UP:
        return {}
    return {"outcome": "never-started", "message": "the job did not start in time and was given up"}


async def conclude(ctx: ObjectContext, job: str, known: dict, closing: dict | None) -> dict:
    """Record a job's end in the row of the closing that submitted it, then forget the job; returns what is recorded.

    closing: that closing, None for a job of another program. An end that could not be observed keeps the job for
    `inv rerun --adopt`. An unknown end blocks the period until a person has decided what happened.
    """
    recorded = await step(
        ctx, "record genius", runs.record_job, must_end=True,
        job=job, outcome=known["outcome"], detail=known, closing=closing,
    )  # fmt: skip
    known = {**known, "outcome": recorded}
    if recorded == "unobserved":
        raise TerminalError(f"{job}: its end could not be observed: {known['message']}; the job goes on in Genius")
    if recorded == "unknown":
        blocked = {"date": closing and closing["date"], "job": job, "message": known["message"], "at": known["at"]}
        await block(ctx, {**blocked, "ours": closing is not None})
    if closing:
        ctx.clear("closing")
    return known


async def block(ctx: ObjectContext, blocked: dict) -> None:
    """Stop here, and let no later closing of the period start before a person has decided what happened."""
    ctx.clear("closing")
    ctx.set("blocked", blocked)
    raise TerminalError(blocked_message(ctx.key(), blocked), status_code=BLOCKED)


async def release(ctx: ObjectContext, owner: str) -> None:
    """Give up the own job of a cancelled closing if it has not started; a started one is kept for `--adopt`."""
    closing = await ctx.get("closing", type_hint=dict)
    if not closing or closing["owner"] != owner:
        return
    if await entry.outlast(step(ctx, "release", released, closing=closing)):
        ctx.clear("closing")


def released(closing: dict) -> bool:
    """Give up a job that has not started and record that; returns whether it never ran and never will."""
    try:
        if not closing["submitted"] and genius.reserve_name(closing["job"]):
            outcome, message = "never-submitted", "its closing was cancelled before the job was created"
        elif genius.give_up(closing["job"]) == GIVEN_UP:
            outcome, message = "never-started", "its closing was cancelled before the job started"
        else:
            return False
    except (Refused, Unavailable):
        return False
    runs.record_job(closing["job"], outcome, {"outcome": outcome, "message": message}, closing)
    return True


def decide(job: str, outcome: str, who: str, blocked: dict, period: str) -> dict:
    """Record a person's decision on the job that blocks a period; raises Refused while the job can still act.

    A job of ours that has not started is given up, so that it cannot start after the decision.
    """
    seen = genius.poll_job(job)
    if not seen["reachable"]:
        raise Unavailable(f"{seen['error']}; a decision needs Genius' own answer first")
    if seen.get("refused"):
        raise Refused(seen["refused"])
    if seen["state"] == "RUNNING":
        raise Refused(f"{job} is still RUNNING; wait for its end, or have it stopped in Genius; nothing was changed")
    never_started = blocked.get("ours") and genius.give_up(job) == GIVEN_UP and seen["state"]
    if never_started and outcome == "succeeded":
        raise Refused(f"{job} has never started, so it did not succeed; it is given up now: resolve it as failed")
    # A job that never started leaves the balances of an earlier one as they are.
    known = "never-started" if never_started else outcome
    return runs.resolve(job, outcome, who, blocked["date"], period, known)
