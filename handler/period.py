"""ClosingPeriod: runs one closing of a period at a time and holds the period from the procedure to the metrics."""

from __future__ import annotations

import contextlib
import functools
import time
from datetime import timedelta

from restate import ObjectContext, ObjectSharedContext, RunOptions, TerminalError, VirtualObject

from . import entry, genius, ledger, log, runs, settings
from .errors import Refused, Unavailable
from .job_status import evaluate, interval
from .request import check_close, check_inspect, check_period, check_resolve

SETTINGS = settings.current()
# A database that does not answer is asked until it does: these retries do not count for Restate's own limit.
UNTIL_IT_ANSWERS = RunOptions(
    initial_retry_interval=timedelta(milliseconds=500),
    max_retry_interval=timedelta(seconds=SETTINGS.retry_cap_seconds),
    retry_interval_factor=2.0,
)
# A handler that somebody waits for, or that has started nothing yet, asks a few times and then ends with the error.
TRIES, TRY_SECONDS = 3, 0.3

# The arguments of a step that its log line shows; they include the full message of Genius.
LOGGED = ("date", "job", "outcome", "status", "message", "detail")

# HTTP's "locked": the period waits for a person's decision. 409 is how a cancellation arrives.
BLOCKED = 423
ENDS = {409: "cancelled", BLOCKED: "blocked"}

period = VirtualObject(
    "ClosingPeriod",
    abort_timeout=timedelta(seconds=SETTINGS.abort_timeout_seconds),
    journal_retention=timedelta(days=SETTINGS.retention_days),
    invocation_retry_policy=entry.retries("kill"),
)


def step(ctx: ObjectContext, name: str, function, *, patient: bool = True, pauses: bool = True, **arguments):
    """Begin one durable step and return the future of its result; Refused ends the invocation.

    patient: repeat the step until the databases answer, otherwise three times; pauses: see entry.checked.
    Only a real execution writes a log line, so a replay is silent.
    """

    @functools.wraps(function)
    def logged(**arguments):
        known = {key: value for key, value in arguments.items() if key in LOGGED and value is not None}
        about = {"step": name, "period": period_key, "invocation": invocation, **known}
        begin = time.monotonic()
        try:
            result = function(**arguments) if patient else few_tries(function, **arguments)
        except Refused as error:
            log.write("step_refused", **about, error=str(error))
            raise TerminalError(str(error)) from error
        except Unavailable as error:
            log.write("step_failed", **about, error=str(error))
            raise (error if patient else TerminalError(str(error))) from error
        except Exception as error:
            raise entry.own_error(error, pauses, **about) from error
        log.write("step", **about, seconds=round(time.monotonic() - begin, 3))
        return result

    period_key, invocation = ctx.key(), ctx.request().id
    return ctx.run_typed(name, logged, UNTIL_IT_ANSWERS, **arguments)


