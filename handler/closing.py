"""DailyClosing: one run for each date. A caller starts it, and can ask for its state."""

from __future__ import annotations

from datetime import timedelta

from restate import TerminalError, Workflow, WorkflowContext, WorkflowSharedContext

from . import entry, period, settings
from .plan import describe_hold
from .request import DESPITE_HOLD, MAIN, check_request, real_date

SETTINGS = settings.current()
# The status code of a date that was refused because closings are held.
HELD = 503

closing = Workflow(
    "DailyClosing",
    abort_timeout=timedelta(seconds=SETTINGS.abort_timeout_seconds),
    journal_retention=timedelta(days=SETTINGS.retention_days),
    invocation_retry_policy=entry.retries("pause"),
)


@closing.main(workflow_retention=timedelta(days=SETTINGS.retention_days), input_serde=entry.Body())
@entry.checked(check_request, refusal="closing_failed")
async def run(ctx: WorkflowContext, request: dict) -> dict:
    """Close the date that is this workflow's key; returns the result of ClosingPeriod.close.

    A refused request ends a scheduled date as a failed closing does, so it logs the same event.
    """
    key = request["date"][:7]
    await refuse_held(ctx, request)
    ctx.set("status", {"status": "running", "period": key})
    call = ctx.object_call(period.close, key=key, arg=request)
    owner = await call.invocation_id()
    try:
        # A cancellation reaches close, too, and the result of close is the result of this run.
        result = await entry.outlast(call)
    except TerminalError as error:
        # close has recorded its own end, unless it was cancelled in the queue or killed.
        await period.end(
            ctx, {"owner": owner, "date": request["date"], "user_id": request["userId"]}, "failed", error.message
        )
        ctx.set("status", {"status": "failed", "period": key, "message": error.message})
        raise
    ctx.set("status", {"status": "succeeded", **result})
    return result


async def refuse_held(ctx: WorkflowContext, request: dict) -> None:
    """End a run that begins while closings are held; raises a TerminalError with HELD before anything has begun."""
    # Imported here, because scheduler.py imports this module.
    from . import scheduler

    if request[DESPITE_HOLD]:
        return
    try:
        hold = await ctx.object_call(scheduler.held, key=MAIN, arg=None)
        if hold:
            raise TerminalError(f"{describe_hold(hold)}; nothing was done", status_code=HELD)
    except TerminalError as error:
        # Held, or cancelled meanwhile.
        await entry.log_refusal(ctx, "closing_failed", error.message)
        raise


@closing.handler(name="getStatus", invocation_retry_policy=entry.retries("kill"))
@entry.checked(real_date)
async def get_status(ctx: WorkflowSharedContext) -> dict:
    """Return the state of this date's closing at once: {"date", "status", …}, with "progress" while it runs."""
    known = await ctx.get("status", type_hint=dict) or {"status": "unknown"}
    if known["status"] == "running":
        now = await ctx.object_call(period.status, key=known["period"], arg=None)
        known = {**known, **now}
    return {"date": ctx.key(), **known}
