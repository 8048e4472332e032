"""The programs of support/warm.py give the output, exit code, environment and folder of those in .venv/bin."""

from __future__ import annotations

import subprocess

import pytest
from support import warm

from ops import environment


@pytest.mark.parametrize(
    "words",
    [
        ["aws", "--version"],
        ["aws", "--region", "x", "lambda", "get-function"],
        ["aws", "lambda", "list-functions", "--region", "x", "--endpoint-url", "http://127.0.0.1:9"],
        ["inv", "--list"],
        ["inv", "versions", "--env", "no-such"],
        ["inv", "no-such-task"],
    ],
    ids=" ".join,
)
def test_warm_start_gives_what_a_cold_one_gives(words, tmp_path):
    environ = environment.clean(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_MAX_ATTEMPTS="1")
    results = []
    for folder in (warm.BIN, warm.started().bin):
        done = subprocess.run([folder / words[0], *words[1:]], cwd=tmp_path, env=environ, capture_output=True)
        results.append((done.returncode, done.stdout, done.stderr))
    assert results[0] == results[1]
