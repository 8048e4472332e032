"""A task does not begin before the programs that it declares are installed."""

from __future__ import annotations

import sys

import pytest
from invoke import Config, Context, Exit

from ops import shell
from ops.task import ENVIRONMENT, task

DRY = Config(overrides={"run": {"dry": True}})
begun = []


@task(group="deploy", changes=ENVIRONMENT, uses=("aws", "docker", "restate"))
def needy(c):
    begun.append(c)


@task(group="deploy", changes=ENVIRONMENT, uses=("restate",))
def registering(c):
    begun.append(c)


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """Remove all programs from PATH, beside Python and in the tools' folder."""
    begun.clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(shell, "TOOLS", tmp_path / "tools")
    return tmp_path


def test_missing_programs_are_one_line_with_the_next_command_before_anything_begins(capsys):
    with pytest.raises(Exit) as stop:
        needy(Context())
    assert stop.value.message == (
        "This task needs programs that this machine does not have: aws (run `make .venv/ready`), docker (install docker"
        " and put it on PATH). Nothing was done."
    )
    assert not begun and capsys.readouterr().out == ""


def test_missing_restate_cli_is_installed_before_the_task_begins(capsys, monkeypatch):
    ran = []
    monkeypatch.setattr(shell, "run", lambda command, environ: ran.append(command) or shell.Done(0, "", ""))
    registering(Context())
    assert (ran, len(begun), capsys.readouterr().out) == (["inv local.tools"], 1, "inv local.tools\n")


def test_dry_run_prints_the_installation_and_goes_on(capsys):
    registering(Context(DRY))
    assert len(begun) == 1 and capsys.readouterr().out == "inv local.tools\n"


def test_program_that_is_there_is_not_installed(empty_machine, capsys):
    program = empty_machine / "restate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    registering(Context())
    assert len(begun) == 1 and capsys.readouterr().out == ""