def few_tries(function, **arguments):
    """Call a step's function, again a moment later if a database does not answer."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(Unavailable):
            return function(**arguments)
        time.sleep(TRY_SECONDS)
    return function(**arguments)


# A step of a handler that somebody waits for.
answer_step = functools.partial(step, patient=False, pauses=False)


@period.handler(ingress_private=True, input_serde=entry.Body(), invocation_retry_policy=entry.retries("pause"))
@entry.checked(check_close, pauses=True)
async def close(ctx: ObjectContext, request: dict) -> dict:
    """Close one date of this period, from the procedure to the metrics; only DailyClosing calls it.

    request: see check_close. Returns {"date", "period", "run", "job", "genius", "ledger", "metrics"}. The result
    changes only by addition, because the caller may run on an older version; the request carries its protocol.
    """
    await refuse_blocked(ctx)
    await refuse_unadopted(ctx, request)
    # The invocation's own id: a workflow's id comes from its key and would be the same again after a purge.
    owner, date = ctx.request().id, request["date"]
    job = None if request["skipGeniusClosing"] else genius.job_name(ctx.key(), owner)
    begun = await step(
        ctx, "begin", runs.begin, patient=False, owner=owner, date=date, user_id=request["userId"], job=job
    )
    try:
        await recover_previous_job(ctx, owner)
        resume, first = request.get("resume", False), request.get("fromStep")
        done = await step(ctx, "plan", runs.left_out, owner=owner, date=date, resume=resume, first=first)
        outcome = {
            "genius": await run_procedure(ctx, owner, request, done),
            "ledger": await sync_ledger(ctx, owner, request, done),
            "metrics": await compute_metrics(ctx, owner, request, done),
        }
        whole = all(one["outcome"] != "skipped" for one in outcome.values())
        await end(ctx, owner, date, "succeeded", "", whole)
    except TerminalError as error:
        await end(ctx, owner, date, ENDS.get(error.status_code, "failed"), error.message)
        raise
    return {"date": date, "period": ctx.key(), "run": begun["run"], "job": job, **outcome}


@period.handler(kind="shared")
@entry.checked(check_period)
async def status(ctx: ObjectSharedContext) -> dict:
    """Return the state of this period: {"progress", "closing", "blocked"}, each None if there is none."""
    return {name: await ctx.get(name, type_hint=dict) for name in ("progress", "closing", "blocked")}


@period.handler(kind="shared", input_serde=entry.Body())
@entry.checked(check_inspect)
async def inspect(ctx: ObjectSharedContext, request: dict) -> dict:
    """Return the jobs and runs of a date from Genius and closing_runs: {"jobs", "runs"}, either may be an error line.

    request: {"date"}.
    """
    jobs = await answer_step(ctx, "jobs", answer, what="jobs", argument=ctx.key())
    rows = await answer_step(ctx, "runs", answer, what="runs", argument=request["date"])
    return {"jobs": jobs, "runs": rows}


def answer(what: str, argument: str) -> list | str:
    """Return rows, or the error of a database in one line: the operator also needs the answer of the other one."""
    try:
        return genius.period_jobs(argument) if what == "jobs" else runs.of_date(argument)
    except (Refused, Unavailable) as error:
        return str(error)


@period.handler(kind="shared")
@entry.checked(check_period)
async def stop_job(ctx: ObjectSharedContext) -> dict:
    """Stop the job that this period's closing waits for; returns its name and the poll after the stop."""
    closing = await ctx.get("closing", type_hint=dict)
    if not closing:
        raise TerminalError(f"{ctx.key()} has no closing that waits for a job; nothing was stopped", status_code=404)
    return {"job": closing["job"], **await answer_step(ctx, "stop job", genius.stop_job, job=closing["job"])}


@period.handler(input_serde=entry.Body())
@entry.checked(check_resolve)
async def resolve(ctx: ObjectContext, request: dict) -> dict:
    """Record a person's decision on the job that blocks this period, and unblock it.

    request: {"job", "as": "succeeded" | "failed", "who"}; the job must be the one that blocks.
    """
    blocked = await ctx.get("blocked", type_hint=dict)
    if not blocked or blocked["job"] != request["job"]:
        raise TerminalError(f"{ctx.key()} is not blocked by {request['job']}; nothing was changed", status_code=409)
    decision = await answer_step(
        ctx, "resolve", runs.resolve, job=blocked["job"], outcome=request["as"], who=request["who"]
    )
    ctx.clear("blocked")
    return decision


async def refuse_blocked(ctx: ObjectContext) -> None:
    blocked = await ctx.get("blocked", type_hint=dict)
    if blocked:
        raise TerminalError(blocked_answer(ctx.key(), blocked), status_code=BLOCKED)


def blocked_answer(key: str, blocked: dict) -> str:
    return (
        f"{key} is blocked since the closing of {blocked['date']}: job {blocked['job']}: {blocked['message']}."
        " It is unknown whether the procedure ran; look in Genius, then record your decision with"
        f" `inv resolve --env ENV --period {key} --as succeeded|failed`"
    )


