"""The first load of the Oracle client and the first connect, in a child process.

Some releases of the client crash with an old database. A crash raises no exception, so it would end the function.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from . import client, errors, oracle, secret, settings

CHILD = "from handler import first_connect; first_connect.child()"
CONNECT_SECONDS = 5
# The stages of the child. It prints each one before it begins, and CONNECTED as its last line.
LOAD, CONNECT, CONNECTED = "loaded", "connected", "done"


class Attempt(NamedTuple):
    """crash: one line if the child crashed or hung, or ""; error: what a connect raised, or None."""

    crash: str
    error: errors.Refused | errors.Unavailable | None
    seconds: float


class Crashed(Exception):
    """The child ended, or gave no answer; the text is Attempt.crash."""


def attempt(seconds: float) -> Attempt:
    """Load the client and connect in a child process, at most for so long; raises nothing.

    A process that has loaded the client already, and thin mode, which loads none, need no child. References are
    resolved here, so that this process knows which stored value was refused.
    """
    if settings.current().oracle_client != "thick" or oracle.driver.cache_info().currsize:
        return Attempt("", None, 0.0)
    begin, crash, raised = time.monotonic(), "", None
    try:
        oracle.log_in(through=functools.partial(in_child, seconds))
    except Crashed as error:
        crash = str(error)
    except (errors.Refused, errors.Unavailable) as error:
        raised = error
    return Attempt(crash, raised, round(time.monotonic() - begin, 3))


def in_child(seconds: float, database: str, user: str, password: str, _connect) -> None:
    """Log in as secret.log_in does, each time in a child of its own."""
    secret.log_in(database, user, password, functools.partial(connect_in_child, seconds))


def connect_in_child(seconds: float, user: str, password: str) -> None:
    """Load the client and log in once, in a child; raises Crashed, or what oracle.connect raises there."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command, given = [sys.executable, "-c", CHILD], json.dumps([user, password])
    try:
        done = subprocess.run(
            command, env=environ, input=given, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        stage, _ = last_lines((error.stdout or b"").decode())
        raise Crashed(client.crashed(f"gave no answer within {seconds:g} s", stage)) from None
    stage, reported = last_lines(done.stdout)
    if done.returncode < 0:
        raise Crashed(client.crashed(f"crashed with {signal.Signals(-done.returncode).name}", stage))
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise Crashed(client.crashed(f"ended with exit {done.returncode} ({last[:200]})", stage))
    if reported:
        kind, text = json.loads(reported)
        raise getattr(errors, kind)(text)


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
    """Load the client and log in once, with the values from standard input; print each stage before it begins.

    An error is a last line of JSON: [the class in errors.py, the text].
    """
    try:
        print(LOAD, flush=True)
        oracle.driver()
        print(CONNECT, flush=True)
        oracle.connect(CONNECT_SECONDS, *json.load(sys.stdin)).close()
        print(CONNECTED, flush=True)
    except (errors.Refused, errors.Unavailable) as error:
        print(json.dumps([type(error).__name__, " ".join(str(error).split())]), flush=True)
