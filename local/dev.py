"""inv dev: the handler over HTTP on this machine, registered with the local Restate and started again on each save."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from invoke import Exit
from watchfiles import DefaultFilter, watch

from local import processes
from local.service import answers
from local.state import HOST, ROOT, State, hold_free_port
from ops import config, shell

FOLDER = ROOT / "handler"
READY_SECONDS, ENDING_SECONDS = 30, 3


def register(url: str) -> str:
    """Over what is registered under this URL: the closings that it holds go on with the new code."""
    return f"restate deployments register {url} --force --yes"


def run(c, cfg: dict[str, str]) -> None:
    """Serve until Ctrl-C or SIGTERM; a handler that does not start waits for the next save."""
    state = State()
    port = kept_port(state)
    if answers(port):
        raise Exit(f"port {port} is taken: is another `inv dev` at work? End it first.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = None
    try:
        server = serve(c, cfg, state, port)
        for changes in watch(FOLDER, watch_filter=Sources(), raise_interrupt=False):
            print(f"saved {', '.join(sorted({Path(path).name for _, path in changes}))}, starting again", flush=True)
            end(server)
            server = serve(c, cfg, state, port)
    except KeyboardInterrupt:
        pass
    finally:
        if server:
            end(server)
    print("ended; closings that began here wait for the next `inv dev`. `inv deploy --env local` puts Lambda back")


class Sources(DefaultFilter):
    """What the function reads: its modules and its SQL."""

    def __call__(self, change, path: str) -> bool:
        return path.endswith((".py", ".sql")) and super().__call__(change, path)


def kept_port(state: State) -> int:
    """The same one each time: Restate finds the closings of an earlier `inv dev` by its URL."""
    file = state.make("pids") / "dev.port"
    with suppress(OSError, ValueError):
        return int(file.read_text())
    with hold_free_port() as holder:
        port = holder.getsockname()[1]
    file.write_text(str(port))
    return port


def serve(c, cfg: dict[str, str], state: State, port: int) -> subprocess.Popen:
    """Start the handler, wait until it answers and have Restate take it; said and left where it does not start."""
    server = start(cfg, state, port)
    deadline = time.monotonic() + READY_SECONDS
    while server.poll() is None and not answers(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    if server.poll() is not None or not answers(port):
        print("the handler does not start, see above; save it again", file=sys.stderr, flush=True)
        return server
    try:
        shell.execute(c, cfg, register(f"http://{HOST}:{port}"))
    except Exit as error:
        print(f"{error}; save it again", file=sys.stderr, flush=True)
    else:
        print(f"serving handler/ at http://{HOST}:{port}; Ctrl-C ends it", flush=True)
    return server


def start(cfg: dict[str, str], state: State, port: int) -> subprocess.Popen:
    """The handler in a process of its own, with the function's environment and its log made readable."""
    command = [sys.executable, "-m", "hypercorn", "--bind", f"{HOST}:{port}", "--workers", "0"]
    command += ["--graceful-timeout", "1", "handler.app:serve"]
    environ = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONUNBUFFERED": "1"}
    # `inv local.down` ends what bears the mark.
    environ |= {**config.function_environment(cfg), processes.MARK: str(state.path)}
    server = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)
    threading.Thread(target=show, args=(server.stderr,), daemon=True).start()
    return server


def end(server: subprocess.Popen) -> None:
    """What it is doing is done again by Restate, so it need not be waited for long."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(ENDING_SECONDS)
    server.kill()
    server.wait()


def show(lines: IO[str]) -> None:
    for line in lines:
        print(readable(line.rstrip()), flush=True)


def readable(line: str) -> str:
    """A line of the function's log for a person: the time, the event, and what it says without quotes."""
    try:
        event = json.loads(line)
        name = event.pop("event")
    except (ValueError, AttributeError, KeyError):
        return line
    told = "  ".join(f"{key} {value}" for key, value in event.items() if key != "invocation")
    return f"{time.strftime('%H:%M:%S')}  {name:<18} {told}"