async def refuse_unadopted(ctx: ObjectContext, request: dict) -> None:
    """Refuse a rerun that does not name what to do with the job that a killed closing of the same date left behind."""
    earlier = await ctx.get("closing", type_hint=dict)
    chosen = request.get("adopt") or request.get("fromStep")
    if earlier and request.get("resume") and earlier["date"] == request["date"] and not chosen:
        raise TerminalError(
            f"the end of job {earlier['job']} of an earlier closing of {request['date']} is not recorded;"
            " `inv rerun --adopt` takes it over, `--from genius` waits for its end and runs the procedure again",
            status_code=409,
        )


async def recover_previous_job(ctx: ObjectContext, owner: str) -> None:
    """Wait for the end of a job whose closing was killed or cancelled, and record it as that closing's outcome."""
    earlier = await ctx.get("closing", type_hint=dict)
    if not earlier or earlier["owner"] == owner:
        return
    report_progress(ctx, "previous job", earlier)
    if not earlier["submitted"] and await step(ctx, "reserve_name", genius.reserve_name, job=earlier["job"]):
        known = {"outcome": "never-submitted", "message": "its closing ended before the job was created"}
    else:
        known = await wait(ctx, earlier["job"], earlier)
    # The row of a killed closing, should PostgreSQL have lost it, is written anew and ended by the next begin.
    await conclude(ctx, earlier["date"], earlier["job"], known, earlier)


async def run_procedure(ctx: ObjectContext, owner: str, request: dict, done: list[str]) -> dict:
    """Submit the closing job, wait for its end and record it; raises TerminalError unless it succeeded."""
    job = genius.job_name(ctx.key(), owner)
    left_out = await leave_out(ctx, owner, "genius", request["skipGeniusClosing"], done)
    if left_out:
        await await_live_jobs(ctx, job)
        return left_out
    closing = {"owner": owner, "date": request["date"], "job": job, "userId": request["userId"], "submitted": False}
    # Journaled before the submit, because the step between the two is acknowledged by a new invocation.
    ctx.set("closing", closing)
    await await_live_jobs(ctx, job)
    report_progress(ctx, "submit", closing)
    comments = f"finance-closing {request['date']}, by {request['userId']}, {owner}"
    submitted = await step(
        ctx, "submit", genius.submit, period=ctx.key(), owner=owner, user_id=request["userId"], comments=comments
    )
    closing |= {"submitted": True, "since": submitted["at"]}
    ctx.set("closing", closing)
    known = await wait(ctx, job, closing)
    known = await conclude(ctx, request["date"], job, known, closing)
    if known["outcome"] != "succeeded":
        raise TerminalError(f"{job} {known['outcome']}: {known['message']}")
    return known


async def leave_out(ctx: ObjectContext, owner: str, name: str, skipped: bool, done: list[str]) -> dict | None:
    """Record a step that this run leaves out, skipped as requested or done by an earlier run; None if it is due."""
    outcome = "skipped" if skipped else "reused" if name in done else None
    if outcome is None:
        return None
    await step(ctx, f"leave out {name}", runs.record_step, owner=owner, step=name, outcome=outcome, detail={})
    return {"outcome": outcome}


async def await_live_jobs(ctx: ObjectContext, own: str) -> None:
    """Wait until no other job of the period is live, such as one that a person or the older service has started."""
    for job in await step(ctx, "live jobs", genius.live_jobs, period=ctx.key(), job=own):
        report_progress(ctx, "other job", {"job": job})
        await conclude(ctx, "a date that is not known", job, await wait(ctx, job, {}), None)


