"""Closings under faults, and mutants that such a run must report."""

from __future__ import annotations

import os

import pytest
from chaos.runner import Runner

from handler import settings

SEED = 806


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Restore the environment, from which the runner reads handler/'s settings as the function does."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    settings.current.cache_clear()


def test_the_promise_holds_under_faults():
    assert Runner(8, SEED).run() == []


def test_a_mutant_of_the_job_is_reported():
    # The first report ends the run. Mutants of the handlers are found by the simulation.
    broken = Runner(16, SEED, [], ("plain",), "auto-drop").run()
    assert any("its name is free again" in line for line in broken)
