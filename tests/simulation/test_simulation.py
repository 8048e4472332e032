"""Simulated closings keep the promise, and each break of the service is found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNS = 10_000
# Breaks of the service: file of handler/, its text, and the text that breaks it.
MUTANTS = {
    "adopt starts another job": (
        "procedure.py",
        [
            ('if request["adopt"] and known["outcome"] != "succeeded":', "if False:"),
            ('if request["procedure"] == "none":', "if False:"),
        ],
    ),
    "a job that did not start is left armed": ("procedure.py", [("mark = genius.give_up(job)", 'mark = "given up"')]),
    "a job that was never submitted is not reserved": (
        "procedure.py",
        [('await step(ctx, "reserve name", genius.reserve_name, job=closing["job"])', "True")],
    ),
    "jobs that no run accounts for are ignored": (
        "procedure.py",
        [("    if found:\n        message", "    if False:\n        message")],
    ),
    "a decision leaves a job armed": (
        "procedure.py",
        [('blocked.get("ours") and genius.give_up(job)', "False and genius.give_up(job)")],
    ),
    "an outcome is lost when PostgreSQL refuses the login": (
        "step.py",
        [("if must_end and isinstance(error, LoginRefused)", "if False")],
    ),
    "a refused poll is retried for ever": (
        "job_status.py",
        [('if "refused" in seen:', 'if seen.get("refused"):\n        return known\n    if False:')],
    ),
    "a closing that a rotated password paused stays on its version": (
        "plan.py",
        [('if state.get("newer"):', "if False:")],
    ),
    "the procedure's own errors are taken for the guard's": (
        "job_status.py",
        [('run["guard"] and run["error"]', 'run["error"]'), ('first["guard"] and first["error"]', 'first["error"]')],
    ),
    "the owner of a job is its date": (
        "period.py",
        [
            (
                'owner, date = ctx.request().id, request["date"]',
                'owner, date = "inv_" + request["date"], request["date"]',
            )
        ],
    ),
    "a hold is ignored": ("closing.py", [("        if hold:\n", "        if False:\n")]),
    "a hold has no end": ("scheduler.py", [('        ctx.clear("hold")\n', "")]),
    "an end is logged at each try": ("period.py", [('if not ended["logged"]:', "if True:")]),
    "a closing that was cancelled in the queue ends silently": (
        "closing.py",
        [("        await period.end(", "        0 and await period.end(")],
    ),
}

# Rare breaks: the seed that found one is tried first, then the default number of others.
FIRST_SEEDS = {
    "the procedure's own errors are taken for the guard's": 14_006,
    "a job that was never submitted is not reserved": 501,
    "jobs that no run accounts for are ignored": 1271,
    "a decision leaves a job armed": 1271,
    "a hold is ignored": 30,
}

# Scripts that once broke an invariant and that the default seeds do not draw.
ONCE_BROKEN = {
    "a late try logs an end again after a failover": """Script(
        actions=((1483.9, "close", ("2025-02-28",)), (3059.3, "rotate_oracle", ()), (3390.6, "close", ("2025-03-15",)),
                 (5112.5, "fail_over", (600.0,)), (30248.9, "zombies", ())),
        faults=((16, "zombie"),))""",
    "another date's job hides the own one, whose run PostgreSQL has lost": """Script(
        actions=((1301.3, "close", ("2025-02-27",)), (1495.3, "close", ("2025-02-28",)),
                 (1565.8, "fail_over", (600.0,)), (3465.4, "kill", ("2025-02-28",))),
        jobs=(Plan(seconds=1.0, end=20807),))""",
    "a decision on a job that never started hides the success before it": """Script(
        actions=((1.7, "close", ("2025-03-15",)), (643.1, "close", ("2025-02-27",)),
                 (1831.4, "rerun", ("2025-03-15", "genius", False)), (2748.2, "lose_restate", ()),
                 (3103.3, "start_schedule", ())),
        jobs=(Plan(), Plan(seconds=1.0), Plan(delay=None, end="failed")))""",
    "the row of a lost run takes the place of the newest": """Script(
        actions=((194.5, "close", ("2025-02-27",)), (328.6, "fail_over", (600.0,)),
                 (2464.9, "rerun", ("2025-02-27", "genius", False))),
        jobs=(Plan(seconds=1.0), Plan(end=20807)))""",
}
PLAY = """
import os
from simulation.__main__ import SETTINGS
os.environ.update(SETTINGS)
from simulation.runner import Plan, Script, run
print(run({script}))"""


def simulate(folder: Path, runs: int, seed: int = 1) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "simulation", "--runs", str(runs), "--seed", str(seed)]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}:{ROOT / 'tests'}", "PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("name", ONCE_BROKEN)
def test_a_script_that_once_broke_an_invariant_keeps_it(name):
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", PLAY.format(script=ONCE_BROKEN[name])]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stdout + done.stderr


def test_no_run_breaks_an_invariant():
    done = simulate(ROOT, RUNS)
    assert done.returncode == 0, done.stderr


def broken(folder: Path, name: str) -> Path:
    """Make a folder with a handler/ that has one of MUTANTS; returns the folder."""
    file, pairs = MUTANTS[name]
    shutil.copytree(ROOT / "handler", folder / "handler", ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / "handler" / file).read_text()
    for old, new in pairs:
        assert old in text, f"the mutant does not fit {file} any more: {old}"
        text = text.replace(old, new)
    (folder / "handler" / file).write_text(text)
    return folder


@pytest.mark.parametrize("name", MUTANTS)
def test_a_break_of_the_service_is_found_and_shrunk(name, tmp_path):
    done = simulate(broken(tmp_path, name), RUNS, FIRST_SEEDS.get(name, 1))
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(re.findall(r"^  (actions|faults|lost): ", done.stderr, re.MULTILINE)) <= 6


def test_failing_seed_replays_alone(tmp_path):
    folder = broken(tmp_path, "a hold has no end")
    done = simulate(folder, RUNS)
    seed = int(re.search(r"^seed (\d+): ", done.stderr)[1])
    assert seed > 1
    assert simulate(folder, 1, seed).stderr == done.stderr
