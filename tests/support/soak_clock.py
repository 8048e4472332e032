"""A fast clock for the scheduler: the module that a soak test adds to the function's bundle.

The function then starts at `soak_clock.handler`. The handlers of DailyClosingScheduler run unchanged, on a context
whose time is the clock's and whose delays are as much shorter as the clock is faster. Nothing else of the function
follows the clock. A clock's text is DATE@EPOCH*FACTOR: it shows midnight UTC of DATE at the real moment EPOCH and runs
FACTOR times as fast from there, so that 2025-01-01@1763800000*86400 lets a day pass in a second.
"""

from __future__ import annotations

import functools
import os
import re
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

VARIABLE = "SOAK_CLOCK"


class Clock(NamedTuple):
    """A clock that showed `since` at the real moment `real_since` and is `factor` times as fast; all in seconds."""

    since: float
    real_since: float
    factor: float

    def shown(self, real: float) -> float:
        """Return what the clock shows at a real moment."""
        return self.since + (real - self.real_since) * self.factor


def parse(text: str) -> Clock:
    """Return the clock of a text; raises ValueError, also for a date of the future, which DailyClosing would refuse."""
    match = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})@([0-9]{1,10})\*([1-9][0-9]{0,5})", text)
    if not match:
        raise ValueError(f"{VARIABLE} {text!r} is malformed: expected DATE@EPOCH*FACTOR")
    since = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc).timestamp()
    if since > int(match[2]):
        raise ValueError(f"{VARIABLE} {text!r} shows the future")
    return Clock(since, int(match[2]), int(match[3]))


class Context:
    """A handler's context on a clock: `time` and `object_send` are converted, everything else is Restate's."""

    def __init__(self, context, clock: Clock):
        self.context, self.clock = context, clock

    def __getattr__(self, name: str):
        return getattr(self.context, name)

    async def time(self) -> float:
        """Return what the clock shows now; the journal keeps the real moment."""
        return self.clock.shown(await self.context.time())

    def object_send(self, handler, key: str, arg: object, send_delay: timedelta):
        """Send a call that is due after a delay by the clock."""
        return self.context.object_send(handler, key=key, arg=arg, send_delay=send_delay / self.clock.factor)


def on_clock(function, clock: Clock):
    """Return a Restate handler's function that runs on a clock."""

    @functools.wraps(function)
    async def run(context, *arguments):
        return await function(Context(context, clock), *arguments)

    return run


@functools.cache
def entry():
    """Return the function's own entry point, after the scheduler's handlers were put on the clock."""
    from handler import app, scheduler

    clock = parse(os.environ[VARIABLE])
    for one in scheduler.scheduler.handlers.values():
        one.fn = on_clock(one.fn, clock)
    return app.handler


def handler(event, context):
    """Answer one Lambda event."""
    return entry()(event, context)
