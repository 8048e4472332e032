"""One simulated world: the real handlers over the models, a script of faults and operator actions, and the invariants.

Everything that happens is decided by the script, so that a seed replays alone and a script can be shrunk.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from handler import closing, entry, genius, ledger, log, period, plan, runs, schedule_times, scheduler, step
from handler.errors import LoginRefused

from .operator import Operator
from .oracle_model import Genius, Plan
from .postgres_model import Postgres
from .restate_context import gather
from .restate_model import Restate

START = datetime(2025, 3, 20, 6, tzinfo=timezone.utc).timestamp()
HOUR, DAY = 3600.0, 86400.0
# Dates of two periods; the first two share one.
DATES = ("2025-02-27", "2025-02-28", "2025-03-15")
STEP_FAULTS = ("die-before", "die-after", "zombie")
END_EVENTS = ("closing_completed", "closing_partial", "closing_failed")
SERVICES = {
    "DailyClosing": {"run": (closing.run, "workflow", True), "getStatus": (closing.get_status, "shared", False)},
    "ClosingPeriod": {
        "close": (period.close, "exclusive", True),
        "status": (period.status, "shared", False),
        "inspect": (period.inspect, "shared", True),
        "stop_job": (period.stop_job, "shared", False),
        "resolve": (period.resolve, "exclusive", True),
    },
    "DailyClosingScheduler": {
        "start": (scheduler.start, "exclusive", False),
        "stop": (scheduler.stop, "exclusive", False),
        "trigger": (scheduler.trigger, "exclusive", True),
        "status": (scheduler.status, "shared", False),
        "check_closed": (scheduler.check_closed, "shared", True),
        "hold": (scheduler.hold, "exclusive", True),
        "release": (scheduler.release, "exclusive", True),
        "held": (scheduler.held, "shared", False),
    },
}


@dataclass(frozen=True)
class Script:
    """All that is not decided by the code: what the operator does and when, which step boundary a fault hits,
    what becomes of each job, and which replies are lost."""

    actions: tuple[tuple[float, str, tuple], ...] = ()
    faults: tuple[tuple[int, str], ...] = ()
    jobs: tuple[Plan, ...] = ()
    lost: tuple[int, ...] = ()

    def parts(self) -> list[tuple[str, int]]:
        """Return each part that can be left out, for shrinking."""
        return [(name, n) for name in ("actions", "faults", "lost", "jobs") for n in range(len(getattr(self, name)))]

    def without(self, name: str, number: int) -> Script:
        kept = [one for n, one in enumerate(getattr(self, name)) if n != number]
        return dataclasses.replace(self, **{name: tuple(kept)})


class Broken(BaseException):
    """An invariant does not hold. It is not an Exception, so that no handler catches it."""


class World:
    current: World

    def __init__(self, script: Script):
        World.current = self
        self.script, self.faults, self.lost = script, dict(script.faults), set(script.lost)
        self.restate = Restate(SERVICES, START)
        self.restate.fault = self.fault_at
        self.genius, self.postgres = Genius(self), Postgres(self)
        self.genius.plans = list(script.jobs)
        self.postgres.keeps_history = any(kind == "fail_over" for _, kind, _ in script.actions)
        self.steps, self.replies = itertools.count(1), itertools.count(1)
        self.oracle_password = self.pg_password = "first"
        self.oracle_passwords, self.pg_passwords = {0: "first"}, {0: "first"}
        self.events: list[dict] = []
        self.operator = Operator(self)
        self.restate.accepted = self.operator.accepted
        self.lost_restate = False

    @property
    def now(self) -> float:
        return self.restate.now

    @property
    def version(self) -> int:
        """Return the function's version on which the current step runs."""
        return self.restate.current.version if self.restate.current else self.restate.version

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.now, timezone.utc).isoformat()

    def fault_at(self, invocation, name: str) -> str:
        return self.faults.get(next(self.steps), "")

    def lost_reply(self, name: str) -> bool:
        return next(self.replies) in self.lost

    def login_refused(self, message: str) -> Exception:
        return LoginRefused(message)

    def log(self, event: str, **fields) -> None:
        if event == "code_error":
            raise Broken(f"an error in the service's own code: {fields}")
        self.events.append({"event": event, **fields})

    # One run

    def run(self) -> None:
        """Play the script, let everything come to rest, and check; raises Broken."""
        for moment, kind, arguments in self.script.actions:
            self.restate.after(moment, self.act, kind, arguments)
        self.restate.run(START + 3 * DAY)
        self.recover_services()
        self.settle()
        self.check()
        self.check_end_events()
        self.check_lost_dates()
        self.operator.check_liveness()
        self.check()
        self.check_end_events()

    def act(self, kind: str, arguments: tuple) -> None:
        getattr(self.operator, kind)(*arguments)
        self.check()

    def recover_services(self) -> None:
        """End what only time or another team can end: an outage, a database without job slaves."""
        self.genius.down_until = self.postgres.down_until = -1.0
        self.genius.slaves = True
        self.faults, self.lost = {}, set()
        self.operator.deploy()

    def settle(self) -> None:
        """Let time pass until only the schedule has something to do, or a closing waits for a person."""
        for _ in range(40):
            if not any(one.status in ("queued", "running", "waiting", "backing-off") for one in self.closings()):
                return
            self.restate.run(self.now + 6 * HOUR)

    def closings(self) -> list:
        return [one for one in self.restate.invocations.values() if one.service != "DailyClosingScheduler"]

    # Invariants

    def check(self) -> None:
        self.check_starts()
        self.check_books()
        self.check_closed()

    def check_starts(self) -> None:
        """Check for each date that the procedure started at most once per accepted request and announced repeat."""
        for day in list(self.operator.allowed):
            started = [job for job in self.genius.started if job.date == day and job.ours]
            allowed = self.operator.allowed_starts(day)
            if len(started) > allowed:
                raise Broken(f"{day}: the procedure started {len(started)} times, {allowed} were allowed")

    def check_books(self) -> None:
        """Check that a period's books are those of one job that succeeded, and its metrics those of its books."""
        for key, books in self.postgres.tables["books"].items():
            job = self.genius.jobs.get(books["job"])
            if not job or job.truth != "succeeded":
                raise Broken(f"{key}: the books hold the result of {books['job']}, which did not succeed")

    def check_closed(self) -> None:
        """Check that a run that succeeded has its three steps and exactly one end event; only then is a date closed."""
        for row in self.postgres.rows.values():
            if row["status"] == "succeeded":
                left = [one for one in plan.STEPS if row[one] not in ("succeeded", "reused", "skipped")]
                if left:
                    raise Broken(f"{row['date']}: succeeded without {left}")
        for day in list(self.operator.allowed):
            if plan.next_command(self.operator.state(day))["command"] == "" and not self.operator.truly_done(day):
                raise Broken(f"{day}: counts as closed, and its procedure did not succeed")

    def check_end_events(self) -> None:
        """Check that each run that ended, also by a cancellation, has exactly one end event.

        After a failover that lost the mark "end logged", a late try logs the same event again. A refused run has begun
        nothing and has no such mark: if its process dies, the next one logs the event again.
        """
        ended: Counter = Counter()
        for invocation in self.restate.finished:
            if (invocation.service, invocation.handler) != ("DailyClosing", "run"):
                continue
            if invocation.failure and invocation.failure.message == "killed":
                continue
            closes = [one.child.id for one in invocation.journal if one.child and one.child.handler == "close"]
            # A refused run has called no close, and its own id comes from its date.
            ended[closes[0] if closes else invocation.id] += 1
        for owner, count in ended.items():
            found = [one["event"] for one in self.events if one["event"] in END_EVENTS and one["invocation"] == owner]
            repeats = owner.startswith("inv_DailyClosing") or self.postgres.lost_commits
            if len(found) != count and not (len(found) > count and repeats and len(set(found)) == 1):
                raise Broken(f"{owner}: the end events of {count} runs are {found}")

    def check_hold(self) -> None:
        """Check, when a closing begins, that its request was accepted before the hold that is in force."""
        hold, run = self.operator.hold_now(), self.restate.current.parent
        if not hold or not run or json.loads(run.body).get("despiteHold"):
            return
        if run.accepted > schedule_times.read(hold["at"]) + 1:
            raise Broken(f"{run.key}: began while closings were held")

    def check_lost_dates(self) -> None:
        """Check that each date whose schedule time is past is closed, or that an event names it."""
        state = self.restate.states["DailyClosingScheduler", "main"]
        if self.lost_restate or not state.get("last"):
            return
        past = state["last"]["dates"] + state["last"]["open"]
        self.restate.run(self.now + 12 * HOUR)
        named = {one.get("date") for one in self.events if one["event"] in ("closing_failed", "closing_late")}
        for one in self.events:
            if one["event"] == "dates_missed":
                named |= {day for span in one["covered"] + one["leftOut"] for day in days(span)}
        for day in past:
            if day not in named and plan.next_command(self.operator.state(day))["command"]:
                raise Broken(f"{day}: its schedule time is past, it is not closed and no event names it")


def days(span: dict) -> list[str]:
    """Return the dates of {"from", "to"}, both included."""
    first, last = date.fromisoformat(span["from"]), date.fromisoformat(span["to"])
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def install() -> None:
    """Replace the functions of genius, runs and ledger, the log and the SDK's gather by the models."""
    for module, part, names in (
        (genius, "genius", "submit poll_job reserve_name give_up live_jobs period_jobs stop_job"),
        (runs, "postgres", "begin left_out record_job record_step resolve finish mark_logged of_date unaccounted"),
        (ledger, "postgres", "replace_trial_balance compute_metrics"),
    ):
        for name in names.split():
            setattr(module, name, delegate(part, name))
    log.write = lambda event, **fields: World.current.log(event, **fields)
    entry.gather = gather
    step.TRY_SECONDS = 0


def delegate(part: str, name: str):
    def function(*arguments, **options):
        return getattr(getattr(World.current, part), name)(*arguments, **options)

    function.__name__ = name
    return function
