"""Play scripts on the local cloud: restate-server, PostgreSQL, stand-in for Genius, workers, and `inv` commands."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from contextlib import closing as closing_
from contextlib import suppress
from pathlib import Path

import oracledb
from invoke import Exit

from chaos import checks, scripts
from chaos.checkout import ROOT, Checkout
from chaos.scripts import ARMED, BLOCKERS, Outcome, category
from local import postgres
from local.cloud import Cloud
from local.demo import connect
from local.oracle.faults import Faults
from ops import closings, config
from ops.next_command import live_closes
from ops.restate import request

# A script whose closings are not at rest within this time hangs.
BOUND_SECONDS, LOOK_SECONDS, QUIET_LOOKS = 120, 0.25, 4
DURATIONS = {
    "TIMEOUT": "20",
    "ABORT_TIMEOUT_SECONDS": "50",
    "POLL_INITIAL_SECONDS": "0.2",
    "POLL_CAP_SECONDS": "0.6",
    # Longer than any script waits.
    "START_LIMIT_SECONDS": "600",
    "DEADLINE_SECONDS": "1200",
    "RETRY_ATTEMPTS": "4",
    "RETRY_CAP_SECONDS": "1",
}
# Blocker or fault -> the stand-in's fault, and its value.
OF_GENIUS = {
    "procedure holds": ("procedure_holds", ""),
    "slave never starts": ("jobs_never_start", ""),
    "Genius is down": ("listener_down", ""),
    "procedure fails": ("procedure_error", "ORA-01555: snapshot too old"),
    "procedure ends with 0": ("procedure_status", "0"),
    "log purged": ("log_purged", ""),
}
JOBS = "SELECT job_name, state FROM user_scheduler_jobs WHERE job_name LIKE :period"
RUNS = "SELECT genius, ledger, metrics FROM closing_runs WHERE closing_date = :date ORDER BY started_at"
# The call of a step's function, and the same under the faults of chaos/fault_points.py.
CALL = "result = function(**arguments) if patient else few_tries(function, **arguments)"
FAULTY_CALL = (
    "result = fault_points.call(name, function if patient else functools.partial(few_tries, function), arguments)"
)


class Stage:
    """One local cloud with a deployed checkout, on which scripts are played one after another, each on its own date."""

    def __init__(self, name: str):
        self.cloud = Cloud(ROOT / ".local" / name, report=lambda line: None)
        self.folder = ROOT / ".local" / f"{name}-checkout"
        self.faults = ROOT / ".local" / f"{name}-faults"
        self.played = 0

    def __enter__(self) -> Stage:
        self.cloud.reset()
        shutil.rmtree(self.faults, ignore_errors=True)
        self.faults.mkdir(parents=True)
        self.cloud.up(procedure_seconds=0)
        self.checkout = Checkout(self.folder, self.cloud.state.path, durations=DURATIONS)
        self.patch(self.folder / "handler")
        self.genius = Faults(self.cloud.state.path / "genius")
        self.checkout.deploy()
        self.checked("schema", "--env", "local")
        return self

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.faults, ignore_errors=True)
        self.cloud.down()
        self.cloud.reset()
        shutil.rmtree(self.folder, ignore_errors=True)

    def patch(self, handler: Path) -> None:
        text = (Path(__file__).parent / "fault_points.py").read_text()
        (handler / "fault_points.py").write_text(text.replace("{folder}", str(self.faults)))
        step = (handler / "step.py").read_text()
        if CALL not in step:
            raise ValueError(f"handler/step.py does not have: {CALL}")
        step = step.replace(CALL, FAULTY_CALL).replace("from . import attempt,", "from . import fault_points, attempt,")
        (handler / "step.py").write_text(step)

    def inv(self, task: str, *words: str):
        return self.checkout.inv(task, "--env", "local", *words)

    def checked(self, *words: str) -> None:
        done = self.checkout.inv(*words)
        if done.returncode:
            raise RuntimeError(f"inv {' '.join(words)} failed: {done.stderr.strip()}")

    def cfg(self) -> dict:
        return config.load("local", {**os.environ, "FINANCE_CLOSING_STATE": str(self.cloud.state.path)})

    def play(self, script: tuple[str, ...]) -> Outcome:
        """Play a script on a date of its own; its faults are cleared at its end, also if it fails."""
        # Genius has books of 2025.
        months, month = divmod(self.played, 12)
        self.played += 1
        try:
            return Player(self, script, f"2025-{month + 1:02d}-{27 - months:02d}").play()
        finally:
            self.clear()

    def clear(self) -> None:
        for name in set(self.genius.injected()) - {"password"}:
            self.genius.clear(name)
        for path in self.faults.iterdir():
            path.unlink()


class Player:
    """Plays one script; each word is a method do_WORD that returns whether a command was accepted, as model.Player."""

    def __init__(self, stage: Stage, script: tuple[str, ...], date: str):
        self.stage, self.cloud, self.genius, self.script = stage, stage.cloud, stage.genius, script
        self.period, self.date = date[:7], date
        # Of the period's earlier dates.
        self.earlier = len(self.log())
        self.blockers: set[str] = set()
        self.rotated = False
        self.cfg = stage.cfg()

    def play(self) -> Outcome:
        answers = scripts.do_words(self)
        self.do("clear")
        self.genius.clear("log_purged")
        if self.rotated:
            self.do("deploy")
        named = self.follow()
        starts = [one for one in self.log()[self.earlier :] if one["event"] == "start"]
        return Outcome(answers, tuple(named), self.runs(), len(starts))

    def do(self, word: str) -> bool | None:
        if word in BLOCKERS:
            self.blockers.add(word)
        if word == "PostgreSQL is down":
            self.cloud.kill("postgres")
        elif word == "submit stalls":
            (self.stage.faults / "stall submit").touch()
        elif word in OF_GENIUS:
            self.genius.inject(*OF_GENIUS[word])
        elif word in ARMED:
            (self.stage.faults / word).touch()
        else:
            accepted = getattr(self, "do_" + word.lower().replace(" ", "_").replace("-", "_"))()
            return accepted if category(word) in scripts.COMMANDS else None
        return None

    # Rest

    def wait_for(self, condition, what: str) -> None:
        deadline = time.monotonic() + BOUND_SECONDS
        quiet = 0
        while quiet < (QUIET_LOOKS if self.blockers else 1):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.date}: {what} does not come: {self.seen()}")
            seen = False
            with suppress(Exit, OSError, oracledb.Error):
                seen = condition()
            quiet = quiet + 1 if seen else 0
            time.sleep(LOOK_SECONDS)

    def settle(self) -> None:
        """Wait until everything is at rest."""
        self.wait_for(self.rested, "the rest")

    def rested(self) -> bool:
        if not self.jobs_rest():
            return False
        run = closings.invocation_of(self.cfg, "DailyClosing", self.date, "run")
        closes = live_closes(self.cfg, self.period)
        live = [one for one in (run, *closes) if one and one["status"] != closings.ENDED]
        if not live or any(one["status"] == "paused" for one in live):
            return True
        if not self.blockers:
            return False
        # A closing that waits for what the blocker holds back is at rest.
        now = closings.state_of(self.cfg, "ClosingPeriod", self.period).get("progress") or {}
        if self.blockers & {"procedure holds", "slave never starts"}:
            return now.get("state") in ("RUNNING", "SCHEDULED")
        return any(one["status"] == "backing-off" for one in live)

    def jobs_rest(self) -> bool:
        """Return whether each job of the period has ended or is held back by a blocker."""
        if "Genius is down" in self.blockers:
            return True
        states = set(self.jobs().values())
        states -= {"RUNNING"} if "procedure holds" in self.blockers else set()
        states -= {"SCHEDULED"} if "slave never starts" in self.blockers else set()
        return not states & {"RUNNING", "SCHEDULED"}

    def seen(self) -> str:
        """Describe the state of the date, for the message of a hang."""
        with suppress(Exit, OSError):
            state = closings.state_of(self.cfg, "ClosingPeriod", self.period)
            return f"{closings.summary(self.cfg, self.date)}; {json.dumps(state)}"
        return "Restate does not answer"

    # The state of the parts

    def oracle(self) -> oracledb.Connection:
        names = ("ORACLE_USER", "ORACLE_PASSWORD", "ORACLE_CONNECT_STRING")
        user, password, dsn = (self.cfg[name] for name in names)
        return oracledb.connect(user=user, password=password, dsn=dsn)

    def jobs(self) -> dict[str, str]:
        with self.oracle() as connection:
            return dict(connection.cursor().execute(JOBS, period=f"%{self.period.replace('-', '')}%").fetchall())

    def runs(self) -> tuple:
        connection = connect(self.cfg)
        try:
            return tuple(tuple(row) for row in connection.run(RUNS, date=self.date))
        finally:
            connection.close()

    def log(self) -> list[dict]:
        """Return the procedure's starts and ends in this period."""
        return checks.procedure_log(self.cloud.state.path, self.period)

    def truth(self) -> str:
        """Return whether the procedure's last start succeeded, by its own log, as a person finds it."""
        events = self.log()[self.earlier :]
        return "succeeded" if events and events[-1].get("status") == "1" else "failed"

    # `inv next`

    def follow(self) -> list[str]:
        """Follow the next command until the date is closed; returns the commands."""
        named: list[str] = []
        while True:
            self.settle()
            answer = self.stage.inv("next", "--date", self.date)
            found = re.search(r"Next: `inv (.*)`", answer.stdout)
            if not found:
                if "Nothing is to be done" not in answer.stdout:
                    raise RuntimeError(f"inv next printed {answer.stdout}{answer.stderr}")
                return [one.replace(self.date, "DATE").replace(self.period, "PERIOD") for one in named]
            if len(named) == 8:
                raise RuntimeError(f"{self.date} is not closed after {named}")
            task, *words = found[1].replace(" --env local", "").split()
            named.append(" ".join(["inv", task, *words]))
            words = [self.truth() if before == "--as" else word for before, word in zip(["", *words], words)]
            asks = task in ("rerun", "resolve") or "--latest" in words
            self.stage.inv(task, *words, *(["--yes"] if asks else []))

    # Words: commands

    def accepted(self, task: str, *words: str) -> bool:
        return self.stage.inv(task, *words).returncode == 0

    def do_close(self) -> bool:
        return self.accepted("close", "--date", self.date)

    def do_cancel(self) -> bool:
        return self.accepted("cancel", "--date", self.date, "--yes")

    def do_kill(self) -> bool:
        """Kill a closing with Restate's own command, as in the runbook."""
        run = closings.invocation_of(self.cfg, "DailyClosing", self.date, "run")
        if not run or run["status"] == closings.ENDED:
            return False
        request(self.cfg, "PATCH", f"{self.cfg['RESTATE_ADMIN_URL']}/invocations/{run['id']}/kill")
        return True

    def do_rerun(self) -> bool:
        return self.accepted("rerun", "--date", self.date, "--yes")

    def do_rerun___from_genius(self) -> bool:
        return self.accepted("rerun", "--date", self.date, "--from", "genius", "--yes")

    def do_rerun___adopt(self) -> bool:
        return self.accepted("rerun", "--date", self.date, "--adopt", "--yes")

    def do_resolve(self) -> bool:
        return self.accepted("resolve", "--period", self.period, "--as", self.truth(), "--yes")

    def do_stop_job(self) -> bool:
        return self.accepted("stop-job", "--date", self.date, "--yes")

    def do_resume(self) -> bool:
        return self.accepted("resume", "--date", self.date, "--latest", "--yes")

    def do_deploy(self) -> bool:
        self.stage.checkout.deploy()
        self.rotated = False
        return True

    def do_rotate_oracle(self) -> bool:
        password = self.rotate("LOCAL_ORACLE_PASSWORD")
        self.genius.inject("password", f"{self.cfg['ORACLE_USER']}:{password}")
        return True

    def do_rotate_postgresql(self) -> bool:
        password = self.rotate("LOCAL_PG_PASSWORD")
        with closing_(postgres.connect_admin(self.cloud.settings(), "postgres")) as connection:
            connection.autocommit = True
            connection.execute_simple(f"ALTER ROLE {self.cfg['PG_USER']} PASSWORD '{password}'")
        return True

    def rotate(self, name: str) -> str:
        """Write a new password to the cloud's settings, for the next deploy; returns it."""
        password = secrets.token_hex(16)
        self.cloud.state.write_settings({**self.cloud.settings(), name: password})
        self.cfg, self.rotated = self.stage.cfg(), True
        return password

    def do_hold(self) -> bool:
        return self.accepted("hold", "--reason", "maintenance")

    def do_release(self) -> bool:
        return "were not held" not in self.stage.inv("release").stdout

    def do_clear(self) -> None:
        """Clear the blockers; jobs that waited go on and end, then the procedure works again."""
        (self.stage.faults / "stall submit").unlink(missing_ok=True)
        if "PostgreSQL is down" in self.blockers:
            self.cloud.start("postgres")
        for word in self.blockers & set(OF_GENIUS):
            self.genius.clear(OF_GENIUS[word][0])
        self.blockers.clear()
        self.settle()
        for name in ("procedure_error", "procedure_status"):
            self.genius.clear(name)

    # Words: faults

    def do_late_effect(self) -> None:
        late = [path for path in self.stage.faults.iterdir() if path.name.startswith("late")]
        begun = any(word.startswith("late ") and word in ARMED for word in self.script)
        if begun and not late:
            (self.stage.faults / "late effect").touch()
            over = self.stage.faults / "late effect is over"
            self.wait_for(over.exists, "the late effect")

    def do_restart_restate(self) -> None:
        self.cloud.kill("restate")
        self.cloud.start("restate")

    def do_lose_restate(self) -> None:
        self.cloud.kill("restate")
        shutil.rmtree(self.cloud.state.path / "restate")
        self.cloud.start("restate")
        self.do_deploy()

    def do_slave_dies(self) -> None:
        if "RUNNING" in self.jobs().values():
            self.genius.inject("slave_dies", "")
            self.wait_for(lambda: self.genius.value("slave_dies") is None, "the death of the slave")

    def do_job_dropped(self) -> None:
        with self.oracle() as connection:
            for name, state in self.jobs().items():
                if state != "RUNNING":
                    connection.cursor().execute("BEGIN DBMS_SCHEDULER.DROP_JOB(:name); END;", name=name)
