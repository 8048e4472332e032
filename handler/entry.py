"""The entrance of every handler: it checks key and body, and decides how an error in our own code ends."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import traceback
from collections.abc import Callable
from datetime import date, datetime, timedelta

from restate import TerminalError, gather
from restate.exceptions import RetryableError
from restate.retry_policy import InvocationRetryPolicy
from restate.serde import Serde
from restate.server_context import DisconnectedException

from . import attempt, log, settings
from .request import decode

SETTINGS = settings.current()
BAD_REQUEST = 400


def retries(ends: str) -> InvocationRetryPolicy:
    """Return Restate's retries of a function that does not answer; ends: "pause", which keeps the key, or "kill"."""
    return InvocationRetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        exponentiation_factor=2.0,
        max_interval=timedelta(seconds=SETTINGS.retry_cap_seconds),
        max_attempts=SETTINGS.retry_attempts,
        on_max_attempts=ends,
    )


class Body(Serde):
    """Writes an answer as JSON, and leaves a request as bytes: an error in a serde would end as a 500."""

    def serialize(self, value: object) -> bytes:
        return b"" if value is None else json.dumps(value).encode()

    def deserialize(self, data: bytes) -> bytes:
        return bytes(data)


def checked(check: Callable, pauses: bool = False, refusal: str = ""):
    """Let a handler see only requests that `check` accepts; the others end with a terminal 400 in one line.

    check: a function of request.py. It takes the key, then the decoded body if the handler has one, then today's date
    if it asks for it. The handler gets what check returns.
    pauses: an error in our own code stays an error, so that Restate pauses the invocation after a few tries and a
    fixed version can resume it. Otherwise it ends the invocation at once, and no key is held.
    refusal: the event to log for a request that is not accepted, for an alarm.
    """
    wanted = list(inspect.signature(check).parameters)

    def decorate(function):
        @functools.wraps(function)
        async def entrance(ctx, *raw: bytes):
            try:
                values = [decode(one) for one in raw]
                if "today" in wanted:
                    values.append(await today(ctx))
                request = check(ctx.key(), *values)
            except ValueError as error:
                message = f"{error}; nothing was done"
                if refusal:
                    await log_refusal(ctx, refusal, message)
                raise TerminalError(message, status_code=BAD_REQUEST) from None
            try:
                return await function(ctx, *([request] if raw else []))
            except (TerminalError, RetryableError, DisconnectedException):
                raise
            except Exception as error:
                about = {"handler": function.__qualname__, "key": ctx.key(), "invocation": ctx.request().id}
                raise own_error(error, pauses, **about) from error

        entrance.check = check
        return entrance

    return decorate


async def log_refusal(ctx, event: str, message: str) -> None:
    """Log that a date has ended before it began, also if it is cancelled meanwhile."""
    about = {"date": ctx.key(), "invocation": ctx.request().id, "status": "refused", "message": message}
    await outlast(log_once(ctx, event, **about))


def log_once(ctx, event: str, **fields):
    """Log an event in a step, so that a replay does not log it again; returns the future of the step."""
    return ctx.run_typed("log", log.write, event=event, **fields)


async def today(ctx) -> date:
    """Return today's date in the schedule's zone, as the journal has it."""
    return datetime.fromtimestamp(await ctx.time(), SETTINGS.schedule_zone).date()


def own_error(error: Exception, pauses: bool, /, **about) -> Exception:
    """Log an error in our own code, for the alarm that counts such events, and return what to raise for it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    message = f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}, line {where.lineno})"
    log.write("code_error", **about, error=message)
    return pausing(message, **about) if pauses else TerminalError(f"error in the function's own code: {message}")


def pausing(error: str, /, **about) -> RetryableError:
    """Return an error that Restate retries; log the last try, after which Restate pauses the invocation, for an alarm.

    Restate itself sends the function no event when it pauses.
    """
    if attempt.retries() + 1 >= SETTINGS.retry_attempts:
        log.write("closing_pauses", **about, attempts=attempt.retries() + 1, error=error)
    return RetryableError(error)


async def outlast(future):
    """Return a future's result; a cancellation that arrives meanwhile does not end the wait for it."""
    while True:
        # gather raises for a cancellation only; what the future itself raises comes from the second await.
        with contextlib.suppress(TerminalError):
            await gather(future)
            break
    return await future
