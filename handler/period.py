"""ClosingPeriod: lets one closing of a period in at a time and holds the period from the procedure to the metrics."""

from __future__ import annotations

import functools
from datetime import timedelta

from restate import ObjectContext, ObjectSharedContext, RunOptions, TerminalError, VirtualObject
from restate.retry_policy import InvocationRetryPolicy

from . import genius, ledger, settings
from .errors import Refused
from .verdict import interval, judge

SETTINGS = settings.current()
# A step whose every retry failed waits for a person, who resumes it: journal, key and the job are kept.
RETRY_THEN_PAUSE = InvocationRetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    exponentiation_factor=2.0,
    max_interval=timedelta(seconds=60),
    max_attempts=70,
    on_max_attempts="pause",
)
# Before anything has been started a closing may as well end with an error as wait.
FEW = RunOptions(max_attempts=3, initial_retry_interval=timedelta(milliseconds=300))

period = VirtualObject(
    "ClosingPeriod",
    abort_timeout=timedelta(seconds=SETTINGS.abort_timeout_seconds),
    journal_retention=timedelta(days=SETTINGS.retention_days),
    invocation_retry_policy=RETRY_THEN_PAUSE,
)


async def step(ctx: ObjectContext, name: str, function, options: RunOptions | None = None, **arguments):
    """Run one durable step; Refused ends the closing, anything else is Restate's to retry."""

    @functools.wraps(function)
    def guarded(**arguments):
        try:
            return function(**arguments)
        except Refused as error:
            raise TerminalError(str(error)) from error

    return await ctx.run_typed(name, guarded, options or RunOptions(), **arguments)


@period.handler()
async def close(ctx: ObjectContext, request: dict) -> dict:
    """Close one date of this period, from the procedure to the metrics.

    request: {"date", "userId", "skipGeniusClosing", "skipSyncTrialBalance", "skipFinancialMetrics"}, as checked by
    DailyClosing. Returns {"date", "period", "run", "job", "genius", "ledger", "metrics"}. Arguments and results
    change only by addition: caller and callee may run on different versions.
    """
    await refuse_blocked(ctx)
    # The invocation's own id: a workflow's id comes from its key and would be the same again after a purge.
    owner = ctx.request().id
    job = None if request["skipGeniusClosing"] else genius.job_name(ctx.key(), owner)
    begun = await step(
        ctx, "begin", ledger.begin, FEW, owner=owner, date=request["date"], user_id=request["userId"], job=job
    )
    try:
        await settle_earlier(ctx, owner)
        outcome = {
            "genius": await run_procedure(ctx, owner, request),
            "ledger": await sync_ledger(ctx, owner, request),
            "metrics": await compute_metrics(ctx, owner, request),
        }
        await end(ctx, owner, "succeeded", "")
    except TerminalError as error:
        # 409 is how a cancellation arrives; a blocked closing has written its end already, and the first one stands.
        await end(ctx, owner, "cancelled" if error.status_code == 409 else "failed", error.message)
        raise
    return {"date": request["date"], "period": ctx.key(), "run": begun["run"], "job": job, **outcome}


@period.handler(kind="shared")
async def status(ctx: ObjectSharedContext) -> dict:
    """What this period is doing: {"progress", "closing", "blocked"}, each None where there is nothing to tell."""
    return {name: await ctx.get(name, type_hint=dict) for name in ("progress", "closing", "blocked")}


async def refuse_blocked(ctx: ObjectContext) -> None:
    blocked = await ctx.get("blocked", type_hint=dict)
    if blocked:
        raise TerminalError(blocked_answer(ctx.key(), blocked), status_code=423)


def blocked_answer(key: str, blocked: dict) -> str:
    return (
        f"{key} is blocked since the closing of {blocked['date']}: job {blocked['job']}: {blocked['message']}."
        " Nobody can know from here whether the procedure ran; look in Genius, then say so with"
        f" `inv resolve --env ENV --period {key} --as succeeded|failed`"
    )


async def settle_earlier(ctx: ObjectContext, owner: str) -> None:
    """Wait for the end of a job whose closing was killed or cancelled, and record it as that closing's outcome."""
    earlier = await ctx.get("closing", type_hint=dict)
    if not earlier or earlier["owner"] == owner:
        return
    show(ctx, "earlier job", earlier)
    known = await wait(ctx, earlier["job"], earlier)
    await conclude(ctx, earlier, known)


