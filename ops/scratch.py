"""Files of one process, build/scratch/PID.ENV.NAME: two tasks never share one, and none remains after its process."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
from pathlib import Path

from ops.shell import ROOT

FOLDER = Path("build", "scratch")


def path(env: str, name: str) -> str:
    """Return the path of a file that this process alone uses, relative to the repository, as a command names it."""
    prepare()
    return str(FOLDER / f"{os.getpid()}.{env}.{name}")


@functools.cache
def prepare() -> None:
    """Remove the files of processes that were killed, and make sure that this process removes its own."""
    for file in (ROOT / FOLDER).glob("*"):
        if not is_running(process_of(file)):
            file.unlink(missing_ok=True)
    atexit.register(remove)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored, and must remain so.
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)


def remove() -> None:
    """Remove the files of this process."""
    for file in (ROOT / FOLDER).glob("*"):
        if process_of(file) == os.getpid():
            file.unlink(missing_ok=True)


def end(number: int, frame: object) -> None:
    """Remove the files at once, and end as after an error: the command that runs may still take minutes."""
    remove()
    sys.exit(128 + number)


def process_of(file: Path) -> int:
    """Return the process id in the name of a scratch file, 0 if there is none."""
    first = file.name.partition(".")[0]
    return int(first) if first.isdigit() else 0


def is_running(process: int) -> bool:
    if not process:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
