"""One part of the cloud: a program with its ports, and how it is started, waited for and ended."""

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

from . import processes
from .errors import LocalError
from .processes import Process
from .state import HOST, State

TAIL_LINES = 25
LOG_LIMIT = 20 * 2**20


class Abandoned(Exception):
    """Another part failed, so this one's start is given up."""


def nothing(*_) -> None:
    """What a part does at a moment at which it has nothing to do."""


@dataclass(frozen=True)
class Part:
    """What is started, and how it is known to be ready.

    ports: name in run.env -> port, the one that answers first; probe raises while the part is not ready;
    install(abandon) fetches the program, prepare() makes its data before the start, finish() after it is ready;
    bound in seconds; options go to Popen.
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
        return next(iter(self.ports.values()))

    @property
    def fingerprint(self) -> str:
        """Differs when the part would now be started in another way than before."""
        text = json.dumps([self.command, dict(self.env)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def running(state: State, name: str) -> Process | None:
    """The recorded process of a part, if it still lives."""
    record = state.record(name)
    process = Process(record["pid"], record["ticks"]) if record else None
    return process if process and processes.alive(process) else None


def start(state: State, part: Part, abandon: threading.Event) -> None:
    """Start a part and wait until it answers; LocalError with its log's tail if it does not."""
    log = state.log(part.name)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".old.log"))
    begin = log.stat().st_size if log.exists() else 0
    process = processes.spawn(part.command, part.env, log, **part.options)
    state.write_record(part.name, process, part.fingerprint)
    wait_ready(part, process, part.bound, abandon, lambda: tail(log, begin))


def wait_ready(
    part: Part, process: Process, bound: float, abandon: threading.Event, log_tail: Callable[[], str]
) -> None:
    """Wait until a started part answers its probe; LocalError if it ends or stays silent for `bound` seconds."""
    begin = time.monotonic()
    last: Exception = TimeoutError("not asked")
    while time.monotonic() < begin + bound:
        if abandon.is_set():
            raise Abandoned(part.name)
        if not processes.alive(process):
            code = processes.exit_code(process)
            ended = "" if code is None else f" with {f'exit code {code}' if code >= 0 else f'signal {-code}'}"
            raise LocalError(
                f"{part.name}: ended{ended} {time.monotonic() - begin:.1f} s after its start. Its last lines are "
                f"above; all of them: `inv local.logs --service {part.name}`.",
                log_tail(),
            )
        try:
            part.probe()
            return
        except Exception as error:
            last = error
        time.sleep(0.05)
    raise LocalError(
        f"{part.name}: runs (pid {process.pid}) but did not answer on port {part.port} within {bound:.0f} s "
        f"({last}). Read `inv local.logs --service {part.name}`; `inv local.down` ends it.",
        log_tail(),
    )


def end(state: State, name: str, first: signal.Signals, bound: float) -> int:
    """End a part: its main process in an orderly way, then whatever that leaves behind. Return how many there were."""
    everything = set(processes.belonging_to(state.path, name))
    main = running(state, name)
    if main:
        everything.add(main)
        processes.end([main], first, bound)
    everything.update(processes.belonging_to(state.path, name))
    left = processes.end(everything, signal.SIGKILL if first == signal.SIGKILL else signal.SIGTERM, 5)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise LocalError(f"{name}: process {pids} does not end even when killed. Look at it with `ps -fp {pids}`.")
    state.drop_record(name)
    return len(everything)


def answers(port: int, seconds: float = 1) -> bool:
    """Whether something on this machine accepts connections on a port."""
    try:
        with socket.create_connection((HOST, port), timeout=seconds):
            return True
    except OSError:
        return False


def tail(log: Path, begin: int = 0, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, none of before byte `begin`."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 200 * lines))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
