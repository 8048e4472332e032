"""inv dev: serve the handler over HTTP on this machine, registered with the local Restate, restarted on each save."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from invoke import Context, Exit
from watchfiles import PythonFilter, run_process

from local import processes
from local.service import answers
from local.state import HOST, ROOT, State, hold_free_port
from ops import config, shell
from ops.target import Target

FOLDER = ROOT / "handler"
READY_SECONDS = 30


def run(target: Target) -> None:
    """Serve until Ctrl-C or SIGTERM. If the handler does not start, wait for the next save."""
    state = State()
    port = kept_port(state)
    if answers(port):
        raise Exit(f"port {port} is taken, perhaps by another `inv dev`; stop that one, then run this again")
    # The server inherits all of it: what a command of a task gets, the settings of the function, and the mark by which
    # `inv local.down` finds it.
    environ = shell.command_environment(target.cfg) | config.function_environment(target.cfg)
    os.environ.clear()
    os.environ.update(environ | {processes.MARK: str(state.path)})
    # Without its warning that a server which failed to start has already ended: serve() reports that.
    logging.getLogger("watchfiles").setLevel(logging.ERROR)
    sources = PythonFilter(extra_extensions=(".sql",))
    with suppress(KeyboardInterrupt):
        run_process(FOLDER, target=serve, args=(target.cfg, port), watch_filter=sources, callback=report_saved)
    print("ended; closings that began here wait for the next `inv dev`. `inv deploy --env local` puts Lambda back")


def kept_port(state: State) -> int:
    """Return the port of `inv dev`, always the same: Restate finds the closings of an earlier run by its URL."""
    file = state.make("pids") / "dev.port"
    with suppress(OSError, ValueError):
        return int(file.read_text())
    with hold_free_port() as holder:
        port = holder.getsockname()[1]
    file.write_text(str(port))
    return port


def report_saved(changes: set[tuple[object, str]]) -> None:
    """Print the names of the saved files."""
    print(f"saved {', '.join(sorted({Path(path).name for _, path in changes}))}, restarting", flush=True)


def serve(cfg: dict[str, str], port: int) -> None:
    """Serve the handler until SIGINT; runs in a process of its own, so that each start imports the saved code."""
    from hypercorn.config import Config
    from hypercorn.run import run

    server = Config()
    server.application_path, server.bind = "handler.app:serve", [f"{HOST}:{port}"]
    server.workers, server.graceful_timeout = 0, 1
    threading.Thread(target=register_when_ready, args=(Target(Context(), cfg, "local"), port), daemon=True).start()
    try:
        from handler import log

        log.write = print_event
        run(server)
    except Exception:
        traceback.print_exc()
        print("the handler does not start, see above; save it again", file=sys.stderr, flush=True)


def print_event(event: str, **fields) -> None:
    """Print an event of the function's log as the time, the event and its fields."""
    text = "  ".join(f"{key} {value}" for key, value in fields.items() if key != "invocation")
    print(f"{time.strftime('%H:%M:%S')}  {event:<18} {text}", flush=True)


def register_when_ready(target: Target, port: int) -> None:
    """Wait until the handler answers and register it with Restate."""
    deadline = time.monotonic() + READY_SECONDS
    while not answers(port):
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    url = f"http://{HOST}:{port}"
    try:
        target.execute(register(url))
    except Exit as error:
        print(f"{error}; save it again", file=sys.stderr, flush=True)
    else:
        print(f"serving handler/ at {url}; Ctrl-C ends it", flush=True)


def register(url: str) -> str:
    """Return the command that registers a URL again, so that the closings begun there continue with the new code."""
    return f"restate deployments register {url} --force --yes"
