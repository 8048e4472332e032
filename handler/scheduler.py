"""DailyClosingScheduler, key `main`: starts one closing a day, for years, and never waits for it.

Its state: `generation` counts the chains; `next` is the one planned run, absent while stopped; `done` is the last date
that is closed, covered, left out or open; `last` is the last run that found dates due; `closing` is the date of the
newest closing that was sent; `open` has the dates whose period is blocked, by period; `covered` and `leftOut` list the
dates that outages have skipped; `hold` has who holds all closings, since when, until when and why; `heldDates` lists
the dates that became due under an earlier hold, with who and why.
"""

from __future__ import annotations

from datetime import date, timedelta

from restate import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject
from restate.retry_policy import InvocationRetryPolicy

from . import closing, entry, period, schedule_times, settings
from .plan import describe_hold, next_command
from .request import DESPITE_HOLD, MAIN, check_hold, check_late, check_main, check_release, check_trigger, protocol

SETTINGS = settings.current()
# How many entries of `covered`, `leftOut` and `heldDates` are kept. An outage or a hold adds one a period at most, so
# they reach back for years.
KEPT = 100

scheduler = VirtualObject(
    "DailyClosingScheduler",
    journal_retention=timedelta(days=SETTINGS.retention_days),
    # A paused run would hold the key, and the chain with it, until a person resumes it. So it is retried for ever.
    invocation_retry_policy=InvocationRetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        exponentiation_factor=2.0,
        max_interval=timedelta(minutes=5),
        max_attempts=10_000_000,
        on_max_attempts="pause",
    ),
)


@scheduler.handler()
@entry.checked(check_main)
async def start(ctx: ObjectContext) -> dict:
    """Start the daily chain, and replace one that runs, so that a changed schedule time takes effect at once.

    Returns {"next", "date", "generation", "alreadyRunning", "previousNext", "changed", "done"}: the next
    schedule time, the date that it closes, and the last date that is done; it also closes the dates between the two.
    """
    now = await ctx.time()
    stored = await ctx.get("next", type_hint=dict)
    generation = (await ctx.get("generation", type_hint=int) or 0) + 1
    ctx.set("generation", generation)
    # A run that is due already waits behind this call; its dates must not wait until tomorrow.
    overdue = stored is not None and schedule_times.read(stored["at"]) <= now
    planned = await plan(ctx, generation, now, stored if overdue else None)
    done = await ctx.get("done", type_hint=str)
    if done is None:
        done = (date.fromisoformat(planned["date"]) - schedule_times.DAY).isoformat()
        ctx.set("done", done)
    return {
        "next": planned["at"],
        "date": planned["date"],
        "generation": generation,
        "alreadyRunning": stored is not None,
        "previousNext": stored and stored["at"],
        "changed": stored is None or stored["at"] != planned["at"],
        "done": done,
    }


@scheduler.handler()
@entry.checked(check_main)
async def stop(ctx: ObjectContext) -> dict:
    """End the daily chain; a running closing goes on. Returns {"generation", "wasRunning", "previousNext"}."""
    stored = await ctx.get("next", type_hint=dict)
    generation = await ctx.get("generation", type_hint=int) or 0
    if stored:
        ctx.cancel_invocation(stored["invocation"])
        ctx.clear("next")
        generation += 1
        ctx.set("generation", generation)
    return {"generation": generation, "wasRunning": stored is not None, "previousNext": stored and stored["at"]}


@scheduler.handler(input_serde=entry.Body())
@entry.checked(check_trigger)
async def trigger(ctx: ObjectContext, generation: int | None) -> dict:
    """Start the due closings of a planned run; without a generation, start today's closing and change no plan."""
    if generation is None:
        return await close_today(ctx)
    stored = await ctx.get("next", type_hint=dict)
    if not stored or stored["generation"] != generation:
        return {"stale": generation}
    now = await ctx.time()
    # Before anything else, so that no failure of this run can end the chain.
    await plan(ctx, generation, now)
    return await close_due(ctx, now)


