"""Other drivers than the pinned one, older and newer, each in a venv of its own: `pytest -m drivers`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from net_helpers import PASSWORD, ConnectableServer

HERE = Path(__file__).parent
CLIENT = os.environ.get("ORACLE_CLIENT_LIB", "")
VENVS = HERE.parents[2] / "build" / "drivers"


def python_with(version: str) -> Path:
    """Return the interpreter of a venv that has that driver; it is made once and kept."""
    home = VENVS / version
    python = home / "bin" / "python"
    if subprocess.run([python, "-c", "import oracledb"], capture_output=True).returncode if python.exists() else True:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"oracledb=={version}"], check=True)
    return python


@pytest.mark.drivers
@pytest.mark.parametrize("version", ["26.1.0", "3.4.2", "2.5.1"])
@pytest.mark.parametrize("verifier", ["12c", "11g"])
def test_a_driver_of_another_version(running: ConnectableServer, version: str, verifier: str):
    running.database.faults.inject("verifier", verifier)
    assert drive(running, version) == f"done with {version}\n"


@pytest.mark.drivers
@pytest.mark.skipif(not CLIENT, reason="no Oracle client: name its folder in ORACLE_CLIENT_LIB")
def test_a_thick_client(running: ConnectableServer):
    """3.4.2 is the newest driver that accepts a client as old as 12.1."""
    # The client's own libraries first; libaio may lie elsewhere.
    path = ":".join(filter(None, (CLIENT, os.environ.get("LD_LIBRARY_PATH"))))
    assert drive(running, "3.4.2", ORACLE_CLIENT_LIB=CLIENT, LD_LIBRARY_PATH=path) == "done with 3.4.2\n"


def drive(running: ConnectableServer, version: str, **environment: str) -> str:
    """Return the output of driver_conformance.py in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if name != "ORACLE_CLIENT_LIB"}
    driven = subprocess.run(
        [python_with(version), HERE / "driver_conformance.py", str(running.port)],
        env={**inherited, **environment, "DRIVE_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert driven.returncode == 0, driven.stderr
    return driven.stdout
