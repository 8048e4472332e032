"""The `@task` of this repository: an Invoke task that declares its group in `inv --list` and what it changes."""

from __future__ import annotations

import functools

import invoke

# The groups of `inv --list`, in the order of an operator's day.
GROUPS = ("set up", "deploy", "close", "repair", "watch", "layer", "schedule", "keep-warm", "local", "develop")
# What a task changes. Under --dry a task that changes an environment prints its commands and runs only look-ups;
# a task that changes this machine by other means than commands refuses --dry.
NOTHING, ENVIRONMENT, MACHINE = "nothing", "environment", "machine"


def task(*, group: str, changes: str, **options):
    """Return Invoke's decorator with the attributes `group` and `changes` set on the task that it makes."""
    if group not in GROUPS or changes not in (NOTHING, ENVIRONMENT, MACHINE):
        raise ValueError(f"unknown group {group!r} or kind of change {changes!r}")

    def decorate(body):
        made = invoke.task(**options)(refusing_dry_run(body) if changes == MACHINE else body)
        made.group, made.changes = group, changes
        return made

    return decorate


def refusing_dry_run(body):
    """Return the body of a task with a check that stops it under --dry before anything is done."""

    @functools.wraps(body)
    def checked(c, *arguments, **options):
        if c.config.run.dry:
            raise invoke.Exit("This task has no dry run: it runs no commands that --dry could print. Nothing was done.")
        return body(c, *arguments, **options)

    return checked
