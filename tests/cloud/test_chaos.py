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


@pytest.mark.parametrize(
    ("mutant", "faults", "scenario", "report"),
    [
        ("auto-drop", [], "plain", "its name is free again"),
        ("workflow-owner", ["procedure-fails"], "plain", "took an earlier run for its own"),
    ],
)
def test_a_mutant_is_reported(mutant, faults, scenario, report):
    # The first report ends the run; a fault may miss the closings of a round.
    broken = Runner(16, SEED, faults, (scenario,), mutant).run()
    assert any(report in line for line in broken)
