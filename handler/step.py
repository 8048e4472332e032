"""The durable steps of a closing: what is retried, what pauses it for a person, and what ends it."""

from __future__ import annotations

import contextlib
import functools
import time
from datetime import timedelta

from restate import ObjectContext, RunOptions, TerminalError

from . import attempt, entry, log, settings
from .errors import LoginRefused, Refused, Unavailable

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
# How often report_stuck has logged each step of an invocation.
_stuck: dict[tuple, int] = {}


def step(
    ctx: ObjectContext,
    name: str,
    function,
    *,
    patient: bool = True,
    pauses: bool = True,
    must_end: bool = False,
    **arguments,
):
    """Begin one durable step and return the future of its result; Refused ends the invocation.

    patient: repeat the step until the databases answer, otherwise three times; pauses: see entry.checked.
    must_end: the step records an outcome that must not be lost, so that a refused login, as after a rotated password,
    pauses the invocation for a person instead of ending it.
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
            if must_end and isinstance(error, LoginRefused):
                raise entry.pausing(str(error), **about) from error
            raise TerminalError(str(error)) from error
        except Unavailable as error:
            log.write("step_failed", **about, error=str(error))
            if patient:
                report_stuck(attempt.seconds(), **about, error=str(error))
            raise (error if patient else TerminalError(str(error))) from error
        except Exception as error:
            raise entry.own_error(error, pauses, **about) from error
        log.write("step", **about, seconds=round(time.monotonic() - begin, 3))
        return result

    period_key, invocation = ctx.key(), ctx.request().id
    return ctx.run_typed(name, logged, UNTIL_IT_ANSWERS, **arguments)


def report_stuck(seconds: float, **about) -> None:
    """Log `step_stuck` for an alarm if a step has failed for too long, once in each such time.

    seconds: since its first try. Each instance of the function counts for itself, so there can be some more events.
    """
    times = int(seconds // SETTINGS.step_stuck_after)
    key = about["invocation"], about["step"]
    if times > _stuck.get(key, 0):
        _stuck[key] = times
        log.write("step_stuck", **about, seconds=round(seconds))


def few_tries(function, **arguments):
    """Call a step's function, again a moment later if a database does not answer."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(Unavailable):
            return function(**arguments)
        time.sleep(TRY_SECONDS)
    return function(**arguments)


# A step of a handler that somebody waits for.
answer_step = functools.partial(step, patient=False, pauses=False)


def report_progress(ctx: ObjectContext, current: str, detail: dict) -> None:
    """Store the current step where getStatus reads it without waiting."""
    ctx.set("progress", {"step": current, **detail})