@scheduler.handler(input_serde=entry.Body())
@entry.checked(check_hold)
async def hold(ctx: ObjectContext, request: dict) -> dict:
    """Let no closing begin until `release`, or until a time; one that runs goes on.

    request: {"who", "reason", "until"}, until None or a time. Returns the hold: {"who", "reason", "at", "until"}.
    """
    now, zone, until = await ctx.time(), SETTINGS.schedule_zone, request["until"]
    delay = None
    if until:
        end = (until if until.tzinfo else until.replace(tzinfo=zone)).timestamp()
        if end <= now:
            raise TerminalError(f"until {until.isoformat()} is past; nothing was done", status_code=entry.BAD_REQUEST)
        until, delay = schedule_times.written(end, zone), timedelta(seconds=end - now)
    await end_hold(ctx, now)
    made = {**request, "at": schedule_times.written(now, zone), "until": until}
    ending = {}
    if delay:
        body = {"protocol": protocol(), "who": "the end of its time"}
        ending["invocation"] = await ctx.object_send(release, key=MAIN, arg=body, send_delay=delay).invocation_id()
    ctx.set("hold", {**made, **ending})
    await entry.log_once(ctx, "closings_held", **made)
    return made


@scheduler.handler(input_serde=entry.Body())
@entry.checked(check_release)
async def release(ctx: ObjectContext, who: str) -> dict:
    """End the hold and start the closings of the dates that have become due; returns {"ended", "dates"}."""
    now = await ctx.time()
    ended = await end_hold(ctx, now)
    if not ended:
        return {"ended": None, "dates": []}
    await entry.log_once(ctx, "closings_released", who=who, reason=ended["reason"])
    running = await ctx.get("next", type_hint=dict)
    return {"ended": ended, "dates": (await close_due(ctx, now))["dates"] if running else []}


@scheduler.handler(kind="shared", ingress_private=True)
@entry.checked(check_main)
async def held(ctx: ObjectSharedContext) -> dict | None:
    """Return the hold, None if closings may begin."""
    return await ctx.get("hold", type_hint=dict)


async def end_hold(ctx: ObjectContext, now: float) -> dict | None:
    """Clear the hold, cancel the call that would end it later, store the dates that it held, and return it."""
    found = await ctx.get("hold", type_hint=dict)
    if found:
        ctx.clear("hold")
        if found.get("invocation") not in (None, ctx.request().id):
            ctx.cancel_invocation(found["invocation"])
        before, last = newest_due(schedule_times.read(found["at"])), newest_due(now)
        if before < last:
            dates = schedule_times.held(found, before, last)
            ctx.set("heldDates", [*(await ctx.get("heldDates", type_hint=list) or []), dates][-KEPT:])
    return found


@scheduler.handler(kind="shared", invocation_retry_policy=entry.retries("kill"))
@entry.checked(check_main)
async def status(ctx: ObjectSharedContext) -> dict:
    """Return the state of the chain at once.

    Returns {"running", "generation", "next", "last", "closing", "covered", "leftOut", "open", "hold"}; closing is
    the answer of DailyClosing/getStatus for the newest date that was sent.
    """
    planned = await ctx.get("next", type_hint=dict)
    newest = await ctx.get("closing", type_hint=str)
    return {
        "running": planned is not None,
        "generation": await ctx.get("generation", type_hint=int) or 0,
        "next": planned,
        "last": await ctx.get("last", type_hint=dict),
        "closing": newest and await ctx.workflow_call(closing.get_status, key=newest, arg=None),
        "covered": await ctx.get("covered", type_hint=list) or [],
        "leftOut": await ctx.get("leftOut", type_hint=list) or [],
        "open": sorted((await ctx.get("open", type_hint=dict) or {}).values()),
        "hold": await ctx.get("hold", type_hint=dict),
    }


async def plan(ctx: ObjectContext, generation: int, now: float, overdue: dict | None = None) -> dict:
    """Replace the planned run by the next one, or by the overdue one at once, and return it."""
    stored = await ctx.get("next", type_hint=dict)
    # A run that plans the next one is itself the stored one.
    if stored and stored["invocation"] != ctx.request().id:
        ctx.cancel_invocation(stored["invocation"])
    at, zone = SETTINGS.daily_closing_schedule_time, SETTINGS.schedule_zone
    day = schedule_times.next_day(now, at, zone)
    planned = {
        "generation": generation,
        "at": schedule_times.written(schedule_times.moment_of(day, at, zone), zone),
        "date": closing_date(day).isoformat(),
    }
    if overdue:
        planned |= {"at": overdue["at"], "date": closing_date(day - schedule_times.DAY).isoformat()}
    delay = timedelta(seconds=max(0, schedule_times.read(planned["at"]) - now))
    body = {"protocol": protocol(), "generation": generation}
    handle = ctx.object_send(trigger, key=MAIN, arg=body, send_delay=delay)
    planned["invocation"] = await handle.invocation_id()
    ctx.set("next", planned)
    return planned


def closing_date(day: date) -> date:
    """Return the date that the schedule time of a day closes."""
    return day + timedelta(days=SETTINGS.closing_day_offset)


