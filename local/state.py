"""The state folder of one local cloud: its files, ports and passwords, and the lock on it.

run.env can be read as dotenv and sourced by a shell. Ports are chosen on the first `up` and kept, so that a URL that is
registered with Restate stays valid.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import LocalError
from .processes import Process

LOCAL = Path(__file__).resolve().parent
ROOT = LOCAL.parent
HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections.
PORTS = range(20000, 32000)
PORT_NAMES = {
    "LOCAL_PG_PORT": "postgres",
    "LOCAL_ORACLE_PORT": "genius",
    "LOCAL_AWS_PORT": "aws",
    "LOCAL_RESTATE_INGRESS_PORT": "restate",
    "LOCAL_RESTATE_ADMIN_PORT": "restate",
    "LOCAL_RESTATE_NODE_PORT": "restate",
}
PASSWORD_NAMES = ("LOCAL_PG_PASSWORD", "LOCAL_PG_ADMIN_PASSWORD", "LOCAL_ORACLE_PASSWORD")
LOCK_BOUND = 180
FOLDERS = ("aws", "genius", "home", "logs", "pids", "postgres", "restate")


def folder() -> Path:
    """Return the state folder: FINANCE_CLOSING_STATE, or .local in the repository."""
    return Path(os.environ.get("FINANCE_CLOSING_STATE") or ROOT / ".local").resolve()


def tools_folder() -> Path:
    """Return the folder of downloaded programs: one per copy of the repository, for all of its clouds."""
    return Path(os.environ.get("FINANCE_CLOSING_TOOLS") or ROOT / ".local" / "tools").resolve()


class State:
    """A state folder and its files."""

    def __init__(self, path: Path | None = None):
        self.path = Path(path).resolve() if path else folder()
        self.env_file = self.path / "run.env"

    def make(self, *names: str) -> Path:
        """Return a folder in the state folder; make it if it is missing."""
        made = self.path.joinpath(*names)
        made.mkdir(parents=True, exist_ok=True)
        return made

    def log(self, service: str) -> Path:
        """Return a service's log. Only its owner may read it: PostgreSQL logs a failed statement with its password."""
        folder = self.make("logs")
        folder.chmod(0o700)
        return folder / f"{service}.log"

    def settings(self) -> dict[str, str]:
        """Return the settings of run.env; none before the first `up`."""
        try:
            lines = self.env_file.read_text().splitlines()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def write_settings(self, settings: Mapping[str, str]) -> None:
        """Write run.env."""
        text = "# Made by `inv local.up`; `inv local.reset` deletes it.\n"
        text += "".join(f"{name}={value}\n" for name, value in settings.items())
        write_private(self.env_file, text)

    def record(self, service: str) -> dict | None:
        """Return the record of a service's start: pid, ticks, fingerprint; None if there is none."""
        try:
            return json.loads((self.path / "pids" / f"{service}.json").read_text())
        except (OSError, ValueError):
            return None

    def write_record(self, service: str, process: Process, fingerprint: str) -> None:
        """Record a service's start."""
        text = json.dumps({"pid": process.pid, "ticks": process.ticks, "fingerprint": fingerprint})
        write_private(self.make("pids") / f"{service}.json", text)

    def drop_record(self, service: str) -> None:
        """Delete the record of a service's start."""
        (self.path / "pids" / f"{service}.json").unlink(missing_ok=True)

    @contextmanager
    def lock(self, report: Callable[[str], None]) -> Iterator[None]:
        """Allow one change of this state at a time; raises LocalError after LOCK_BOUND seconds."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / "lock", report):
            yield

    def remove(self) -> None:
        """Delete the services' files; downloaded programs and other clouds' states in this folder stay."""
        self.env_file.unlink(missing_ok=True)
        for name in FOLDERS:
            if (self.path / name).exists():
                shutil.rmtree(self.path / name)


@contextmanager
def locked(
    path: Path, report: Callable[[str], None], bound: float = LOCK_BOUND, holders: str = "local.up, down or reset"
) -> Iterator[None]:
    """Hold a lock file; wait up to `bound` seconds for another one of its holders, and report it once."""
    with open(path, "a+") as file:
        deadline, reported = time.monotonic() + bound, False
        while not _try_lock(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            if not reported:
                report(f"waiting for another {holders} (pid {holder})")
                reported = True
            if time.monotonic() > deadline:
                raise LocalError(f"{path} has been held by pid {holder} for {bound:.0f} s. End it, then try again.")
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _try_lock(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, completely or not at all."""
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)


def complete(settings: Mapping[str, str]) -> bool:
    """Return whether settings have each port and password."""
    return all(settings.get(name, "").isdecimal() for name in PORT_NAMES) and all(map(settings.get, PASSWORD_NAMES))


def new_settings() -> tuple[dict[str, str], dict[str, socket.socket]]:
    """Choose free ports and random passwords; return them and the sockets that reserve the ports until the start."""
    held = {name: hold_free_port() for name in PORT_NAMES}
    settings = {name: str(holder.getsockname()[1]) for name, holder in held.items()}
    settings.update((name, secrets.token_hex(16)) for name in PASSWORD_NAMES)
    return settings, held


def hold_free_port() -> socket.socket:
    """Return a socket bound to a free port: another cloud cannot choose it, but its own service can listen on it."""
    for _ in range(200):
        holder = socket.socket()
        try:
            holder.bind((HOST, random.choice(PORTS)))
        except OSError:
            holder.close()
            continue
        # Only after the bind, which must fail on a used port: it lets the service, which sets it too, bind as well.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return holder
    raise LocalError(f"No free port found on {HOST} from {PORTS.start} to {PORTS.stop}. End some programs, then retry.")


def hold_kept_ports(settings: Mapping[str, str], service: str) -> dict[str, socket.socket]:
    """Reserve the earlier ports of a service; raises LocalError that names a port taken by another process."""
    held: dict[str, socket.socket] = {}
    for name in (name for name, owner in PORT_NAMES.items() if owner == service):
        holder = socket.socket()
        # Without this, a port with connections of the last run in TIME_WAIT would count as taken.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((HOST, int(settings[name])))
        except OSError as error:
            for other in (holder, *held.values()):
                other.close()
            raise LocalError(
                f"{service}: its port {settings[name]} ({name}) is taken by another process ({error.strerror}). "
                "Stop that process, or choose new ports and empty databases with `inv local.reset`."
            ) from None
        held[name] = holder
    return held


def print_line(text: str) -> None:
    """Print a line of progress at once."""
    print(text, file=sys.stdout, flush=True)
