"""The model of Genius is compared with the stand-in: both get the same generated calls and faults, and must agree.

The stand-in runs the real handler/genius.py, driver and PL/SQL of the job, so that mutants of the job are found, too.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from support.closing_jobs import ask

from handler import genius, job_status
from handler.errors import Refused, Unavailable

from .oracle_model import Genius, Plan
from .restate_model import Restate

# One script for each period of the stand-in's books.
PERIODS = tuple(f"2025-{month:02d}" for month in range(1, 13))
SCRIPTS, CALLS, OWNERS, SETTLE_SECONDS = 24, 8, 3, 10
# How many seconds the stand-in may take to reach the model's state.
PATIENCE = 8.0
LONG, RESTARTED = 500.0, 5000.0
# How a job ends -> what to inject into the stand-in.
ENDS = {
    "succeeded": {},
    "failed": {"procedure_status": "0"},
    20806: {"procedure_error": "ORA-20806: of the procedure"},
    20807: {"procedure_error": "ORA-20807: of the procedure"},
    20808: {"procedure_error": "ORA-20808: of the procedure"},
}
CHOICES = ("submit", "submit", "submit", "give_up", "reserve_name", "stop_job", "slave_dies", "restart")
CHOICES += ("drop_job", "no_slaves", "slaves", "lost_reply", "password", "listener_down")


def mark_after_the_call(text: str) -> str:
    """Move the block that takes the start mark behind the call of the procedure."""
    begin = text.index("  BEGIN\n    DBMS_SCHEDULER.CREATE_SCHEDULE(\n      schedule_name => '{job}_S'")
    end = text.index("  END;\n", begin) + len("  END;\n")
    later = text.index("  IF v_status IS NULL")
    return text[:begin] + text[end:later] + text[begin:end] + text[later:]


# A mutant of the job -> the text of handler/genius.py that it changes, and the change.
MUTANTS = {
    "no start mark": ("JOB_ACTION", lambda text: text.replace("'{job}_S'", "'{job}_X'")),
    "the mark is taken after the call": ("JOB_ACTION", mark_after_the_call),
    "another job does not hold it up": ("JOB_ACTION", lambda text: text.replace("IF v_other IS NOT NULL", "IF 1 = 0")),
    "the job is dropped at its end": (
        "CREATE_JOB",
        lambda text: text.replace("auto_drop => FALSE", "auto_drop => TRUE"),
    ),
    "the marker of its errors is another": ("JOB_ACTION", lambda text: text.replace("'{marker} has", "'[closing] has")),
    "the mark of a given-up job reads as started": (
        "TAKE_MARK",
        lambda text: text.replace(":comments", "'x' || :comments"),
    ),
}


class Model:
    """The simulation's Genius in a world that has nothing else."""

    def __init__(self, period: str, end, seconds: float):
        self.period, self.restate = period, Restate({}, 1000.0)
        world = SimpleNamespace(restate=self.restate, version=0, oracle_password="", oracle_passwords={0: ""})
        world.stamp, world.lost_reply = lambda: "", lambda name: self.lost == name and bool(self.take())
        self.world, self.lost, self.genius = world, "", Genius(world)
        self.plan = Plan(delay=0.1, seconds=seconds, end=end)
        self.let_pass(0)

    def take(self) -> str:
        lost, self.lost = self.lost, ""
        return lost

    def let_pass(self, seconds: float) -> None:
        self.restate.run(self.restate.now + seconds)
        self.world.now = self.restate.now

    def do(self, call: str, owner: str):
        job, found = genius.job_name(self.period, owner), self.genius.jobs.get(genius.job_name(self.period, owner))
        self.genius.plans = [self.plan]
        if call in ("no_slaves", "slaves"):
            self.genius.slaves = call == "slaves"
        elif call == "lost_reply":
            self.lost = "submit"
            return self.do("submit", owner)
        elif call == "restart":
            self.genius.restart()
        elif call == "slave_dies":
            for one in self.genius.jobs.values():
                self.genius.end(one, "dies", one.starts)
        elif call == "drop_job":
            if found and found.state not in ("RUNNING", None):
                found.state = None
        elif call == "password":
            self.world.oracle_password = "rotated"
            try:
                return self.genius.live_jobs(self.period, job)
            finally:
                self.world.oracle_password = ""
        elif call == "listener_down":
            self.genius.down_until = self.world.now + 1
            try:
                return self.genius.live_jobs(self.period, job)
            finally:
                self.genius.down_until = -1.0
        elif call == "submit":
            return self.genius.submit(self.period, owner, f"{self.period}-28", "siti")["job"]
        else:
            answer = getattr(self.genius, call)(job)
            return None if call == "stop_job" else answer
        return None

    def starts(self) -> Counter:
        return Counter(job.name for job in self.genius.started)

    def read(self, job: str) -> dict:
        return self.genius.poll_job(job)

    def live(self) -> list[str]:
        return self.genius.live_jobs(self.period, "NONE")


