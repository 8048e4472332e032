"""Closings under faults, the models compared with the cloud, and mutants that such runs must report."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from chaos import checkout, compare, scripts
from chaos.cloud import Stage
from chaos.runner import Runner
from support import warm

from handler import settings

SEED = 806
STATUS_SCRIPT = ("procedure ends with 0", "close", "clear")
HELD_SCRIPT = ("die after submit", "procedure holds", "close", "kill", "clear")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Restore the environment, from which the runner reads handler/'s settings as the function does."""
    monkeypatch.setattr(checkout, "INV", warm.started().bin / "inv")
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    settings.current.cache_clear()


@pytest.mark.slow
def test_the_promise_holds_under_faults():
    assert Runner(8, SEED).run() == []


@pytest.mark.slow
def test_a_mutant_of_the_job_is_reported():
    # The first report ends the run. Mutants of the handlers are found by the simulation.
    broken = Runner(16, SEED, [], ("plain",), "auto-drop").run()
    assert any("its name is free again" in line for line in broken)


def test_the_models_agree_with_the_cloud_and_a_mutant_is_found():
    # A procedure with status 0 has failed: the first script finds a job that ignores it.
    (status, expected), (held, expected_held) = compare.outcomes(STATUS_SCRIPT, HELD_SCRIPT)
    with Stage("chaos-scripts-test") as stage:
        assert compare.compare(stage, status, expected) == []
        assert compare.compare(stage, held, expected_held) == []
        checkout.mutate(stage.folder / "handler", "any-status")
        stage.checkout.deploy()
        (line, *_) = compare.compare(stage, status, expected)
    assert line.startswith("next: the model ('inv rerun --date DATE',), the cloud ()"), line


def test_scripts_are_chosen_until_each_command_and_each_fault_had_an_effect_three_times():
    chosen = compare.chosen(SEED)
    counts = Counter(name for _, outcome in chosen for name in set(outcome.effective))
    assert set(counts) == {*scripts.COMMANDS, *scripts.FAULTS}
    assert min(counts.values()) >= 3
