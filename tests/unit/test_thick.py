"""The handler's Oracle steps in thick mode, where ORACLE_CLIENT_LIB names the folder of a client from 18.1 on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.helpers import ROOT

CLIENT = os.environ.get("ORACLE_CLIENT_LIB", "")
STEPS = ("tests/unit/test_genius.py", "tests/unit/test_job_status.py")


@pytest.mark.skipif(not CLIENT, reason="no Oracle client: name its folder in ORACLE_CLIENT_LIB")
@pytest.mark.parametrize("steps", STEPS)
def test_steps_run_unchanged_in_thick_mode(steps):
    """In a process of their own: the loader reads LD_LIBRARY_PATH once, and a process is thin or thick for good."""
    path = ":".join(filter(None, (CLIENT, os.environ.get("LD_LIBRARY_PATH"))))
    environ = {**os.environ, "LD_LIBRARY_PATH": path, "ORACLE_TEST_CLIENT": "thick"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", steps]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]
