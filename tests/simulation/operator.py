"""The operator of the simulation: does what the tasks of ops/ do, by the same pure functions, and reports the truth."""

from __future__ import annotations

import json
from datetime import datetime, timezone

from handler import closing, plan

MOST_COMMANDS = 8
USER = "adm"


class Operator:
    def __init__(self, world):
        self.world = world
        # Accepted requests and announced repeats: each allows one start of the procedure of its date.
        self.allowed: dict[str, int] = {}
        self.names = 0

    def allowed_starts(self, date: str) -> int:
        return self.allowed.get(date, 0)

    def accepted(self, date: str, body: bytes) -> None:
        """Count a closing that was accepted, the operator's or the schedule's."""
        self.allowed[date] = self.allowed_starts(date) + (json.loads(body).get("procedure", "run") == "run")

    # The operator's view

    def state(self, date: str) -> dict:
        """Return what `inv next` gathers: see handler.plan.next_command."""
        world, restate = self.world, self.world.restate
        run = restate.workflows.get(("DailyClosing", date))
        known = restate.states["ClosingPeriod", date[:7]]
        queue = restate.queues["ClosingPeriod", date[:7]]
        involved = [one for one in (run, queue[0] if queue else None) if one]
        paused = next((one for one in involved if one.status == "paused"), None)
        mine = [one for one in queue if one.parent is run]
        behind = queue[0].parent.key if mine and queue[0] is not mine[0] and queue[0].parent else None
        failure = run.failure.message if run and run.failure else None
        return {
            "date": date,
            "run": run and {"status": run.status, "failure": failure},
            "paused": paused and paused.id,
            "newer": bool(paused) and paused.version != restate.version,
            "queuedBehind": behind,
            "blocked": known.get("blocked"),
            "closing": known.get("closing"),
            "hold": self.hold_now(),
            "jobs": self.read(world.genius.period_jobs, date[:7]),
            "rows": self.read(world.postgres.of_date, date),
        }

    def hold_now(self) -> dict | None:
        return self.world.restate.states["DailyClosingScheduler", "main"].get("hold")

    def read(self, function, argument):
        try:
            return function(argument)
        except Exception as error:
            return str(error)

    # The operator's commands

    def close(self, date: str, **flags) -> bool:
        """Do `inv close`. A closing that another program sends is not checked for a hold first."""
        restate = self.world.restate
        earlier = restate.workflows.get(("DailyClosing", date))
        if earlier and earlier.failure and earlier.failure.status_code == closing.HELD:
            restate.purge("DailyClosing", date)
        if ("DailyClosing", date) in restate.workflows:
            return False
        body = {"date": date, "userId": USER, **flags}
        restate.submit("DailyClosing", date, "run", json.dumps(body).encode())
        return True

    def rerun(self, date: str, first: str | None = None, adopt: bool = False) -> bool:
        """Do `inv rerun`: announce, end a run that lives, purge it, submit."""
        restate = self.world.restate
        if self.hold_now():
            return False
        try:
            announced = plan.announce(self.state(date), first, adopt)
        except ValueError:
            return False
        run = restate.workflows.get(("DailyClosing", date))
        if run and run.live:
            self.end_run(run)
            if run.live:
                return False
        restate.purge("DailyClosing", date)
        body = {"date": date, "userId": USER, "resume": True, "adopt": adopt, "procedure": announced["procedure"]}
        if first:
            body["fromStep"] = first
        restate.submit("DailyClosing", date, "run", json.dumps(body).encode())
        return True

    def end_run(self, run) -> None:
        restate = self.world.restate
        children = [entry.child for entry in run.journal if entry.child]
        restate.cancel(run.id)
        for one in (run, *children):
            if one.status == "paused":
                restate.resume_paused(one.id)
        restate.run(self.world.now + 120)

    def cancel(self, date: str) -> None:
        run = self.world.restate.workflows.get(("DailyClosing", date))
        if run and run.live:
            self.end_run(run)

    def kill(self, date: str) -> None:
        run = self.world.restate.workflows.get(("DailyClosing", date))
        if run and run.live:
            self.world.restate.kill(run.id)

    def resolve(self, period: str) -> bool:
        """Do `inv resolve`, with the truth."""
        restate = self.world.restate
        blocked = restate.states["ClosingPeriod", period].get("blocked")
        if not blocked or restate.queues["ClosingPeriod", period]:
            return False
        job = self.world.genius.jobs.get(blocked["job"])
        outcome = "succeeded" if job and job.truth == "succeeded" else "failed"
        body = {"job": blocked["job"], "as": outcome, "who": "siti"}
        call = restate.submit("ClosingPeriod", period, "resolve", json.dumps(body).encode())
        restate.run(self.world.now + 30)
        if call.live:
            # Before the command gives up, it cancels what it has sent.
            restate.cancel(call.id)
            return False
        return call.failure is None

    def stop_job(self, date: str) -> None:
        self.world.restate.submit("ClosingPeriod", date[:7], "stop_job", None)

    def resume(self, date: str, latest: bool = True) -> None:
        paused = self.state(date)["paused"]
        if paused:
            self.world.restate.resume_paused(paused, latest=latest)

    def deploy(self) -> None:
        """Deploy a new version with the passwords of today."""
        world = self.world
        world.restate.version += 1
        world.oracle_passwords[world.restate.version] = world.oracle_password
        world.pg_passwords[world.restate.version] = world.pg_password

    def start_schedule(self) -> None:
        self.world.restate.submit("DailyClosingScheduler", "main", "start", None)

    def hold(self, seconds: float | None) -> None:
        """Do `inv hold`, until a time or until a release."""
        until = seconds and datetime.fromtimestamp(self.world.now + seconds, timezone.utc).isoformat()
        body = {"who": "siti", "reason": "patch", "until": until}
        self.world.restate.submit("DailyClosingScheduler", "main", "hold", json.dumps(body).encode())

    def release(self) -> None:
        self.world.restate.submit("DailyClosingScheduler", "main", "release", b'{"who": "siti"}')
        self.world.restate.run(self.world.now + 30)

    # Events around the operator

    def rotate_oracle(self) -> None:
        self.names += 1
        self.world.oracle_password = f"rotated {self.names}"

    def rotate_postgres(self) -> None:
        self.names += 1
        self.world.pg_password = f"rotated {self.names}"

    def genius_down(self, seconds: float) -> None:
        self.world.genius.down_until = self.world.now + seconds

    def postgres_down(self, seconds: float) -> None:
        self.world.postgres.down_until = self.world.now + seconds

    def fail_over(self, seconds: float) -> None:
        self.world.postgres.fail_over(seconds)

    def restart_genius(self) -> None:
        self.world.genius.restart()

    def slaves(self, there: bool) -> None:
        self.world.genius.slaves = there

    def drop_job(self, number: int) -> None:
        jobs = list(self.world.genius.jobs.values())
        if number < len(jobs) and jobs[number].state != "RUNNING":
            jobs[number].state, jobs[number].runs = None, []

    def purge_log(self, number: int) -> None:
        jobs = list(self.world.genius.jobs.values())
        if number < len(jobs):
            jobs[number].runs = []

    def lose_restate(self) -> None:
        self.world.lost_restate = True
        self.world.restate.lose_data()

    def zombies(self) -> None:
        """Let the steps that dead processes had begun have their effect now."""
        restate = self.world.restate
        waiting, restate.zombies = restate.zombies, []
        for function, arguments, invocation in waiting:
            restate.run_zombie(invocation, function, arguments)

    def other_program(self, period: str) -> None:
        """Start a job of another program, without our guard."""
        genius = self.world.genius
        genius.create(f"OTHER_{len(genius.jobs)}", period, "", "the older service", ours=False)

    # The promise to the operator

    def truly_done(self, date: str) -> bool:
        """Return whether the newest start of the procedure for a date succeeded."""
        started = [job for job in self.world.genius.started if job.date == date and job.ours]
        return bool(started) and started[-1].truth == "succeeded"

    def failures(self, date: str, begun: int) -> int:
        """Return how many jobs of a date failed of those that started after the first `begun` ones."""
        started = self.world.genius.started[begun:]
        return sum(job.date == date and job.truth in ("failed", "unknown") for job in started)

    def check_liveness(self) -> None:
        """Check that next_command, followed from here, closes each accepted date in at most MOST_COMMANDS commands."""
        for date in sorted(self.allowed):
            self.follow(date)

    def follow(self, date: str) -> None:
        from .world import Broken

        done, begun, held = [], len(self.world.genius.started), bool(self.hold_now())
        # Not repairs of the reached state: the end of a hold, and two commands for each job that fails on the way.
        while len(done) <= MOST_COMMANDS + held + 2 * self.failures(date, begun):
            self.world.settle()
            found = plan.next_command(self.state(date))
            words = found["command"].split()
            if not words:
                return
            done.append(found)
            self.do(words, date)
        raise Broken(f"{date} is not closed after {MOST_COMMANDS} commands: {[one['command'] for one in done]}")

    def do(self, words: list[str], date: str) -> None:
        from .world import Broken

        task = words[1]
        if task == "close":
            self.close(date)
        elif task == "rerun":
            adopt = "--adopt" in words
            if (
                not adopt
                and plan.announce(self.state(date), None, False)["procedure"] == "run"
                and self.truly_done(date)
            ):
                raise Broken(f"{date}: the next command repeats a procedure that succeeded")
            self.rerun(date, adopt=adopt)
        elif task == "resolve":
            self.resolve(words[words.index("--period") + 1])
        elif task == "resume":
            self.resume(date, "--latest" in words)
        elif task == "release":
            self.release()
        elif task in ("status", "next"):
            self.world.restate.run(self.world.now + 12 * 3600)
        else:
            raise Broken(f"{date}: nobody can follow {words}")
