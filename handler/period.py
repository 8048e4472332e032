"""ClosingPeriod: runs one closing of a period at a time and holds the period from the procedure to the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from restate import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject

from . import entry, findings, genius, ledger, log, procedure, runs, settings
from .errors import Refused, Unavailable
from .request import check_close, check_inspect, check_period, check_resolve
from .step import answer_step, report_progress, step

SETTINGS = settings.current()
# The end of a closing by the status code of its TerminalError.
ENDS = {procedure.CANCELLED: "cancelled", procedure.BLOCKED: "blocked"}
period = VirtualObject(
    "ClosingPeriod",
    abort_timeout=timedelta(seconds=SETTINGS.abort_timeout_seconds),
    journal_retention=timedelta(days=SETTINGS.retention_days),
    invocation_retry_policy=entry.retries("kill"),
)


@period.handler(ingress_private=True, input_serde=entry.Body(), invocation_retry_policy=entry.retries("pause"))
@entry.checked(check_close, pauses=True)
async def close(ctx: ObjectContext, request: dict) -> dict:
    """Close one date of this period, from the procedure to the metrics; only DailyClosing calls it.

    request: see check_close. Returns {"date", "period", "run", "job", "genius", "ledger", "metrics"}. The result
    changes only by addition, because the caller may run on an older version; the request carries its protocol.
    """
    # Not the workflow's id: it comes from the date, and would be the same again after a purge.
    owner, date = ctx.request().id, request["date"]
    job = None if request["skipGeniusClosing"] else genius.job_name(ctx.key(), owner)
    run = {"owner": owner, "date": date, "user_id": request["userId"]}
    begun = await step(ctx, "begin", runs.begin, must_end=True, **run, job=job)
    try:
        await procedure.refuse_blocked(ctx)
        await procedure.recover_previous_job(ctx, request)
        resume, first = request["resume"], request["fromStep"]
        done = await step(ctx, "plan", runs.left_out, owner=owner, date=date, resume=resume, first=first)
        outcome = {
            "genius": await close_genius(ctx, owner, request, done),
            "ledger": await sync_ledger(ctx, owner, request, done),
            "metrics": await compute_metrics(ctx, owner, request, done),
        }
        whole = all(one["outcome"] != "skipped" for one in outcome.values())
        await end(ctx, run, "succeeded", "", whole, findings.texts(outcome))
    except TerminalError as error:
        if error.status_code == procedure.CANCELLED:
            await procedure.release(ctx, owner)
        await end(ctx, run, ENDS.get(error.status_code, "failed"), error.message)
        ctx.clear("progress")
        raise
    ctx.clear("progress")
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
    """Return rows, or the database's error in one line, because the operator also needs the other database's answer."""
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
        ctx, "resolve", procedure.decide, job=blocked["job"], outcome=request["as"], who=request["who"],
        blocked=blocked, period=ctx.key(),
    )  # fmt: skip
    ctx.clear("blocked")
    return decision


async def close_genius(ctx: ObjectContext, owner: str, request: dict, done: list[str]) -> dict:
    left_out = await leave_out(ctx, owner, "genius", request["skipGeniusClosing"], done)
    if not left_out:
        return await procedure.run_procedure(ctx, owner, request)
    await procedure.await_live_jobs(ctx, genius.job_name(ctx.key(), owner))
    return left_out


async def leave_out(ctx: ObjectContext, owner: str, name: str, skipped: bool, done: list[str]) -> dict | None:
    """Record a step that this run leaves out, skipped as requested or done by an earlier run; None if it is due."""
    outcome = "skipped" if skipped else "reused" if name in done else None
    if outcome is None:
        return None
    await step(ctx, f"leave out {name}", runs.record_step, owner=owner, step=name, outcome=outcome, detail={})
    return {"outcome": outcome}


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


async def end(
    ctx: ObjectContext, run: dict, status: str, message: str, whole: bool = False, found: Sequence[str] = ()
) -> None:
    """Record the end of this run. A cancellation has no effect from here on, because row, log and result must agree."""
    known = {"status": status, "message": message, "whole": whole, "found": found}
    await entry.outlast(step(ctx, "end", finish, must_end=True, **run, **known))


def finish(
    owner: str, date: str, user_id: str, status: str, message: str, whole: bool = False, found: Sequence[str] = ()
) -> dict:
    """Write the end of a run to its row, and once to the log: the events that alarms count.

    whole: no step was skipped; found: the findings of a run that succeeded, a line each, which have their own event.
    A run with a skipped step has another event, closing_partial, so that the alarm for a missing closing still rings.
    If a failover of PostgreSQL loses end_logged, a late try logs the same event again. This is harmless, unlike a
    missing event. The row is created if it is missing, because a closing can be cancelled in the queue, before its
    first step.
    """
    ended = runs.finish(owner, date, user_id, status, message)
    if not ended["logged"]:
        event = "closing_completed" if whole else "closing_partial" if status == "succeeded" else "closing_failed"
        about = {"date": date, "period": date[:7], "invocation": owner}
        if found:
            log.write("closing_findings", **about, findings=found)
        log.write(event, **about, status=status, message=message)
        runs.mark_logged(owner)
    return ended
