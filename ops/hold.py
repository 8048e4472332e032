"""inv hold and inv release: no closing begins while Genius or the network is under maintenance."""

from __future__ import annotations

from invoke import Exit

from handler.plan import describe_hold
from handler.request import MAIN, check_hold, protocol
from ops import schedule
from ops.config import ENV_HELP
from ops.repair import WHO_HELP, person
from ops.target import Target
from ops.task import ENVIRONMENT, task


@task(
    group="schedule",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "reason": "why, for everybody who asks",
        "until": "the end, as 2025-02-01T06:00 in the schedule's zone; without it: until inv release",
        **WHO_HELP,
    },
)
def hold(c, env, reason, until=None, who=""):
    """Let no closing begin until inv release or a time; one that runs goes on, and scheduled dates wait."""
    target = Target.load(c, env)
    body = {"protocol": protocol(), "who": person(who), "reason": reason, "until": until}
    try:
        check_hold(MAIN, body)
    except ValueError as error:
        raise Exit(f"{error}. Nothing was sent.") from None
    if answer := schedule.call(target, "hold", body):
        print(f"{env}: {describe_hold(answer)}")


@task(group="schedule", changes=ENVIRONMENT, help={**ENV_HELP, **WHO_HELP})
def release(c, env, who=""):
    """End the hold and start what has become due meanwhile, by the rules for missed dates."""
    target = Target.load(c, env)
    answer = schedule.call(target, "release", {"protocol": protocol(), "who": person(who)})
    if not answer:
        return
    if not answer["ended"]:
        print(f"{env}: closings were not held; nothing has changed")
        return
    print(f"{env}: the hold has ended; due now: {', '.join(answer['dates']) or 'nothing'}")
