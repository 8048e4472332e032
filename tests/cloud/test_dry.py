"""Every task does what it declares: `changes` of ops/task.py names what may change, and nothing else does.

All tasks are walked, so that a new one cannot be forgotten. They run in this process, which saves the start of Python.
"""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

import pytest
from invoke import Config, Context, Exit
from support import checkout
from support.fault_proxy import FaultProxy
from support.helpers import ROOT, UNUSED, environment_file

import tasks
from ops import shell
from ops.task import ENVIRONMENT, MACHINE, NOTHING

ENV = "testdry"
DATE = "2025-12-31"
# The values of arguments that have no default, by the argument's name, or by TASK.NAME where one task needs another.
ARGUMENTS = {
    "as_": "failed",
    "date": DATE,
    "env": ENV,
    "fault": "procedure_status=0",
    "keep": "1",
    "keep-warm.do.verb": "on",
    "period": DATE[:7],
    "reason": "a patch",
    "schedule.do.verb": "start",
    "text": "select 1 from dual",
    "to": "ops@example.com",
}
# Tasks with nothing to do on the cloud of the tests, and how they report it; other tests may leave them something.
NOTHING_TO_DO = {
    "cancel": "no closing",
    "keep-warm.off": "was not kept warm",
    "layer.prune": "no version|deleted",
    "layer.publish": "No layer at build/",
    "prune": "deleted",
    "rerun": "no closing",
    "resolve": "not blocked",
    "resume": "nothing is paused",
    "rollback": "no registered version before",
    "stop-job": "no closing",
}
# They change nothing that an operator has, but take minutes or ask the registry of packages. None gets an environment.
ONLY_DRY = ("bench", "chaos", "lock")
NAMES = sorted(tasks.namespace.task_names)
COMMAND = re.compile(r"^(\x1b\S+)?(cd \S+ && )?(aws|curl|restate|uv|\S*python\S*) ", re.MULTILINE)
# A program at the begin of a command or of its part.
PROGRAM = re.compile(r"(?:^|[;|&(] *|while )(aws|restate|uv|git|docker) ")
# The requests to Restate that a task that changes nothing may send.
LOOKUPS = re.compile(r'GET |POST /query |POST /v3/deployments .*"dry_run": true|POST /ClosingPeriod/[\d-]+/inspect ')
# They send the function an event of ours, which it answers without a change.
INVOKING = ("doctor", "history", "ping", "reconcile", "report", "status")
# They find something to report: a function that differs from the file, no Instant Client ZIP, a function kept cold, a
# period of which nothing is closed.
FAILING = ("doctor", "layer.build", "keep-warm.status", "reconcile", "report")


class Ran(NamedTuple):
    """The output of a task, its one line if it failed, and its calls that change something."""

    printed: str
    failure: str
    changed: list[str]


def declaring(*changes: str) -> list[str]:
    """Return the tasks that declare one of these; a task that declares nothing is in each list, and fails there."""
    return [name for name in NAMES if getattr(tasks.namespace[name], "changes", None) in (*changes, None)]


def arguments(task: str) -> dict[str, object]:
    """Return a value for each argument of a task that has no default."""
    _, *parameters = inspect.signature(inspect.unwrap(tasks.namespace[task].body)).parameters.values()
    values = {}
    for one in parameters:
        if one.default is not inspect.Parameter.empty:
            continue
        value = ARGUMENTS.get(f"{task}.{one.name}", ARGUMENTS.get(one.name))
        if value is None:
            pytest.fail(f"{task} needs a value for its argument {one.name!r}; add one to ARGUMENTS")
        values[one.name] = value
    return values


