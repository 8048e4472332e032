"""The faults of a chaos run, injected at any moment. Each one clears itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from local import processes
from local.oracle.faults import Faults as GeniusFaults


class Faults:
    """The faults of one local cloud; each is a method `do_NAME` that injects the fault, waits and clears it."""

    def __init__(self, cloud, checkout, rng: random.Random):
        self.cloud, self.checkout, self.rng = cloud, checkout, rng
        self.genius = GeniusFaults(cloud.state.path / "genius")

    def names(self) -> list[str]:
        """Return the names of all faults."""
        return [name[3:].replace("_", "-") for name in dir(self) if name.startswith("do_")]

    def inject(self, name: str) -> None:
        """Inject a fault and return when it is cleared."""
        getattr(self, "do_" + name.replace("-", "_"))()

    def workers(self) -> list[processes.Process]:
        """Return the processes in which ministack runs the function."""
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
        """Stop a worker for seconds: Restate gives the step to another one, then this one continues its own."""
        for process in self.rng.sample(workers, 1) if (workers := self.workers()) else []:
            processes.send([process], signal.SIGSTOP)
            time.sleep(self.rng.uniform(1, 11))
            processes.send([process], signal.SIGCONT)

    def do_slow_genius(self) -> None:
        """Make a step outlive the function's time-out."""
        self.genius.inject("latency_ms", str(self.rng.choice([1500, 13000])))
        time.sleep(self.rng.uniform(1, 4))
        self.genius.clear("latency_ms")

    def do_slow_network(self) -> None:
        """Slow down every call, so that polls overlap."""
        self.genius.inject("latency_ms", "700")
        time.sleep(self.rng.uniform(5, 10))
        self.genius.clear("latency_ms")

    def do_cut_before(self) -> None:
        self.genius.inject("cut_before", self.rng.choice(["CREATE_JOB", ""]))

    def do_cut_during(self) -> None:
        self.genius.inject("cut_during", self.rng.choice(["CREATE_JOB", "acpdb", ""]))

    def do_cut_after(self) -> None:
        """Create the job, but cut the connection before the reply."""
        self.genius.inject("cut_after", self.rng.choice(["CREATE_JOB", "CREATE_JOB", ""]))

    def do_quick_procedure(self) -> None:
        """Let a job end before its creator, whose connection was cut, asks again."""
        self.genius.inject("procedure_seconds", "0.05")
        self.genius.inject("cut_after", "CREATE_JOB")
        time.sleep(self.rng.uniform(2, 5))
        self.genius.clear("procedure_seconds")

    def do_unreachable_genius(self) -> None:
        """Refuse connections; the longest time exceeds all retries, so that the closing pauses for an operator."""
        self.genius.inject("listener_down", "")
        time.sleep(self.rng.choice([1, 3, 14]))
        self.genius.clear("listener_down")

    def do_restart_genius(self) -> None:
        if self.rng.random() < 0.5:
            self.genius.inject("restart_on_recovery", "")
        self.cloud.kill("genius")
        self.cloud.start("genius")
        self.genius.clear("restart_on_recovery")

    def do_restart_restate(self) -> None:
        self.cloud.kill("restate")
        time.sleep(self.rng.uniform(0, 1))
        self.cloud.start("restate")

    def do_restart_postgres(self) -> None:
        self.cloud.kill("postgres")
        time.sleep(self.rng.uniform(0, 2))
        self.cloud.start("postgres")

    def do_slave_dies(self) -> None:
        self.genius.inject("slave_dies", "")

    def do_procedure_fails(self) -> None:
        self.genius.inject("procedure_message", "injected by chaos")
        self.genius.inject("procedure_status", self.rng.choice(["0", "NULL"]))
        time.sleep(self.rng.uniform(0.5, 2))
        self.genius.clear("procedure_status")

    def do_deploy(self) -> None:
        """Deploy a new version; a deploy that another fault breaks is repeated by the next one."""
        with contextlib.suppress(RuntimeError):
            self.checkout.deploy()

    def clear_all(self) -> None:
        """Clear the faults of Genius and let stopped workers continue."""
        for fault in self.genius.folder.iterdir():
            fault.unlink(missing_ok=True)
        for process in self.workers():
            os.kill(process.pid, signal.SIGCONT)