def newest_due(now: float) -> date:
    """Return the newest date whose schedule time has passed."""
    at, zone, offset = SETTINGS.daily_closing_schedule_time, SETTINGS.schedule_zone, SETTINGS.closing_day_offset
    return schedule_times.newest_due(now, at, zone, offset)


async def close_today(ctx: ObjectContext) -> dict:
    if found := await ctx.get("hold", type_hint=dict):
        raise TerminalError(f"{describe_hold(found)}; nothing was done", status_code=closing.HELD)
    today = closing_date(schedule_times.local_date(await ctx.time(), SETTINGS.schedule_zone)).isoformat()
    send(ctx, today)
    return {"date": today}


def send(ctx: ObjectContext, day: str) -> None:
    """Start a date's closing; one that was accepted before is not started again, because the date is its key."""
    # A hold that begins after this does not stop the date.
    ctx.workflow_send(closing.run, key=day, arg={"protocol": protocol(), "date": day, DESPITE_HOLD: True})
    ctx.set("closing", day)


def check_later(ctx: ObjectContext, day: str) -> None:
    """Plan the check of this date for the time at which it is late."""
    delay = timedelta(seconds=SETTINGS.closing_late_after)
    ctx.object_send(check_closed, key=MAIN, arg={"protocol": protocol(), "date": day}, send_delay=delay)


@scheduler.handler(kind="shared", ingress_private=True, input_serde=entry.Body())
@entry.checked(check_late)
async def check_closed(ctx: ObjectSharedContext, day: str) -> dict:
    """Log `closing_late` with the next command unless a date of the schedule is closed by now; returns {"closed"}."""
    run = await ctx.workflow_call(closing.get_status, key=day, arg=None)
    if run["status"] == "succeeded":
        return {"closed": True}
    now = await ctx.object_call(period.status, key=day[:7], arg=None)
    known = {"date": day, "blocked": now["blocked"], "closing": now["closing"]}
    if run["status"] != "unknown":
        known["run"] = {
            "status": "running" if run["status"] == "running" else "completed",
            "failure": run.get("message"),
        }
    found = next_command(known)
    event = {"date": day, "status": run["status"], "message": found["reason"], "next": found["command"]}
    await entry.log_once(ctx, "closing_late", **event)
    return {"closed": False}


async def close_due(ctx: ObjectContext, now: float) -> dict:
    """Start the closings of the due dates; returns what becomes of each date, in the shape of `last`.

    After an outage that is more than one date: see schedule_times.due. A date whose period is blocked stays open: at a
    later schedule time it is sent, or a later date of its period instead. While closings are held every date waits.
    """
    if found := await ctx.get("hold", type_hint=dict):
        waiting = {"at": schedule_times.written(now, SETTINGS.schedule_zone), "hold": found}
        await entry.log_once(ctx, "closings_wait", **waiting)
        return {"at": waiting["at"], "dates": [], "covered": [], "leftOut": [], "open": [], "hold": found}
    newest = newest_due(now)
    done = await ctx.get("done", type_hint=str)
    due = schedule_times.due(date.fromisoformat(done) if done else newest - schedule_times.DAY, newest)
    covered = [{"from": f"{one.first}", "to": f"{one.last}", "by": f"{one.by}"} for one in due.covered]
    left_out = [{"from": f"{due.left_out[0]}", "to": f"{due.left_out[1]}"}] if due.left_out else []
    waiting = await ctx.get("open", type_hint=dict) or {}
    for day in map(str, due.dates):
        check_later(ctx, day)
        if day[:7] in waiting:
            covered.append({"from": waiting[day[:7]], "to": waiting[day[:7]], "by": day})
    sent, still_open = [], {}
    for key, day in sorted((waiting | {f"{day}"[:7]: f"{day}" for day in due.dates}).items()):
        if (await ctx.object_call(period.status, key=key, arg=None))["blocked"]:
            still_open[key] = day
        else:
            send(ctx, day)
            sent.append(day)
    ctx.set("open", still_open)
    last = {"at": schedule_times.written(now, SETTINGS.schedule_zone), "dates": sent}
    last |= {"covered": covered, "leftOut": left_out, "open": sorted(still_open.values())}
    if due.dates:
        ctx.set("done", newest.isoformat())
        ctx.set("last", last)
    for name in ("covered", "leftOut"):
        if last[name]:
            ctx.set(name, [*(await ctx.get(name, type_hint=list) or []), *last[name]][-KEPT:])
    if covered or left_out or still_open:
        await entry.log_once(ctx, "dates_missed", **last)
    return last
