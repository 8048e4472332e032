"""DailyClosingScheduler: starts one closing a day and never waits for it."""

from __future__ import annotations

from datetime import datetime, timedelta

from restate import ObjectContext, VirtualObject

from . import closing, period, settings

SETTINGS = settings.current()

scheduler = VirtualObject("DailyClosingScheduler", invocation_retry_policy=period.RETRY_THEN_PAUSE)


def next_tick(after: datetime, hour: int, minute: int) -> datetime:
    """The first local time of day hour:minute that lies after a moment; both aware, in the same zone."""
    tick = after.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return tick if tick > after else tick + timedelta(days=1)


async def schedule(ctx: ObjectContext, generation: int) -> str:
    """Send the next trigger of this generation, remember it, and return its local time."""
    now = datetime.fromtimestamp(await ctx.time(), SETTINGS.schedule_zone)
    tick = next_tick(now, *SETTINGS.daily_closing_schedule_time)
    # Two moments of one zone subtract as wall clocks do, wrong across a change of the offset.
    delay = timedelta(seconds=tick.timestamp() - now.timestamp())
    handle = ctx.object_send(trigger, key=ctx.key(), arg={"generation": generation}, send_delay=delay)
    ctx.set("next", {"generation": generation, "at": tick.isoformat(), "invocation": await handle.invocation_id()})
    return tick.isoformat()


@scheduler.handler()
async def start(ctx: ObjectContext) -> dict:
    """Start the daily chain, in place of one that runs; returns {"next", "generation"}."""
    planned = await ctx.get("next", type_hint=dict)
    if planned:
        ctx.cancel_invocation(planned["invocation"])
    generation = (planned["generation"] if planned else 0) + 1
    return {"next": await schedule(ctx, generation), "generation": generation}


@scheduler.handler()
async def trigger(ctx: ObjectContext, payload: dict | None = None) -> dict:
    """Start today's closing; a tick of the chain plans the next one first, and a stale one does nothing."""
    generation = (payload or {}).get("generation")
    if generation is not None:
        planned = await ctx.get("next", type_hint=dict)
        if not planned or planned["generation"] != generation:
            return {"stale": generation}
        await schedule(ctx, generation)
    day = datetime.fromtimestamp(await ctx.time(), SETTINGS.schedule_zone).date().isoformat()
    ctx.workflow_send(closing.run, key=day, arg={"date": day})
    return {"date": day}
