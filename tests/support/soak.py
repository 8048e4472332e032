"""Soak test of the scheduler: weeks against the real restate-server, in which each date is closed or covered once.

There is never a second chain. Every closing is a real one, from the procedure to the metrics. Every day on which
Restate is up has a deploy: a new version is published and registered, as `inv deploy` does after its queries.
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
from support import soak_clock
from support.helpers import STATE, run_rows, starts
from support.schedule_helpers import Schedule, clock_of, wait_for

from local.oracle.faults import Faults
from ops import closings

FAULTS = Faults(STATE / "genius")
DAY = timedelta(days=1)
BERLIN = ZoneInfo("Europe/Berlin")
# The clocks skip both of them on 2025-03-30 and show both of them twice on 2025-10-26.
TIMES = ("02:30", "02:45")


class SoakTest:
    """Days of a schedule, `seconds` each; the number of chains is checked several times a day."""

    def __init__(self, local, schedule: Schedule, first: date, seconds: float):
        self.local, self.schedule, self.first, self.up = local, schedule, first, True
        self.text = clock_of((first - DAY).isoformat(), int(86400 / seconds))
        self.clock = soak_clock.parse(self.text)
        self.versions: list[str] = []
        self.earlier = len(schedule.sent()), len(starts())

    def until(self, day: float) -> None:
        """Wait for noon of a day, counted from the first, plus a fraction of a day; check that there is one chain."""
        noon = datetime(self.first.year, self.first.month, self.first.day, 12, tzinfo=BERLIN).timestamp() + day * 86400
        while self.clock.shown(time.time()) < noon:
            if self.up:
                # A server that has just come back answers queries a moment after it answers health checks.
                with contextlib.suppress(Exit):
                    assert len(self.schedule.planned()) <= 1
            time.sleep(0.4)

    def deploy(self) -> None:
        """Deploy the next version, with the other time of day."""
        version = self.schedule.deploy(
            self.text,
            SCHEDULE_ZONE=BERLIN.key,
            DAILY_CLOSING_SCHEDULE_TIME=TIMES[len(self.versions) % 2],
            POLL_INITIAL_SECONDS="0.2",
        )
        assert version not in self.versions
        self.versions.append(version)

    def start(self) -> None:
        """Start the schedule."""
        self.schedule.call("start")

    def stop(self) -> None:
        """Stop the schedule."""
        self.schedule.call("stop")

    def start_twice(self) -> None:
        """Start the schedule twice at the same moment."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: self.start(), range(2)))

    def outage(self, end, until: float) -> None:
        """End restate-server by `end`, a method of the cloud, and start it again on a day."""
        self.up = False
        end("restate")
        self.until(until)
        self.local.start("restate")
        self.up = True

    def deploys(self, days: range, away: range) -> list[tuple[float, object]]:
        """Return a deploy at a random hour of each day not in `away`; some meet a schedule time or a closing."""
        hours = random.Random(days.stop)
        return [(day + hours.uniform(-0.5, 0.5), self.deploy) for day in days if day not in away]

    def run(self, days: int, events: list[tuple[float, object]]) -> date:
        """Deploy, start, run each event on its day, stop, and wait until closings end; returns the first date."""
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
        """Return the dates that the scheduler sent; check that each run first planned the next one."""
        calls = self.schedule.sent()[self.earlier[0] :]
        assert all(one[0] == "next" and "next" not in one[1:] for one in calls)
        return [day for one in calls for day in one[1:]]


def check_dates(soak: SoakTest, begun: date, last: date) -> list[str]:
    """Check that each date up to `last` or later was sent or is covered, and none twice; returns the dates sent."""
    closed, state, covered = soak.sent(), soak.schedule.state(), []
    for one in state["covered"]:
        first, end = date.fromisoformat(one["from"]), date.fromisoformat(one["to"])
        covered += [(first + n * DAY).isoformat() for n in range((end - first).days + 1)]
        assert one["by"] in closed and one["by"][:7] == one["from"][:7]
    done = date.fromisoformat(state["done"])
    assert done >= last
    assert sorted(closed + covered) == [(begun + n * DAY).isoformat() for n in range((done - begun).days + 1)]
    assert "leftOut" not in state
    return closed


def check_closings(soak: SoakTest, closed: list[str]) -> None:
    """Check that each date that was sent was closed in one run of one procedure."""
    for day in closed:
        (row,) = run_rows(soak.schedule.cfg, day)
        assert [row[name] for name in ("status", "genius", "ledger", "metrics")] == ["succeeded"] * 4, row["message"]
    started = Counter(f"{one['year']}-{one['month_from']}" for one in starts()[soak.earlier[1] :])
    assert started == Counter(day[:7] for day in closed)
    newest = soak.schedule.call("status")["closing"]
    assert (newest["date"], newest["status"]) == (closed[-1], "succeeded")