def tree() -> dict[str, int]:
    """Return the files of the copy outside build/, with their times of change."""
    return {name: (ROOT / name).stat().st_mtime_ns for name in checkout.files() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def environment(deployed):
    """Return an environment that differs from what is deployed, with a proxy before each port of Restate."""
    admin, ingress = FaultProxy(deployed["RESTATE_ADMIN_URL"]), FaultProxy(deployed["RESTATE_INGRESS_URL"])
    changes = {
        "RESTATE_ADMIN_URL": admin.url,
        "RESTATE_INGRESS_URL": ingress.url,
        "DEADLINE_SECONDS": "303",
        "GITHUB_REPOSITORY": "insurer/finance-closing",
        "LOG_RETENTION_DAYS": "30",
    }
    with environment_file(ENV, **changes):
        yield admin, ingress
    admin.close()
    ingress.close()


def recording(commands: list[str], function):
    """Return a function that appends its first argument, a command, to a list and calls another function."""

    def record(command: str, *more, **options):
        commands.append(command)
        return function(command, *more, **options)

    return record


@pytest.fixture
def run(environment, recorder, monkeypatch, capfd):
    """Return a function that runs a task and reports what it did; a traceback or a second line fails the test."""
    for name in UNUSED:
        monkeypatch.delenv(name)
    commands: list[str] = []
    for name in ("run", "announce"):
        monkeypatch.setattr(shell, name, recording(commands, getattr(shell, name)))

    def run(task: str, dry: bool) -> Ran:
        client = f"{'--dry ' if dry else ''}{task} of test_dry"
        monkeypatch.setenv("AWS_CSM_CLIENT_ID", client)
        before, failure = tree(), ""
        commands.clear()
        for proxy in environment:
            proxy.requests.clear()
        try:
            tasks.namespace[task](Context(Config(overrides={"run": {"dry": dry}})), **arguments(task))
        except Exit as stop:
            failure = stop.message or ""
            assert stop.code == 1 and len(failure.splitlines()) <= 1
        changed = [call.action for call in recorder.calls() if call.task == client and not call.is_query]
        changed += [one for proxy in environment for one in proxy.requests if not LOOKUPS.match(one)]
        assert tree() == before
        used = {program for command in commands for program in PROGRAM.findall(command)}
        assert used <= {*tasks.namespace[task].uses}, f"{task}: declare in `uses` each program of {used}"
        captured = capfd.readouterr()
        return Ran(captured.out + captured.err, failure, changed)

    return run


@pytest.mark.parametrize("task", NAMES)
def test_task_declares_what_it_changes(task):
    assert getattr(tasks.namespace[task], "changes", None) in (NOTHING, ENVIRONMENT, MACHINE), (
        f"{task}: declare what it changes with the `task` of ops/task.py"
    )
    arguments(task)


@pytest.mark.parametrize("task", declaring(ENVIRONMENT))
def test_dry_run_of_task_that_changes_an_environment_prints_commands_and_only_queries(run, task):
    done = run(task, dry=True)
    assert done.changed == []
    reported = done.printed + done.failure
    assert COMMAND.search(done.printed) or re.search(NOTHING_TO_DO.get(task, "$^"), reported), reported
    assert task in NOTHING_TO_DO or not done.failure


@pytest.mark.parametrize("task", declaring(MACHINE))
def test_task_that_changes_the_machine_refuses_dry_run(task, tmp_path, monkeypatch):
    monkeypatch.setenv("FINANCE_CLOSING_STATE", str(tmp_path))
    before = tree()
    with pytest.raises(Exit, match=r"^This task has no dry run: .* Nothing was done.$"):
        tasks.namespace[task](Context(Config(overrides={"run": {"dry": True}})), **arguments(task))
    assert tree() == before and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("task", [name for name in declaring(NOTHING) if name not in ONLY_DRY])
def test_task_that_changes_nothing_only_queries(run, task):
    done = run(task, dry=False)
    assert set(done.changed) <= ({"lambda:InvokeFunction"} if task in INVOKING else set())
    assert not done.failure or task in FAILING, done.failure


@pytest.mark.parametrize("task", ONLY_DRY)
def test_long_task_gets_no_environment_and_prints_its_commands(run, task):
    assert tasks.namespace[task].changes == NOTHING
    assert "env" not in inspect.signature(inspect.unwrap(tasks.namespace[task].body)).parameters
    done = run(task, dry=True)
    assert COMMAND.search(done.printed) and done.changed == [] and not done.failure