async def run_procedure(ctx: ObjectContext, owner: str, request: dict) -> dict:
    """Submit the closing job, wait for its end and record it; raises TerminalError unless it succeeded."""
    if request["skipGeniusClosing"]:
        await await_live_jobs(ctx, "")
        await step(ctx, "record genius", ledger.record_step, owner=owner, step="genius", outcome="skipped", detail={})
        return {"outcome": "skipped"}
    job = genius.job_name(ctx.key(), owner)
    closing = {"owner": owner, "date": request["date"], "job": job, "userId": request["userId"], "submitted": False}
    # Journaled before the submit, because the step between the two is acknowledged by a new invocation.
    ctx.set("closing", closing)
    await await_live_jobs(ctx, job)
    show(ctx, "submit", closing)
    comments = f"finance-closing {request['date']}, by {request['userId']}, {owner}"
    submitted = await step(
        ctx, "submit", genius.submit, period=ctx.key(), owner=owner, user_id=request["userId"], comments=comments
    )
    closing |= {"submitted": True, "since": submitted["at"]}
    ctx.set("closing", closing)
    known = await wait(ctx, job, closing)
    await conclude(ctx, closing, known)
    if known["outcome"] != "succeeded":
        raise TerminalError(f"{job} {known['outcome']}: {known['message']}")
    return known


async def await_live_jobs(ctx: ObjectContext, own: str) -> None:
    """Wait until no other job of the period lives: one that a person or the older service has started."""
    for job in await step(ctx, "live jobs", genius.live_jobs, period=ctx.key(), job=own):
        show(ctx, "other job", {"job": job})
        known = await wait(ctx, job, {})
        if known["outcome"] == "unknown":
            await block(ctx, {"owner": ctx.request().id, "date": "an unknown date", "job": job}, known)


async def wait(ctx: ObjectContext, job: str, closing: dict) -> dict:
    """Sleep and look until the job's end is known; returns what verdict.judge says of it.

    The clock is that of the looks, which the journal keeps: the wall clock would differ at each replay.
    """
    known = {key: closing[key] for key in ("since", "submitted") if key in closing}
    looks = 0
    while "outcome" not in known:
        pause = interval(looks, SETTINGS.poll_initial_seconds, SETTINGS.poll_factor, SETTINGS.poll_cap_seconds)
        await ctx.sleep(timedelta(seconds=pause))
        seen = await step(ctx, f"look {looks + 1}", genius.look, job=job)
        before = known.get("state"), known.get("error")
        known = judge(known, seen, SETTINGS.start_limit_seconds, SETTINGS.deadline_seconds)
        looks += 1
        if (known.get("state"), known.get("error")) != before:
            show(ctx, "wait", {"job": job, **known})
    return {**known, "looks": looks}


async def conclude(ctx: ObjectContext, closing: dict, known: dict) -> None:
    """Record a job's end as its closing's outcome, then let go of it; an unknown one blocks the period."""
    if known["outcome"] == "unknown":
        await block(ctx, closing, known)
    owner, outcome = closing["owner"], known["outcome"]
    await step(ctx, "record genius", ledger.record_step, owner=owner, step="genius", outcome=outcome, detail=known)
    ctx.clear("closing")


async def block(ctx: ObjectContext, closing: dict, known: dict) -> None:
    """Stop and ask a person: no later closing of the period starts before somebody has said what happened."""
    blocked = {**closing, "message": known["message"], "at": known["at"]}
    ctx.set("blocked", blocked)
    ctx.clear("closing")
    answer = blocked_answer(ctx.key(), blocked)
    owner = closing["owner"]
    await step(ctx, "record genius", ledger.record_step, owner=owner, step="genius", outcome="unknown", detail=known)
    await end(ctx, owner, "blocked", answer)
    raise TerminalError(answer, status_code=423)


async def sync_ledger(ctx: ObjectContext, owner: str, request: dict) -> dict:
    if request["skipSyncTrialBalance"]:
        await step(ctx, "skip ledger", ledger.record_step, owner=owner, step="ledger", outcome="skipped", detail={})
        return {"outcome": "skipped"}
    show(ctx, "ledger", {})
    synced = await step(ctx, "ledger", sync_trial_balance, owner=owner, period=ctx.key())
    return {"outcome": "succeeded", **synced}


def sync_trial_balance(owner: str, period: str) -> dict:
    """Stream a period's open balances from Genius into the trial balance; see ledger.replace_trial_balance."""
    with genius.open_balances(period) as (totals, balances):
        return ledger.replace_trial_balance(owner, period, totals, balances)


async def compute_metrics(ctx: ObjectContext, owner: str, request: dict) -> dict:
    if request["skipFinancialMetrics"]:
        await step(ctx, "skip metrics", ledger.record_step, owner=owner, step="metrics", outcome="skipped", detail={})
        return {"outcome": "skipped"}
    show(ctx, "metrics", {})
    computed = await step(ctx, "metrics", ledger.compute_metrics, owner=owner, period=ctx.key())
    return {"outcome": "succeeded", **computed}


async def end(ctx: ObjectContext, owner: str, status: str, message: str) -> None:
    await step(ctx, "end", ledger.finish, owner=owner, status=status, message=message)
    ctx.clear("progress")


def show(ctx: ObjectContext, doing: str, detail: dict) -> None:
    """Keep what this closing is doing where getStatus reads it without waiting."""
    ctx.set("progress", {"step": doing, **detail})
