"""DailyClosing: one run a date, the face to callers."""

from __future__ import annotations

from datetime import datetime, timedelta

from restate import TerminalError, Workflow, WorkflowContext, WorkflowSharedContext

from . import period, settings
from .request import check_request

SETTINGS = settings.current()

closing = Workflow(
    "DailyClosing",
    abort_timeout=timedelta(seconds=SETTINGS.abort_timeout_seconds),
    journal_retention=timedelta(days=SETTINGS.retention_days),
    invocation_retry_policy=period.RETRY_THEN_PAUSE,
)


@closing.main(workflow_retention=timedelta(days=SETTINGS.retention_days))
async def run(ctx: WorkflowContext, body: dict) -> dict:
    """Close the date that is this workflow's key; returns what ClosingPeriod.close returns."""
    today = datetime.fromtimestamp(await ctx.time(), SETTINGS.schedule_zone).date()
    try:
        request = check_request(ctx.key(), body, today)
    except ValueError as error:
        raise refuse(ctx, str(error)) from None
    ctx.set("status", {"status": "running", "period": request["date"][:7]})
    try:
        result = await ctx.object_call(period.close, key=request["date"][:7], arg=request)
    except TerminalError as error:
        ctx.set("status", {"status": "failed", "period": request["date"][:7], "message": error.message})
        raise
    ctx.set("status", {"status": "succeeded", **result})
    return result


def refuse(ctx: WorkflowContext, message: str) -> TerminalError:
    ctx.set("status", {"status": "refused", "message": message})
    return TerminalError(message, status_code=400)


@closing.handler(name="getStatus")
async def get_status(ctx: WorkflowSharedContext) -> dict:
    """How this date's closing stands: {"date", "status", …}, with "progress" while it runs; answers at once."""
    known = await ctx.get("status", type_hint=dict) or {"status": "unknown"}
    if known["status"] == "running":
        now = await ctx.object_call(period.status, key=known["period"], arg=None)
        known = {**known, **now}
    return {"date": ctx.key(), **known}
