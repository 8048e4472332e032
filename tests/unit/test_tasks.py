"""tasks.py: the index of the tasks, and what a command loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Config, Context, Exit

import tasks
from ops import listing
from ops.task import ENVIRONMENT, GROUPS, NOTHING, task

ROOT = Path(__file__).resolve().parents[2]
INV = Path(sys.executable).with_name("inv")
# Only demo, dev, local.* and genius.* may load these.
LOCAL_ONLY = {"local", "tests", "support", "cryptography", "oracledb", "pg8000", "restate", "pytest", "sqlglot"}
LOADED = """
import sys
from invoke.main import program
try:
    program.run(["inv", *sys.argv[1:]])
except SystemExit:
    pass
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def inv(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([INV, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", [[], ["--list"], ["ping", "--env", "no-such"], ["deploy", "--env", "no-such"]])
def test_command_of_operator_loads_nothing_of_local_cloud(words):
    done = subprocess.run([sys.executable, "-c", LOADED, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {"invoke", "ops", "tasks"} <= loaded
    assert loaded & LOCAL_ONLY == set()


def test_list_shows_each_task_once_under_its_group():
    lines = inv("--list").stdout.splitlines()
    groups = [line for line in lines if line and not line.startswith(" ")]
    assert groups == list(GROUPS)
    shown, group = {}, ""
    for line in lines:
        if line in GROUPS:
            group = line
        elif line.startswith("  ") and not line.startswith("   "):
            assert shown.setdefault(line.split()[0], group) == group
    names = [name for name in tasks.namespace.task_names if not name.endswith(".do")]
    assert sorted(shown) == sorted(names)
    assert shown == {name: tasks.namespace[name].group for name in names}


def test_list_of_a_collection_is_that_of_invoke():
    assert ".status" in inv("--list", "schedule").stdout
    assert inv("--list", "no-such").returncode == 1


def test_inv_alone_shows_ten_tasks_and_how_to_see_the_rest():
    done = inv()
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line[2] != " "]
    assert shown == list(listing.FIRST)
    assert len(shown) == 10
    assert "inv --list" in done.stdout and "inv --help TASK" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [[], ["--list"]])
def test_reader_that_closes_the_pipe_sees_no_traceback(words):
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([INV, *words], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_missing_package_is_one_line_with_the_command_that_installs_it():
    @task(group="local", changes=NOTHING)
    def needs(c):
        import no_such_package.of_ours  # noqa: F401

    with pytest.raises(Exit, match=r"needs the package no_such_package, .* `make \.venv/ready-dev`"):
        needs(Context())


def test_missing_module_of_this_repository_is_not_blamed_on_the_environment():
    @task(group="local", changes=NOTHING)
    def needs(c):
        import ops.no_such_module  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        needs(Context())


def test_task_needs_a_known_group_and_kind_of_change():
    for given in ({"group": "other", "changes": NOTHING}, {"group": "watch", "changes": "everything"}):
        with pytest.raises(ValueError):
            task(**given)


def test_task_that_changes_an_environment_keeps_its_broken_pipe():
    """A deploy must not end in silence half way."""

    @task(group="deploy", changes=ENVIRONMENT)
    def broken(c):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        broken(Context(Config()))
