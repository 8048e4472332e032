"""A pytest plugin that prepares a run before any module of the repository is imported.

handler/, layer/, local/, ops/ and tasks.py come from a copy of the checkout, in this process as in the commands that
tests start. So a test may edit, build and deploy, and the checkout stays as it is. Paths in a traceback are the copy's.
"""

from __future__ import annotations

import os
import sys

import pytest
from support import checkout

# The procedure's duration in the shared cloud: long enough to be seen running, short enough to wait for.
PROCEDURE_SECONDS = "1.5"

# CI publishes only layers of a committed ZIP, and the ZIPs of the tests are made by them.
os.environ.pop("CI", None)

# Modules of handler/ read their settings when they are imported; a test that needs real ones sets them itself, and a
# command of an operator runs without these.
UNUSED = {
    "PG_HOST": "pg.invalid",
    "PG_DATABASE": "finance",
    "PG_USER": "finance",
    "PG_PASSWORD": "unused",
    "ORACLE_USER": "GENIUS",
    "ORACLE_PASSWORD": "unused",
    "ORACLE_CONNECT_STRING": "genius.invalid:1521/GENIUS",
}
LOCK = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config):
    """Put the copy first on the path, and the tests' settings into the environment."""
    folder, early_config.stash[LOCK] = checkout.own_copy()
    sys.path.insert(0, str(folder))
    for name, value in UNUSED.items():
        os.environ.setdefault(name, value)
    # A `make` that a test starts is not part of the `make test` around it.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    os.environ.setdefault("FINANCE_CLOSING_TOOLS", str(checkout.CHECKOUT / ".local" / "tools"))
    os.environ["FINANCE_CLOSING_STATE"] = str(checkout.STATE)
    os.environ["LOCAL_PROCEDURE_SECONDS"] = PROCEDURE_SECONDS


def pytest_unconfigure(config):
    config.stash[LOCK].close()
