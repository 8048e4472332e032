"""The cloud on this machine as tasks: inv local.up | tools | down | status | reset | logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote as q

from invoke import Exit

from local.cloud import Cloud
from local.errors import LocalError
from local.services import NAMES
from ops.task import MACHINE, NOTHING, task


@contextmanager
def one_line_on_failure() -> Iterator[None]:
    try:
        yield
    except LocalError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        raise Exit(str(error), code=1) from None
    except OSError as error:
        raise Exit(f"{error}. Is the state folder of another user, or the disk full?", code=1) from None


@task(group="local", changes=MACHINE, help={"procedure_seconds": "how long Genius' closing procedure takes; default 8"})
def up(c, procedure_seconds=""):
    """Start restate-server, PostgreSQL, Lambda and Genius on this machine."""
    with one_line_on_failure():
        Cloud().up(procedure_seconds or None)


@task(group="local", changes=MACHINE)
def tools(c):
    """Install the restate CLI, which a deploy needs, where no local.up has done so; starts nothing."""
    with one_line_on_failure():
        Cloud().install_cli()


@task(group="local", changes=MACHINE)
def down(c):
    """End everything that local.up started; data stays."""
    with one_line_on_failure():
        Cloud().down()


@task(group="local", changes=MACHINE)
def reset(c):
    """End everything and remove its data, ports and passwords; downloads stay."""
    with one_line_on_failure():
        Cloud().reset()


@task(group="local", changes=NOTHING)
def status(c):
    """Show each part: up or down, pid, port, memory, age; exit 1 when one is down."""
    with one_line_on_failure():
        found = Cloud().status()
    print(f"{'part':<9} {'':<6} {'pid':>7} {'port':>5} {'memory':>8} {'age':>8}  url")
    for name, part in found.items():
        print(status_line(name, part))
    if not all(part["up"] for part in found.values()):
        raise Exit(code=1)


def status_line(name: str, part: dict) -> str:
    memory = f"{part['memory'] / 2**20:.0f} MiB" if part["memory"] else "-"
    age = f"{part['age']:.0f} s" if part["age"] is not None else "-"
    state = "up" if part["up"] else "silent" if part["pid"] else "down"
    pid, port = part["pid"] or "-", part["port"] or "-"
    return f"{name:<9} {state:<6} {pid:>7} {port:>5} {memory:>8} {age:>8}  {part['url'] or '-'}"


@task(
    group="local",
    changes=NOTHING,
    help={"part": f"one of {', '.join(NAMES)}; default all", "follow": "go on as they grow", "lines": "of each"},
)
def logs(c, part="", follow=False, lines=40):
    """Show the ends of the parts' logs."""
    with one_line_on_failure():
        files = log_files(part)
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    with suppress(KeyboardInterrupt):
        subprocess.run(command, check=False)


def log_files(part: str) -> list[Path]:
    if part and part not in NAMES:
        raise LocalError(f"No part '{part}'. Known: {', '.join(NAMES)}.")
    files = [Path(found["log"]) for name, found in Cloud().status().items() if part in ("", name)]
    there = [file for file in files if file.exists()]
    if not there:
        raise LocalError("No logs yet: `inv local.up` makes them.")
    return there


@task(group="local", changes=MACHINE)
def screens(c):
    """Make pictures of the demo and of Restate's page of its closing, in build/screens/."""
    from local import screens as pictures

    with one_line_on_failure():
        pictures.find_browser()
        demo = c.run(f"{q(sys.executable)} -m invoke demo", hide="out", in_stream=False).stdout
        for picture in pictures.take(demo):
            print(picture)
