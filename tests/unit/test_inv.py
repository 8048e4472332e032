"""`.venv/bin/inv`: neither settings of a user nor an error before the tasks are loaded end in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.helpers import INV, ROOT

from ops import inv as program

BROKEN = "raise RuntimeError('the module of the user')\n"


def run(*command: object, cwd: Path = ROOT, **extra: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env={**os.environ, **extra}, capture_output=True, text=True, timeout=60
    )


def fault(done: subprocess.CompletedProcess) -> str:
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and not done.stdout
    return line


def test_settings_of_the_user_have_no_effect(tmp_path):
    (tmp_path / ".invoke.yaml").write_text("run: [\n")
    for name in ("invoke", "tasks", "yaml", "dotenv", "ops"):
        (tmp_path / f"{name}.py").write_text(BROKEN)
    variables = {"INVOKE_RUNTIME_CONFIG": "/no/such.yaml", "INVOKE_DEBUG": "1", "INVOKE_RUN_ECHO": "maybe"}
    done = run(INV, cwd=ROOT / "policies", HOME=str(tmp_path), PYTHONPATH=str(tmp_path), **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("The tasks that matter most:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<<<<<<< HEAD\n", "SyntaxError"),
        (BROKEN, "RuntimeError: the module of the user"),
        ("import no_such_package\n", "No module named 'no_such_package'; run `make -C "),
        ("def broken(:\n", "tasks.py, line 1"),
    ],
)
def test_tasks_that_do_not_load_are_one_line(tmp_path, text, words):
    (tmp_path / "tasks.py").write_text(text)
    line = fault(run(INV, "--list", cwd=tmp_path))
    assert line.startswith("The tasks could not be loaded: ") and words in line
    assert ".venv/ready`, then try again." in line


def test_folder_without_tasks_is_one_line_that_names_the_checkout(tmp_path):
    assert fault(run(INV, "--list", cwd=tmp_path)).startswith(f"No tasks.py in {tmp_path} or above it; run `cd /")


def test_missing_invoke_is_one_line():
    line = fault(run(sys.executable, "-I", "-S", program.__file__))
    assert "has no Invoke that works" in line and ".venv/ready`, then try again." in line


def test_missing_python_is_one_line(tmp_path):
    moved = tmp_path / "inv"
    moved.write_text(INV.read_text().replace("/.venv/", "/.venv-that-was-moved/"))
    assert "run `make .venv/ready` in the checkout." in fault(run("sh", moved, "--list"))


def test_option_that_is_no_number_is_one_line():
    line = fault(run(INV, "history", "--env", "local", "--count", "many", cwd=ROOT))
    assert line.startswith("'many' is not a whole number") and "Nothing was done" in line