async def wait(ctx: ObjectContext, job: str, closing: dict) -> dict:
    """Sleep and poll until the job's end is known; returns the last result of job_status.evaluate.

    The clock is that of the polls, which the journal keeps: the wall clock would differ at each replay.
    """
    known = {"since": closing["since"]} if "since" in closing else {}
    polls = 0
    while "outcome" not in known:
        pause = interval(polls, SETTINGS.poll_initial_seconds, SETTINGS.poll_factor, SETTINGS.poll_cap_seconds)
        await ctx.sleep(timedelta(seconds=pause))
        seen = await step(ctx, f"poll {polls + 1}", genius.poll_job, job=job)
        before = known.get("state"), known.get("error")
        known = evaluate(known, seen, SETTINGS.start_limit_seconds, SETTINGS.deadline_seconds)
        polls += 1
        if (known.get("state"), known.get("error")) != before:
            report_progress(ctx, "wait", {"job": job, **known})
    return {**known, "polls": polls}


async def conclude(ctx: ObjectContext, date: str, job: str, known: dict, submitted: dict | None) -> dict:
    """Record a job's end in the row of the closing that submitted it, forget the job, and return the end that stands.

    submitted: what state keeps of that closing; None for a job of another program. A decision that a person recorded
    stands. An unknown end blocks the period: this closing stops, and no later one of the period starts before a
    person has decided what happened.
    """
    submitter = {name: submitted[name] for name in ("owner", "date", "userId")} if submitted else None
    outcome = await step(
        ctx, "record genius", runs.record_job, job=job, outcome=known["outcome"], detail=known, closing=submitter
    )
    closing = await ctx.get("closing", type_hint=dict)
    if closing and closing["job"] == job:
        ctx.clear("closing")
    if outcome == "unknown":
        blocked = {"date": date, "job": job, "message": known["message"], "at": known["at"]}
        ctx.set("blocked", blocked)
        raise TerminalError(blocked_answer(ctx.key(), blocked), status_code=BLOCKED)
    return {**known, "outcome": outcome}


async def sync_ledger(ctx: ObjectContext, owner: str, request: dict, done: list[str]) -> dict:
    left_out = await leave_out(ctx, owner, "ledger", request["skipSyncTrialBalance"], done)
    if left_out:
        return left_out
    report_progress(ctx, "ledger", {})
    synced = await step(ctx, "ledger", sync_trial_balance, owner=owner, period=ctx.key())
    return {"outcome": "succeeded", **synced}


def sync_trial_balance(owner: str, period: str) -> dict:
    """Stream a period's open balances from Genius into the trial balance; see ledger.replace_trial_balance."""
    return ledger.replace_trial_balance(owner, period, genius.open_balances)


async def compute_metrics(ctx: ObjectContext, owner: str, request: dict, done: list[str]) -> dict:
    left_out = await leave_out(ctx, owner, "metrics", request["skipFinancialMetrics"], done)
    if left_out:
        return left_out
    report_progress(ctx, "metrics", {})
    computed = await step(ctx, "metrics", ledger.compute_metrics, owner=owner, period=ctx.key())
    return {"outcome": "succeeded", **computed}


async def end(ctx: ObjectContext, owner: str, date: str, status: str, message: str, whole: bool = False) -> None:
    """Record the end of this run. A cancellation comes too late now: row, log and result must agree."""
    await entry.outlast(step(ctx, "end", finish, owner=owner, date=date, status=status, message=message, whole=whole))
    ctx.clear("progress")


def finish(owner: str, date: str, status: str, message: str, whole: bool) -> None:
    """Write the end of a run to its row, and to the log the event that alarms count.

    A closing with a skipped step closes nothing, so its event must not keep the dead man's alarm quiet.
    """
    about = {"date": date, "period": date[:7], "invocation": owner}
    try:
        # An end that was written earlier remains.
        ended = runs.finish(owner, status, message)
    except Refused as error:
        if status != "succeeded":
            log.write("closing_failed", **about, status=status, message=f"{message}; {error}")
        raise
    succeeded = ended["status"] == "succeeded"
    event = "closing_completed" if whole and succeeded else "closing_partial" if succeeded else "closing_failed"
    log.write(event, **about, **ended)


def report_progress(ctx: ObjectContext, current: str, detail: dict) -> None:
    """Store the current step where getStatus reads it without waiting."""
    ctx.set("progress", {"step": current, **detail})
