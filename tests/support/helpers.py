"""Shared by all tests: run tasks as an operator does, and query the databases of the tests' cloud.

ROOT is the copy of the checkout that the run works on (plugin.py); a test that edits it must restore it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pg8000 import native
from support import warm
from support.api_recorder import task_of
from support.checkout import STATE
from support.plugin import UNUSED

import handler
from local import processes
from ops import shell

ROOT = Path(handler.__file__).resolve().parents[1]
INV = Path(sys.executable).with_name("inv")

# The settings without a default, each with a value.
COMPLETE = {
    "PG_HOST": "h",
    "PG_DATABASE": "d",
    "PG_USER": "u",
    "PG_PASSWORD": "p",
    "ORACLE_USER": "u",
    "ORACLE_PASSWORD": "p",
    "ORACLE_CONNECT_STRING": "h:1521/s",
}


def inv(*words: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess:
    """Run a task as an operator would, from a folder of the repository; extra: environment variables."""
    environ = {key: value for key, value in os.environ.items() if key not in UNUSED}
    environ |= {"AWS_CSM_CLIENT_ID": task_of(words), **extra}
    starts_otherwise = any(name.startswith("PYTHON") for name in extra)
    program = INV if starts_otherwise else warm.started().bin / "inv"
    command = [str(program), "--search-root", str(ROOT), *words]
    done = subprocess.run(command, cwd=ROOT / "policies", env=environ, capture_output=True, text=True, timeout=180)
    if check and done.returncode:
        pytest.fail(f"inv {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def output_of(cfg: dict[str, str], command: str, typed: str | None = None, **extra: str) -> str:
    """Run a command as an operator pastes it and return its output; typed: for its input; extra: environment."""
    environ = {**os.environ, **shell.command_environment(cfg), **extra}
    pipes = {"input": typed, "capture_output": True, "text": True}
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environ, timeout=180, **pipes)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def close(date: str, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    """Close a date and follow it to its end."""
    return inv("close", "--env", "local", "--date", date, "--watch", *words, check=check)


def starts(period: str = "", event: str | None = "start") -> list[dict]:
    """Return the procedure's starts for a period, from the stand-in's append-only log; event None: its ends too."""
    log = STATE / "genius" / "procedure.log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    of_period = [one for one in lines if f"{one['year']}-{one['month_from']}".startswith(period)]
    return [one for one in of_period if event in (None, one["event"])]


def connect(cfg: dict[str, str]) -> native.Connection:
    """Return a connection to an environment's PostgreSQL as the function's user."""
    return native.Connection(
        cfg["PG_USER"], cfg["PG_HOST"], cfg["PG_DATABASE"], int(cfg["PG_PORT"]), cfg["PG_PASSWORD"]
    )


def run_rows(cfg: dict[str, str], date: str) -> list[dict]:
    """Return a date's rows of closing_runs, in the order of their start."""
    connection = connect(cfg)
    rows = connection.run(
        f'SELECT * FROM "{cfg["PG_SCHEMA"]}".closing_runs WHERE closing_date = CAST(:date AS date) ORDER BY started_at',
        date=date,
    )
    names = [column["name"] for column in connection.columns]
    connection.close()
    return [dict(zip(names, row)) for row in rows]


def like_local(**changes: str) -> str:
    """Return the text of env/local.env with other values; each name must be there."""
    text = (ROOT / "env" / "local.env").read_text()
    for name, value in changes.items():
        text, found = re.subn(rf"^{name}=.*$", lambda _, line=f"{name}={value}": line, text, flags=re.MULTILINE)
        assert found == 1, name
    return text


@contextlib.contextmanager
def environment_file(name: str, **changes: str):
    """Write another environment of the same cloud, as long as it is needed; yields its name."""
    path = ROOT / "env" / f"{name}.env"
    path.write_text(like_local(**changes))
    try:
        yield name
    finally:
        path.unlink()


def as_superuser(local) -> native.Connection:
    """Return a connection of PostgreSQL's superuser to the finance database."""
    given = local.settings()
    return native.Connection(
        "postgres",
        host="127.0.0.1",
        port=int(given["LOCAL_PG_PORT"]),
        database="finance",
        password=given["LOCAL_PG_ADMIN_PASSWORD"],
        ssl_context=False,
    )


def administer(local, statement: str) -> None:
    connection = as_superuser(local)
    connection.run(statement)
    connection.close()


def workers(version: str) -> set[int]:
    """Return the processes in which the local Lambda runs a version."""
    named = f"AWS_LAMBDA_FUNCTION_VERSION={version}".encode()
    found = set()
    for process in processes.belonging_to(STATE, "aws"):
        with contextlib.suppress(OSError):
            if named in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.add(process.pid)
    return found
