"""The first load of the Oracle client and the first connect, in a child process.

Some releases of the client crash with an old database. A crash raises no exception, so it would end the function.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from . import client, oracle, settings
from .errors import Refused, Unavailable

CHILD = "from handler import first_connect; first_connect.child()"
CONNECT_SECONDS = 5
# What the child prints before it does it; CONNECTED is its last line.
LOAD, CONNECT, CONNECTED = "loaded", "connected", "done"


class Attempt(NamedTuple):
    """crash: one line if the child crashed or hung, or ""; error: the child's own error of the connect, or ""."""

    crash: str
    error: str
    seconds: float


def attempt(seconds: float) -> Attempt:
    """Load the client and connect in a child process, at most for so long; raises nothing.

    A process that has loaded the client already, and thin mode, which loads none, need no child.
    """
    if settings.current().oracle_client != "thick" or oracle.driver.cache_info().currsize:
        return Attempt("", "", 0.0)
    begin = time.monotonic()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD], env=environ, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        stage, _ = last_lines((error.stdout or b"").decode())
        return Attempt(client.crashed(f"gave no answer within {seconds:g} s", stage), "", seconds)
    took = round(time.monotonic() - begin, 3)
    stage, reported = last_lines(done.stdout)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Attempt(client.crashed(f"crashed with {name}", stage), "", took)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        return Attempt(client.crashed(f"ended with exit {done.returncode} ({last[:200]})", stage), "", took)
    return Attempt("", reported if stage == CONNECT else "", took)


def last_lines(output: str) -> tuple[str, str]:
    """Return (the last stage that the child began, the error that it printed after it)."""
    stage, reported = LOAD, ""
    for line in output.splitlines():
        if line in (LOAD, CONNECT, CONNECTED):
            stage = line
        else:
            reported = line
    return stage, reported


def child() -> None:
    """Load the client and connect once; print each stage before it begins, and then the error in one line."""
    try:
        print(LOAD, flush=True)
        oracle.driver()
        print(CONNECT, flush=True)
        with oracle.connected(CONNECT_SECONDS, connect_seconds=CONNECT_SECONDS):
            print(CONNECTED, flush=True)
    except (Refused, Unavailable) as error:
        print(" ".join(str(error).split()), flush=True)
