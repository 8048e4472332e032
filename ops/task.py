"""The `@task` of this repository: an Invoke task that declares its group in `inv --list` and what it changes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import invoke

from ops import entry, programs

ROOT = Path(__file__).resolve().parents[1]
# The groups of `inv --list`, in the order of an operator's day.
GROUPS = ("set up", "deploy", "close", "repair", "watch", "layer", "schedule", "keep-warm", "local", "develop")
# The kinds of change of a task. Under --dry a task that changes an environment prints its commands and runs only
# look-ups; a task that changes this machine by other means than commands refuses --dry.
NOTHING, ENVIRONMENT, MACHINE = "nothing", "environment", "machine"
# The exit code of a program that a closed pipe has ended.
PIPE_CLOSED = 141


def task(*, group: str, changes: str, uses: Iterable[str] = (), **options):
    """Return Invoke's decorator with the attributes `group`, `changes` and `uses` set on the task that it makes.

    uses: the programs of its commands, beside those of every system.
    """
    if group not in GROUPS or changes not in (NOTHING, ENVIRONMENT, MACHINE):
        raise ValueError(f"unknown group {group!r} or kind of change {changes!r}")

    def decorate(body):
        made = invoke.task(**options)(checked(body, changes, uses))
        made.group, made.changes, made.uses = group, changes, tuple(uses)
        return made

    return decorate


def checked(body, changes: str, uses: Iterable[str]):
    """Wrap the body of a task in the checks that all tasks share; each fault is one line and exit 1."""

    @functools.wraps(body)
    def run(c, *arguments, **options):
        if changes == MACHINE and c.config.run.dry:
            raise invoke.Exit("This task has no dry run: it runs no commands that --dry could print. Nothing was done.")
        try:
            programs.ensure(c, uses)
            if changes != NOTHING:
                return body(c, *arguments, **options)
            with closed_pipe_ends_quietly():
                return body(c, *arguments, **options)
        except ModuleNotFoundError as error:
            raise invoke.Exit(missing_package(error)) from None
        except invoke.Exit as error:
            # It can quote what AWS, Restate or a database has answered.
            error.message = error.message and entry.redacted(str(error.message))
            raise

    return run


def missing_package(error: ModuleNotFoundError) -> str:
    """Return the line for a package that only requirements-dev.txt has; a missing module of our own is raised again."""
    package = (error.name or "").partition(".")[0]
    if not package or (ROOT / package).exists():
        raise error
    return f"This task needs the package {package}, which is not installed; run `make .venv/ready-dev`, then try again."


@contextmanager
def closed_pipe_ends_quietly() -> Iterator[None]:
    """End without a traceback if the reader of the output, such as head, has closed the pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise invoke.Exit(code=PIPE_CLOSED) from None
