"""The cloud on this machine as tasks: inv local.up | tools | down | status | reset | logs.

Only the tasks import `local`: a production command must not load it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from invoke import Exit

from ops import environment, terminal
from ops.task import MACHINE, NOTHING, task


def cloud():
    """Return the cloud of this machine's state folder."""
    from local.cloud import Cloud

    return Cloud()


@contextmanager
def one_line_on_failure() -> Iterator[None]:
    """Turn the errors of `local` into one line and exit 1."""
    from local.errors import LocalError

    try:
        yield
    except LocalError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        raise Exit(str(error), code=1) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) and "/" not in str(error.filename or "/"):
            raise Exit(f"This needs the program {error.filename}, which PATH does not have; install it.") from None
        raise Exit(f"{error}; check the owner of the state folder and the free disk, then try again", code=1) from None


@task(group="local", changes=MACHINE, help={"procedure_seconds": "how long Genius' closing procedure takes; default 8"})
def up(c, procedure_seconds=""):
    """Start restate-server, PostgreSQL, Lambda and Genius on this machine."""
    with one_line_on_failure():
        cloud().up(procedure_seconds or None)


@task(group="local", changes=MACHINE)
def tools(c):
    """Install the restate CLI, which a deploy needs, unless local.up has installed it; start nothing."""
    import threading

    # Not local.cloud, which needs packages of requirements-dev.txt.
    from local import state
    from local import tools as installer

    with one_line_on_failure():
        installer.install_restate(state.State(), state.print_line, threading.Event())


@task(group="local", changes=MACHINE)
def down(c):
    """Stop everything that local.up started; data stays."""
    with one_line_on_failure():
        cloud().down()


@task(group="local", changes=MACHINE)
def reset(c):
    """Stop everything and delete its data, ports and passwords; downloads stay."""
    with one_line_on_failure():
        cloud().reset()


@task(group="local", changes=NOTHING)
def status(c):
    """Show each service: up or down, pid, port, memory, age; exit 1 if one is down."""
    with one_line_on_failure():
        found = cloud().status()
    rows = [status_row(name, one) for name, one in found.items()]
    print(terminal.table(rows, ("service", "", "pid", "port", "memory", "age", "url"), right=(2, 3, 4, 5)))
    if not all(one["up"] for one in found.values()):
        raise Exit(code=1)


def status_row(name: str, found: dict) -> tuple[str, ...]:
    memory = f"{found['memory'] / 2**20:.0f} MiB" if found["memory"] else "-"
    age = f"{found['age']:.0f} s" if found["age"] is not None else "-"
    state = "up" if found["up"] else "silent" if found["pid"] else "down"
    pid, port = found["pid"] or "-", found["port"] or "-"
    return name, state, str(pid), str(port), memory, age, found["url"] or "-"


@task(
    group="local",
    changes=NOTHING,
    help={
        "service": "a service of `inv local.status`; default all",
        "follow": "print new lines as they are written",
        "lines": "how many of each",
    },
)
def logs(c, service="", follow=False, lines=40):
    """Show the last lines of the services' logs."""
    with one_line_on_failure():
        files = log_files(service)
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    with suppress(KeyboardInterrupt):
        subprocess.run(command, env=environment.clean(), check=False)


def log_files(service: str) -> list[Path]:
    """Return the existing log files of one service, or of all for ""; raises LocalError."""
    from local.errors import LocalError

    found = cloud().status()
    if service and service not in found:
        raise LocalError(f"No service {service!r}. Known: {', '.join(found)}.")
    files = [Path(one["log"]) for name, one in found.items() if service in ("", name)]
    existing = [file for file in files if file.exists()]
    if not existing:
        raise LocalError("No service has written a log yet; run `inv local.up`.")
    return existing
