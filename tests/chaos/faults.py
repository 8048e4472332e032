"""What may strike at any moment. Each fault ends by itself what it began."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from local import processes
from local.oracle.faults import Faults


class Strikes:
    """The faults, against one local cloud."""

    def __init__(self, cloud, checkout, rng: random.Random):
        self.cloud, self.checkout, self.rng = cloud, checkout, rng
        self.genius = Faults(cloud.state.path / "genius")

    def names(self) -> list[str]:
        return [name[3:].replace("_", "-") for name in dir(self) if name.startswith("do_")]

    def strike(self, name: str) -> None:
        getattr(self, "do_" + name.replace("-", "_"))()

    def workers(self) -> list[processes.Process]:
        """The processes in which ministack runs the function."""
        found = []
        for process in processes.belonging_to(self.cloud.state.path, "aws"):
            try:
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
            except OSError:
                continue
            if b"AWS_LAMBDA_FUNCTION_NAME=" in environ:
                found.append(process)
        return found

    def do_kill_worker(self) -> None:
        for process in self.rng.sample(workers, 1) if (workers := self.workers()) else []:
            processes.send([process], signal.SIGKILL)

    def do_freeze_worker(self) -> None:
        """A zombie: Restate gives the step to another worker, then this one goes on where it was."""
        for process in self.rng.sample(workers, 1) if (workers := self.workers()) else []:
            processes.send([process], signal.SIGSTOP)
            time.sleep(self.rng.uniform(1, 11))
            processes.send([process], signal.SIGCONT)

    def do_slow_genius(self) -> None:
        """A step that outlives the function's time-out."""
        self.genius.plant("latency_ms", str(self.rng.choice([1500, 13000])))
        time.sleep(self.rng.uniform(1, 4))
        self.genius.lift("latency_ms")

    def do_long_lines(self) -> None:
        """Every call takes its time, so that looks are overtaken."""
        self.genius.plant("latency_ms", "700")
        time.sleep(self.rng.uniform(5, 10))
        self.genius.lift("latency_ms")

    def do_cut_before(self) -> None:
        self.genius.plant("cut_before", self.rng.choice(["CREATE_JOB", ""]))

    def do_cut_during(self) -> None:
        self.genius.plant("cut_during", self.rng.choice(["CREATE_JOB", "acpdb", ""]))

    def do_cut_after(self) -> None:
        """The job is created and its creator never hears of it."""
        self.genius.plant("cut_after", self.rng.choice(["CREATE_JOB", "CREATE_JOB", ""]))

    def do_quick_procedure(self) -> None:
        """A job that has ended before its creator, whose line was cut, asks again."""
        self.genius.plant("procedure_seconds", "0.05")
        self.genius.plant("cut_after", "CREATE_JOB")
        time.sleep(self.rng.uniform(2, 5))
        self.genius.lift("procedure_seconds")

    def do_unreachable_genius(self) -> None:
        """At its longest, longer than all retries: the closing pauses and an operator resumes it."""
        self.genius.plant("listener_down", "")
        time.sleep(self.rng.choice([1, 3, 14]))
        self.genius.lift("listener_down")

    def do_restart_genius(self) -> None:
        if self.rng.random() < 0.5:
            self.genius.plant("restart_on_recovery", "")
        self.cloud.kill("genius")
        self.cloud.start("genius")
        self.genius.lift("restart_on_recovery")

    def do_restart_restate(self) -> None:
        self.cloud.kill("restate")
        time.sleep(self.rng.uniform(0, 1))
        self.cloud.start("restate")

    def do_restart_postgres(self) -> None:
        self.cloud.kill("postgres")
        time.sleep(self.rng.uniform(0, 2))
        self.cloud.start("postgres")

    def do_slave_dies(self) -> None:
        self.genius.plant("slave_dies", "")

    def do_procedure_fails(self) -> None:
        self.genius.plant("procedure_message", "planted by chaos")
        self.genius.plant("procedure_status", self.rng.choice(["0", "NULL"]))
        time.sleep(self.rng.uniform(0.5, 2))
        self.genius.lift("procedure_status")

    def do_deploy(self) -> None:
        """One that fails because something else has just struck is tried again by the next."""
        with contextlib.suppress(RuntimeError):
            self.checkout.deploy()

    def lift_all(self) -> None:
        for fault in self.genius.folder.iterdir():
            fault.unlink(missing_ok=True)
        for process in self.workers():
            os.kill(process.pid, signal.SIGCONT)
