"""Find and end the processes of a local cloud, also after the process that started them was killed.

Each is started with MARK in its environment, which its children inherit. PostgreSQL's children overwrite theirs
(for the title in `ps`), so they are found by their program and working directory instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

MARK = "FINANCE_CLOSING_LOCAL"
SERVICE_MARK = "FINANCE_CLOSING_SERVICE"
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")

# Our own children become zombies until they are polled; `alive` polls them.
_children: dict[int, subprocess.Popen] = {}


class Process(NamedTuple):
    """A process, identified also by its start time in ticks since boot, because pids are reused."""

    pid: int
    ticks: int


def spawn(command: list[str], env: Mapping[str, str], log: Path, **options) -> Process:
    """Start a command in a session of its own, so that Ctrl-C and a closed terminal do not end it."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **options
        )
    _children[child.pid] = child
    return Process(child.pid, start_ticks(child.pid) or 0)


def exit_code(process: Process) -> int | None:
    """Return the exit code of our own child, or None if it is unknown."""
    child = _children.get(process.pid)
    return child.poll() if child else None


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None if it ended or is a zombie.

    A child of ours runs until its exit code is known: its first thread is a zombie already while others still run.
    """
    child = _children.get(pid)
    running = child is not None and child.poll() is None
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        # macOS, where `inv local.tools` runs, has no /proc.
        return 0 if running and not PROC.exists() else None
    return None if fields[0] in "ZX" and not running else int(fields[19])


def alive(process: Process) -> bool:
    """Return whether a process still runs."""
    return start_ticks(process.pid) == process.ticks


def age(process: Process) -> float:
    """Return the seconds since a process started."""
    uptime = float((PROC / "uptime").read_text().split()[0])
    return max(0.0, uptime - process.ticks / TICKS_A_SECOND)


def memory(process: Process) -> int:
    """Return the bytes of memory of a process; shared pages count by their share if the kernel reports it."""
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = (PROC / str(process.pid) / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


def belonging_to(state: Path, service: str | None = None) -> list[Process]:
    """Return the running processes that were started for a state folder, or for one service of it."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if _is_ours(entry, state, service):
            ticks = start_ticks(int(entry.name))
            if ticks is not None:
                found.append(Process(int(entry.name), ticks))
    return found


def _is_ours(entry: Path, state: Path, service: str | None) -> bool:
    try:
        environment = (entry / "environ").read_bytes().split(b"\0")
        if f"{MARK}={state}".encode() in environment:
            return service is None or f"{SERVICE_MARK}={service}".encode() in environment
        return (
            service in (None, "postgres")
            and os.readlink(entry / "exe").endswith("/bin/postgres")
            and Path(os.readlink(entry / "cwd")).parent == state / "postgres"
        )
    except OSError:
        return False


def wait(process: Process, bound: float, give_up: Callable[[], bool] = lambda: False) -> bool:
    """Wait for a process to end; False after `bound` seconds, or as soon as `give_up` returns true."""
    deadline = time.monotonic() + bound
    while alive(process):
        if give_up() or time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end(some: Iterable[Process], first: signal.Signals = signal.SIGTERM, bound: float = 10) -> list[Process]:
    """Ask processes to end, kill them after `bound` seconds, and return those that still run."""
    left = send(some, first)
    left = _wait_gone(left, bound)
    if left and first != signal.SIGKILL:
        left = _wait_gone(send(left, signal.SIGKILL), 5)
    return left


def send(some: Iterable[Process], what: signal.Signals) -> list[Process]:
    """Send a signal to the processes that still run, and return them."""
    reached = []
    for process in some:
        if alive(process):
            try:
                os.kill(process.pid, what)
            except ProcessLookupError:
                continue
            reached.append(process)
    return reached


def _wait_gone(some: list[Process], bound: float) -> list[Process]:
    deadline = time.monotonic() + bound
    while (left := [process for process in some if alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
