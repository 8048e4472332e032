"""What the tests share: the state folder of their cloud, and tasks run as an operator runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".local" / "test"
INV = Path(sys.executable).with_name("inv")
# The procedure's duration in the shared cloud: long enough to be seen running, short enough to wait for.
PROCEDURE_SECONDS = "1.5"

# Modules of handler/ read their settings when they are imported; a test that needs real ones sets them itself.
UNUSED = {
    "PG_HOST": "pg.invalid",
    "PG_DATABASE": "finance",
    "PG_USER": "finance",
    "PG_PASSWORD": "unused",
    "ORACLE_USER": "GENIUS",
    "ORACLE_PASSWORD": "unused",
    "ORACLE_CONNECT_STRING": "genius.invalid:1521/GENIUS",
}
for name, value in UNUSED.items():
    os.environ.setdefault(name, value)
os.environ["FINANCE_CLOSING_STATE"] = str(STATE)
os.environ["LOCAL_PROCEDURE_SECONDS"] = PROCEDURE_SECONDS


def inv(*words: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess:
    """Run a task as an operator would, from another folder; extra: environment variables."""
    environ = {**{key: value for key, value in os.environ.items() if key not in UNUSED}, **extra}
    command = [str(INV), "--search-root", str(ROOT), *words]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=180)
    if check and done.returncode:
        pytest.fail(f"inv {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
