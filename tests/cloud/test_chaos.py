"""Closings under faults, and that the run which checks them can fail."""

from __future__ import annotations

import os

import pytest
from chaos.runner import Arena

from handler import settings

SEED = 806


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """The arena reads handler/'s settings from the environment, as the function does."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    settings.current.cache_clear()


def test_the_promise_holds_under_faults():
    assert Arena(8, SEED).run() == []


@pytest.mark.parametrize(
    ("plant", "strikes", "scenario", "report"),
    [
        ("auto-drop", [], "plain", "its name is free again"),
        ("workflow-owner", ["procedure-fails"], "plain", "took an earlier run for its own"),
    ],
)
def test_a_planted_break_is_reported(plant, strikes, scenario, report):
    # The first report ends the run; a strike may miss the closings of a round.
    broken = Arena(16, SEED, strikes, (scenario,), plant).run()
    assert any(report in line for line in broken)