class Real:
    """handler/genius.py and the driver on the stand-in."""

    def __init__(self, stand_in, period: str, end, seconds: float):
        self.stand_in, self.period, self.restarted = stand_in, period, seconds == RESTARTED
        for name, value in {**ENDS[end], "procedure_seconds": 0 if seconds == 1 else 60}.items():
            stand_in.faults.inject(name, value)

    def do(self, call: str, owner: str):
        job, faults = genius.job_name(self.period, owner), self.stand_in.faults
        if call in ("no_slaves", "slaves"):
            (faults.inject if call == "no_slaves" else faults.clear)("jobs_never_start")
        elif call == "lost_reply":
            faults.inject("cut_after", "(?i)create_job")
            return self.do("submit", owner)
        elif call == "restart":
            if self.restarted:
                faults.inject("restart_on_recovery")
            self.stand_in.restart()
            faults.clear("restart_on_recovery")
        elif call == "slave_dies":
            running = ask("SELECT job_name FROM user_scheduler_jobs WHERE state = 'RUNNING'")
            if running:
                faults.inject("slave_dies")
        elif call == "drop_job":
            seen = genius.poll_job(job)
            if seen["state"] not in ("RUNNING", None):
                ask("BEGIN DBMS_SCHEDULER.DROP_JOB(:job); END;", job=job)
        elif call in ("password", "listener_down"):
            faults.inject(call, "GENIUS:rotated" if call == "password" else "")
            try:
                return genius.live_jobs(self.period, job)
            finally:
                faults.clear(call)
        elif call == "submit":
            return genius.submit(self.period, owner, f"{self.period}-28", "siti")["job"]
        else:
            answer = getattr(genius, call)(job)
            return None if call == "stop_job" else answer
        return None

    def end(self) -> None:
        """Leave no job and no fault that the next script could meet."""
        for (job,) in ask("SELECT job_name FROM user_scheduler_jobs"):
            ask("BEGIN DBMS_SCHEDULER.DROP_JOB(:job, force => TRUE); END;", job=job)
        for name in self.stand_in.faults.injected():
            self.stand_in.faults.clear(name)

    def starts(self) -> Counter:
        log = self.stand_in.folder / "procedure.log"
        return Counter(self.stand_in.starts() if log.exists() else [])

    def read(self, job: str) -> dict:
        return genius.poll_job(job)

    def live(self) -> list[str]:
        return genius.live_jobs(self.period, "NONE")


def answer(side, call: str, owner: str):
    """Return what a call answers, or the kind of its error."""
    try:
        return side.do(call, owner)
    except (Refused, Unavailable) as error:
        return type(error).__name__


def observed(side, owners: list[str]) -> dict:
    """Return what a closing can see and conclude now, and the starts of the procedure."""
    jobs = [genius.job_name(side.period, owner) for owner in owners]
    starts = side.starts()
    known = {"starts": [starts[job] for job in jobs], "live": side.live()}
    for job in jobs:
        seen = side.read(job)
        evaluated = job_status.evaluate({"since": seen["at"], "misses": job_status.MISSES}, seen, 1e9, 1e9)
        end = seen["end"] and seen["end"]["outcome"]
        known[job] = {name: seen[name] for name in ("state", "mark")} | {
            "end": end,
            "outcome": evaluated.get("outcome"),
        }
    return known


def compare(stand_in, seed: int, counts: Counter | None = None) -> str:
    """Play the script of a seed on both sides; return "" or the first difference.

    counts: of calls, faults and ends.
    """
    draw, counts = random.Random(seed), Counter() if counts is None else counts
    period = PERIODS[seed % len(PERIODS)]
    end, seconds = draw.choice(list(ENDS)), draw.choice((1.0, 1.0, LONG, RESTARTED))
    owners = [f"inv_{seed}_{number}" for number in range(OWNERS)]
    model, real = Model(period, end, seconds), Real(stand_in, period, end, seconds)
    done = [f"seed {seed}: jobs end as {end} after {seconds:.0f} s"]
    counts.update((f"ends as {end}", f"takes {seconds:.0f} s"))
    for _ in range(CALLS):
        call, owner = draw.choice(CHOICES), draw.choice(owners)
        counts[call] += 1
        done.append(f"{call} {owner}")
        expected, found = answer(model, call, owner), answer(real, call, owner)
        if expected != found:
            return f"{done}: the model answers {expected}, Genius {found}"
        model.let_pass(SETTLE_SECONDS)
        expected, deadline = observed(model, owners), time.monotonic() + PATIENCE
        while (found := observed(real, owners)) != expected:
            if time.monotonic() > deadline:
                return f"{done}: the model has {expected}, Genius {found}"
            time.sleep(0.05)
    real.end()
    return ""


def test_the_model_of_genius_agrees_with_the_stand_in(stand_in, handler_settings):
    counts = Counter()
    for seed in range(SCRIPTS):
        assert compare(stand_in, seed, counts=counts) == ""
    wanted = {*CHOICES, *(f"ends as {end}" for end in ENDS), *(f"takes {n:.0f} s" for n in (1, LONG, RESTARTED))}
    assert {name: counts[name] for name in wanted if counts[name] < 3} == {}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_job_is_found(stand_in, handler_settings, monkeypatch, mutant):
    name, change = MUTANTS[mutant]
    text = getattr(genius, name)
    assert change(text) != text, "the mutant does not fit any more"
    monkeypatch.setattr(genius, name, change(text))
    assert any(compare(stand_in, seed) for seed in range(SCRIPTS))
