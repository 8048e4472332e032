"""Play scripts on the models of tests/simulation: see chaos/compare.py, which asks.

It is a process of its own, because the simulation puts its models in the place of the handlers' functions.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from simulation.__main__ import SETTINGS

from chaos import scripts
from chaos.scripts import BLOCKERS, Outcome, category

DATE, PERIOD = "2025-02-27", "2025-02"
MOST_COMMANDS, REST_SECONDS, MOST_RESTS = 8, 7200, 100
FOREVER = 1e9
# Limits that no script reaches lie beyond its end, and a rest is longer than the time between two polls.
POLLS = {"POLL_CAP_SECONDS": "600", "START_LIMIT_SECONDS": "2000000", "DEADLINE_SECONDS": "2000000"}
# A procedure that raises ORA-01555, and one whose status is 0: the guard raises its own error then.
ENDS = {"procedure fails": 1555, "procedure ends with 0": "failed"}


class Plans(list):
    """The plan of each next job, by the blockers and faults of that moment."""

    def __init__(self, player: Player):
        self.player = player

    def __bool__(self) -> bool:
        return True

    def pop(self, _=0):
        from simulation.oracle_model import Plan

        delay = None if "slave never starts" in self.player.blockers else 1.0
        seconds = FOREVER if "procedure holds" in self.player.blockers else 1.0
        return Plan(delay, seconds, self.player.end())


class Player:
    """Plays one script; each word is a method do_WORD that returns whether a command was accepted."""

    def __init__(self, script: tuple[str, ...]):
        from simulation.world import Script, World

        self.script = script
        self.world = World(Script())
        self.operator, self.restate, self.genius = self.world.operator, self.world.restate, self.world.genius
        self.blockers: set[str] = set()
        self.armed: list[str] = []
        self.genius.plans = Plans(self)
        self.restate.fault = self.fault_at
        self.effective: list[str] = []
        self.rotated = False
        self.log_hidden = False
        self.genius.read = self.read(self.genius.read)

    def read(self, original):
        def read(name: str) -> dict:
            found = original(name)
            return found | {"runs": []} if self.log_hidden else found

        return read

    def end(self) -> str | int:
        return next((ENDS[word] for word in self.armed if word in ENDS), "succeeded")

    def fault_at(self, invocation, name: str) -> str:
        for word in (f"die before {name}", f"die after {name}", f"late {name}"):
            if word in self.armed:
                self.armed.remove(word)
                if not word.startswith("late"):
                    self.effective.append(category(word))
                return {"die before": "die-before", "die after": "die-after"}.get(word[: -len(name) - 1], "zombie")
        return "stall" if name == "submit" and "submit stalls" in self.blockers else ""

    # One script

    def play(self) -> Outcome:
        answers = scripts.do_words(self)
        self.do("clear")
        self.log_hidden = False
        if self.rotated:
            self.operator.deploy()
        named = self.follow()
        rows = sorted((r for r in self.world.postgres.rows.values() if r["date"] == DATE), key=lambda row: row["at"])
        runs = tuple((row["genius"], row["ledger"], row["metrics"]) for row in rows)
        starts = len([job for job in self.genius.started if job.date == DATE])
        self.world.check()
        return Outcome(answers, tuple(named), runs, starts, tuple(self.effective))

    def do(self, word: str) -> bool | None:
        if word in BLOCKERS:
            self.blockers.add(word)
            self.world.genius.down_until = FOREVER * 10 if word == "Genius is down" else -1.0
            self.world.postgres.down_until = FOREVER * 10 if word == "PostgreSQL is down" else -1.0
            self.effective += [word] if word in scripts.FAULTS else []
            return None
        if word in scripts.ARMED:
            self.armed.append(word)
            return None
        accepted = getattr(self, "do_" + word.lower().replace(" ", "_").replace("-", "_"))()
        if accepted:
            self.effective.append(category(word))
        return accepted if category(word) in scripts.COMMANDS else None

    def settle(self) -> None:
        """Let time pass until everything is at rest."""
        for _ in range(MOST_RESTS):
            self.restate.run(self.world.now + REST_SECONDS)
            live = [one for one in self.world.closings() if one.live]
            if self.blockers or not live or any(one.status == "paused" for one in live):
                return
        raise AssertionError(f"no rest: {self.script}")

    def follow(self) -> list[str]:
        """Follow the next command until the date is closed; returns the commands."""
        from handler import plan

        named: list[str] = []
        while True:
            self.settle()
            command = plan.next_command(self.operator.state(DATE))["command"].replace(" --env ENV", "")
            if not command:
                return [one.replace(DATE, "DATE").replace(PERIOD, "PERIOD") for one in named]
            if len(named) == MOST_COMMANDS:
                raise AssertionError(f"{self.script}: not closed after {named}")
            named.append(command)
            self.effective.append(followed(command))
            self.operator.do(["inv", *command.split()[1:]], DATE)

    # Words

    def run_of_date(self):
        return self.restate.workflows.get(("DailyClosing", DATE))

    def is_live(self) -> bool:
        run = self.run_of_date()
        return bool(run and run.live)

    def do_close(self) -> bool:
        return not self.operator.hold_now() and self.operator.close(DATE)

    def do_cancel(self) -> bool:
        live = self.is_live()
        self.operator.cancel(DATE)
        return live

    def do_kill(self) -> bool:
        live = self.is_live()
        self.operator.kill(DATE)
        return live

    def do_rerun(self) -> bool:
        return self.operator.rerun(DATE)

    def do_rerun___from_genius(self) -> bool:
        return self.operator.rerun(DATE, first="genius")

    def do_rerun___adopt(self) -> bool:
        return self.operator.rerun(DATE, adopt=True)

    def do_resolve(self) -> bool:
        return self.operator.resolve(PERIOD)

    def do_stop_job(self) -> bool:
        closing = self.restate.states["ClosingPeriod", PERIOD].get("closing")
        if not closing:
            return False
        call = self.restate.submit("ClosingPeriod", PERIOD, "stop_job", None)
        self.restate.run(self.world.now + 30)
        return call.failure is None

    def do_resume(self) -> bool:
        paused = bool(self.operator.state(DATE)["paused"])
        self.operator.resume(DATE)
        return paused

    def do_deploy(self) -> bool:
        self.operator.deploy()
        self.rotated = False
        return True

    def do_rotate_oracle(self) -> bool:
        self.operator.rotate_oracle()
        self.rotated = True
        return True

    def do_rotate_postgresql(self) -> bool:
        self.operator.rotate_postgres()
        self.rotated = True
        return True

    def do_hold(self) -> bool:
        self.operator.hold(None)
        return True

    def do_release(self) -> bool:
        held = bool(self.operator.hold_now())
        self.operator.release()
        return held

    def do_clear(self) -> None:
        """Clear the blockers; jobs that waited go on and end, then the procedure works again."""
        self.blockers.clear()
        self.genius.down_until = self.world.postgres.down_until = -1.0
        for job in self.genius.jobs.values():
            if job.truth == "running":
                self.count_end()
                self.genius.end(job, self.end(), job.starts)
            elif job.state == "SCHEDULED" and job.plan.delay is None:
                job.plan = dataclasses.replace(job.plan, delay=1.0, seconds=1.0, end=self.end())
                self.restate.after(0.1, self.genius.start, job)
        self.settle()
        if any(job.starts and job.truth == "failed" for job in self.genius.jobs.values()):
            self.count_end()
        self.armed = [word for word in self.armed if word not in ENDS]

    def count_end(self) -> None:
        self.effective += [word for word in self.armed if word in ENDS]

    # Faults

    def do_late_effect(self) -> None:
        if self.restate.zombies:
            self.effective.append("late effect")
        self.operator.zombies()

    def do_restart_restate(self) -> None:
        for one in list(self.restate.invocations.values()):
            if one.status in ("waiting", "running"):
                self.restate.again(one, 2.5)
        self.effective.append("restart Restate")

    def do_lose_restate(self) -> None:
        self.operator.lose_restate()
        self.operator.deploy()
        self.rotated = False
        self.effective.append("lose Restate")

    def do_slave_dies(self) -> None:
        for job in self.genius.jobs.values():
            if job.truth == "running":
                self.effective.append("slave dies")
                self.genius.end(job, "dies", job.starts)

    def do_job_dropped(self) -> None:
        for job in self.genius.jobs.values():
            if job.state not in (None, "RUNNING"):
                self.effective.append("job dropped")
                job.state = None

    def do_log_purged(self) -> None:
        if any(job.runs for job in self.genius.jobs.values()):
            self.effective.append("log purged")
        self.log_hidden = True


def followed(command: str) -> str:
    """Return the name in COMMANDS of a command that `inv next` named."""
    return " ".join(word for word in command.split()[1:] if word == "--adopt" or word in scripts.COMMANDS)


def play(script: tuple[str, ...]) -> Outcome:
    return Player(script).play()


def main(question: str, *arguments) -> None:
    """Answer ["choose", seed, times, most] or ["play", script, …]; see compare.model."""
    os.environ.update(SETTINGS, **POLLS)
    from simulation import runner

    runner.install()
    if question == "choose":
        seed, times, most = arguments
        found = scripts.choose(seed, play, times, most or None)
    else:
        found = [(script, play(script)) for script in map(tuple, arguments)]
    print(json.dumps([{"script": script, "outcome": dataclasses.asdict(outcome)} for script, outcome in found]))


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
