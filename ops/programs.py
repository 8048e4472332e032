"""Check, before a task begins, the programs that it declares with `uses`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from invoke import Context, Exit

from ops import environment, shell

# The command that provides a program; any other one is a package of the system.
PROVIDED = {"aws": "make .venv/ready", "uv": "make .venv/ready", "restate": "inv local.tools"}
# Installed without asking: otherwise a deploy would publish a version, and then could not register it.
AUTOMATIC = ("restate",)


def ensure(c: Context, names: Iterable[str]) -> None:
    """Install the missing programs of AUTOMATIC; raises Exit in one line that names every other missing one."""
    environ = environment.clean()
    environ["PATH"] = shell.search_path(environ)
    missing = [name for name in names if not shutil.which(name, path=environ["PATH"])]
    faults = [f"{name} ({how_to_get(name)})" for name in missing if name not in AUTOMATIC]
    if faults:
        raise Exit(f"This task needs programs that this machine does not have: {', '.join(faults)}. Nothing was done.")
    for name in missing:
        shell.announce(PROVIDED[name])
        if not c.config.run.dry:
            done = shell.run(PROVIDED[name], environ)
            if not done.ok:
                raise Exit(shell.failure(PROVIDED[name], done))


def how_to_get(name: str) -> str:
    return f"run `{PROVIDED[name]}`" if name in PROVIDED else f"install {name} and put it on PATH"
