"""A service of the local cloud: start it, wait until it is ready, and stop it."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.progress import waiting_for

from . import processes
from .errors import LocalError
from .processes import Process
from .state import HOST, State

TAIL_LINES = 25
LOG_LIMIT = 20 * 2**20


class Abandoned(Exception):
    """The start of a service was abandoned because another one failed."""


def nothing(*_) -> None:
    """Do nothing: the default of a service's hooks."""


@dataclass(frozen=True)
class Service:
    """A program with its environment and ports, and its hooks.

    ports: name in run.env -> port, the main one first; probe() raises while the service is not ready;
    install(abandon) downloads the program, prepare() makes its data before the start, finish() completes it when it is
    ready; bound: seconds that a start may take; options: of Popen.
    """

    name: str
    command: list[str]
    env: Mapping[str, str]
    ports: Mapping[str, int]
    url: str
    probe: Callable[[], object]
    install: Callable[[threading.Event], None] = nothing
    prepare: Callable[[], None] = nothing
    finish: Callable[[], None] = nothing
    bound: float = 60
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Return the main port."""
        return next(iter(self.ports.values()))

    @property
    def fingerprint(self) -> str:
        """Return a digest of command and environment: a change of it requires a restart."""
        text = json.dumps([self.command, dict(self.env)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def running(state: State, name: str) -> Process | None:
    """Return the recorded process of a service if it still runs."""
    record = state.record(name)
    process = Process(record["pid"], record["ticks"]) if record else None
    return process if process and processes.alive(process) else None


def start(state: State, service: Service, abandon: threading.Event) -> None:
    """Start a service and wait until it answers; LocalError with its log's tail if it does not."""
    log = state.log(service.name)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".old.log"))
    begin = log.stat().st_size if log.exists() else 0
    process = processes.spawn(service.command, service.env, log, **service.options)
    state.write_record(service.name, process, service.fingerprint)
    with waiting_for(f"the start of {service.name}, see `inv local.logs --service {service.name}`"):
        wait_ready(service, process, service.bound, abandon, lambda: tail(log, begin))


def wait_ready(
    service: Service, process: Process, bound: float, abandon: threading.Event, log_tail: Callable[[], str]
) -> None:
    """Wait until a started service answers its probe; LocalError if it ends or stays silent for `bound` seconds."""
    begin = time.monotonic()
    last: Exception = TimeoutError("not asked")
    while time.monotonic() < begin + bound:
        if abandon.is_set():
            raise Abandoned(service.name)
        if not processes.alive(process):
            code = processes.exit_code(process)
            ended = "" if code is None else f" with {f'exit code {code}' if code >= 0 else f'signal {-code}'}"
            raise LocalError(
                f"{service.name}: ended{ended} {time.monotonic() - begin:.1f} s after its start. Its last lines are "
                f"above; all of them: `inv local.logs --service {service.name}`.",
                log_tail(),
            )
        try:
            service.probe()
            return
        except Exception as error:
            last = error
        time.sleep(0.05)
    raise LocalError(
        f"{service.name}: runs (pid {process.pid}) but did not answer on port {service.port} within {bound:.0f} s "
        f"({last}). Read `inv local.logs --service {service.name}`; `inv local.down` ends it.",
        log_tail(),
    )


def stop(state: State, name: str, first: signal.Signals, bound: float) -> int:
    """Stop a service's main process in an orderly way, then the rest of its processes; return how many ran."""
    everything = set(processes.belonging_to(state.path, name))
    main = running(state, name)
    if main:
        everything.add(main)
        processes.end([main], first, bound)
    everything.update(processes.belonging_to(state.path, name))
    left = processes.end(everything, signal.SIGKILL if first == signal.SIGKILL else signal.SIGTERM, 5)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise LocalError(f"{name}: process {pids} does not end even after SIGKILL. Check it with `ps -fp {pids}`.")
    state.drop_record(name)
    return len(everything)


def answers(port: int, seconds: float = 1) -> bool:
    """Return whether something on this machine accepts connections on a port."""
    try:
        with socket.create_connection((HOST, port), timeout=seconds):
            return True
    except OSError:
        return False


def tail(log: Path, begin: int = 0, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log after byte `begin`."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 200 * lines))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
