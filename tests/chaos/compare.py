"""Compare the models of tests/simulation with the real parts: the same scripts must have the same outcomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

from chaos import scripts
from chaos.checkout import ROOT
from chaos.cloud import Stage
from chaos.scripts import Outcome

Expected = tuple[tuple[str, ...], Outcome]


def chosen(seed: int, times: int = scripts.TIMES, most: int = 0) -> list[Expected]:
    """Return the scripts of a seed with the model's outcomes; see scripts.choose."""
    return model("choose", seed, times, most)


def outcomes(*wanted: tuple[str, ...]) -> list[Expected]:
    """Return these scripts with the model's outcomes."""
    return model("play", *wanted)


def model(*question) -> list[Expected]:
    """Ask chaos.model in a process of its own."""
    command = [sys.executable, "-m", "chaos.model", json.dumps(question)]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the model failed: {done.stderr.strip()}")
    return [(tuple(one["script"]), outcome(one["outcome"])) for one in json.loads(done.stdout)]


def outcome(fields: dict) -> Outcome:
    """Return an outcome from JSON."""
    pairs = {name: tuple(tuple(one) for one in fields[name]) for name in ("answers", "runs")}
    return Outcome(**pairs, next=tuple(fields["next"]), starts=fields["starts"], effective=tuple(fields["effective"]))


def compare(stage: Stage, script: tuple[str, ...], expected: Outcome) -> list[str]:
    """Play a script on the cloud; returns a line for each difference, or for what went wrong."""
    try:
        return expected.differences(stage.play(script))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def run(seed: int, most: int | None = None) -> tuple[list[str], Counter]:
    """Play the scripts of a seed; returns the differences, and how often each command and fault had an effect.

    A script that differs proves nothing, so it does not count.
    """
    found: list[str] = []
    counts: Counter = Counter()
    with Stage(f"chaos-scripts-{seed}") as stage:
        for script, expected in chosen(seed, most=most or 0):
            lines = compare(stage, script, expected)
            found += [f"{', '.join(script)}: {line}" for line in lines]
            counts.update({"scripts", *expected.effective} if not lines else ["scripts"])
            print(f"  {'DIFFERS' if lines else 'agrees '}  {', '.join(script)}", *lines, sep="\n    ", flush=True)
    return found, counts
