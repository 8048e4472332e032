"""Weeks of the schedule against the real restate-server: one chain, and each date closed or covered once.

Every closing is a real one, from the procedure to the metrics. Every day sees a deploy but those without a Restate to
register with: a new version is published and registered, what `inv deploy` does after its look-ups.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from invoke import Exit
from support.helpers import STATE, run_rows, starts
from support.schedule_helpers import Schedule, clock_of, wait_for

from handler import settings
from local.oracle.faults import Faults
from ops import closings

FAULTS = Faults(STATE / "genius")
DAY = timedelta(days=1)
BERLIN = ZoneInfo("Europe/Berlin")
# The clocks skip both of them on 2025-03-30 and show both of them twice on 2025-10-26.
TIMES = ("02:30", "02:45")


class Rehearsal:
    """Days of a schedule, `seconds` each, with a look at the number of chains several times a day."""

    def __init__(self, local, schedule: Schedule, first: date, seconds: float):
        self.local, self.schedule, self.first, self.up = local, schedule, first, True
        self.value = clock_of((first - DAY).isoformat(), int(86400 / seconds))
        self.clock = settings.clock(self.value)
        self.versions: list[str] = []
        self.earlier = len(schedule.sent()), len(starts())

    def until(self, day: float) -> None:
        """Wait for the noon of a day, counted from the first, or a moment after it; never two chains meanwhile."""
        noon = datetime(self.first.year, self.first.month, self.first.day, 12, tzinfo=BERLIN).timestamp() + day * 86400
        while self.clock.shown(time.time()) < noon:
            if self.up:
                # A server that has just come back answers queries a moment after it answers health checks.
                with contextlib.suppress(Exit):
                    assert len(self.schedule.planned()) <= 1
            time.sleep(0.15)

    def deploy(self) -> None:
        """The next version, with the other time of day."""
        version = self.schedule.deploy(
            SCHEDULE_CLOCK=self.value,
            SCHEDULE_ZONE=BERLIN.key,
            DAILY_CLOSING_SCHEDULE_TIME=TIMES[len(self.versions) % 2],
            POLL_INITIAL_SECONDS="0.2",
        )
        assert version not in self.versions
        self.versions.append(version)

    def start(self) -> None:
        self.schedule.call("start")

    def stop(self) -> None:
        self.schedule.call("stop")

    def start_twice(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: self.start(), range(2)))

    def outage(self, end, until: float) -> None:
        """restate-server is away until a day; end: how it goes."""
        self.up = False
        end("restate")
        self.until(until)
        self.local.start("restate")
        self.up = True

    def deploys(self, days: range, away: range) -> list[tuple[float, object]]:
        """One each day at any hour, so that some fall on a tick or on a closing; none while Restate is away."""
        hours = random.Random(days.stop)
        return [(day + hours.uniform(-0.5, 0.5), self.deploy) for day in days if day not in away]

    def run(self, days: int, events: list[tuple[float, object]]) -> date:
        """Begin with a deploy and a start, have each event on its day, stop, and let closings end.

        Returns the first date.
        """
        self.schedule.forget()
        FAULTS.inject("procedure_seconds", "0.05")
        try:
            self.deploy()
            begun = date.fromisoformat(self.schedule.call("start")["date"])
            for day, event in sorted(events, key=lambda one: one[0]):
                self.until(day)
                event()
            self.until(days)
            self.stop()
            for day in self.sent():
                wait_for(lambda day=day: not closings.running(self.schedule.cfg, day), 300)
        finally:
            FAULTS.clear("procedure_seconds")
        assert self.schedule.planned() == []
        return begun

    def sent(self) -> list[str]:
        """The dates that ticks have sent; each tick has planned the next one before it sent anything."""
        calls = self.schedule.sent()[self.earlier[0] :]
        assert all(one[0] == "tick" and "tick" not in one[1:] for one in calls)
        return [day for one in calls for day in one[1:]]


def check_dates(rehearsal: Rehearsal, begun: date, last: date) -> list[str]:
    """Each date up to the last one, or a later one, was sent or is covered, and none twice; returns those sent."""
    closed, state, covered = rehearsal.sent(), rehearsal.schedule.state(), []
    for one in state["covered"]:
        first, end = date.fromisoformat(one["from"]), date.fromisoformat(one["to"])
        covered += [(first + n * DAY).isoformat() for n in range((end - first).days + 1)]
        assert one["by"] in closed and one["by"][:7] == one["from"][:7]
    done = date.fromisoformat(state["done"])
    assert done >= last
    assert sorted(closed + covered) == [(begun + n * DAY).isoformat() for n in range((done - begun).days + 1)]
    assert "leftOut" not in state
    return closed


def check_closings(rehearsal: Rehearsal, closed: list[str]) -> None:
    """Each date that was sent was closed for real, in one run of one procedure."""
    for day in closed:
        (row,) = run_rows(rehearsal.schedule.cfg, day)
        assert [row[name] for name in ("status", "genius", "ledger", "metrics")] == ["succeeded"] * 4, row["message"]
    started = Counter(f"{one['year']}-{one['month_from']}" for one in starts()[rehearsal.earlier[1] :])
    assert started == Counter(day[:7] for day in closed)
    newest = rehearsal.schedule.call("status")["closing"]
    assert (newest["date"], newest["status"]) == (closed[-1], "succeeded")
