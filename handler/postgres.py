"""The connection to PostgreSQL that ledger.py, rollup.py, runs.py and schema.py share.

Every statement runs in a transaction that begins with our own session settings, all of them SET LOCAL. So nothing of
ours stays on a connection that a pooler (pgbouncer with pool_mode=transaction, RDS Proxy) gives to the next client,
and nothing that another client left there changes what we do.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from . import deadline, secret, settings
from .errors import LoginRefused, Refused, Unavailable, clean

CONNECT_SECONDS = 10
# Lambda unpacks the bundle to this folder.
BUNDLE = Path(__file__).resolve().parents[1]
STATEMENT_SECONDS = 600
# The server's own time-out comes first, since its error names more than a line that stays silent.
SOCKET_GRACE_SECONDS = 2
# The message by which a client asks for TLS, before anything else is sent.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
# The class of our advisory locks, so that they cannot meet those of the report's own programs.
LOCK_CLASS = 806
# A frozen function does not close its connection: by the keepalives the server detects that after about two minutes,
# and ends the transaction with its locks. Deferred constraints are checked by the statement that breaks them.
BEGIN = """
START TRANSACTION;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL search_path = "{schema}";
SET LOCAL tcp_keepalives_idle = 60; SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 6;
SET CONSTRAINTS ALL IMMEDIATE"""
TIME_LIMITS = (
    "SET LOCAL statement_timeout = {milliseconds}; SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
)
# SQLSTATEs that no retry can change: the data do not fit the tables, or a function of the report refuses them.
HOPELESS = ("22", "23", "P0")
# Of these, the ones whose message quotes the value that does not fit, perhaps an amount.
QUOTES_VALUES = "22"
HINTS = {
    "42501": "`inv schema --env ENV` names the grants that are missing",
    "42P01": "`inv schema --env ENV` makes our own tables and names what is missing",
    "57014": "the time that the invocation had left was over; nothing of this step was kept",
}


def describe(error: Exception) -> str:
    """Return PostgreSQL's own message in one line, without its DETAIL, which shows whole rows."""
    fields = error.args[0] if error.args else ""
    if isinstance(fields, dict):
        message = " ".join(fields[key] for key in ("M", "H") if key in fields).replace("\n", " ")
        return re.sub(r'"[^"]*"', '"…"', message) if fields.get("C", "").startswith(QUOTES_VALUES) else message
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def where() -> str:
    now = settings.current()
    return f"PostgreSQL at {now.pg_host}:{now.pg_port}"


def open_line(seconds: float) -> socket.socket:
    """Open a connection to the server's port, in TLS that verifies, or in plain text if the settings disable TLS.

    Made here and not by pg8000, so that its time-out can follow the invocation's.
    """
    now = settings.current()
    line = socket.create_connection((now.pg_host, now.pg_port), min(seconds, max(0.1, deadline.left())))
    try:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if now.pg_sslmode == "disable":
            return line
        line.sendall(SSL_REQUEST)
        if line.recv(1) != b"S":
            raise Refused(
                f"{where()} refuses TLS and PG_SSLMODE is {now.pg_sslmode}; turn ssl on there, or set PG_SSLMODE"
                " to disable if nobody can listen on that network"
            )
        return verifying(now.pg_sslrootcert).wrap_socket(line, server_hostname=now.pg_host)
    except ssl.SSLCertVerificationError as error:
        line.close()
        raise Refused(
            f"{where()}: its certificate is not trusted: {error.verify_message}; PG_SSLROOTCERT must name the CA"
            " that signed it, and PG_HOST a name that is in it"
        ) from error
    except BaseException:
        line.close()
        raise


def reach(seconds: float) -> dict:
    """Open a connection to the server's port and close it, without a login; raises Refused or Unavailable."""
    try:
        open_line(seconds).close()
    except OSError as error:
        raise Unavailable(f"{where()}: {describe(error)}") from error
    return {}


def verifying(ca_file: str | None) -> ssl.SSLContext:
    """Return the TLS context that verifies the server; a relative path starts at the bundle, which has the file."""
    try:
        return ssl.create_default_context(cafile=ca_file and BUNDLE / ca_file)
    except OSError as error:
        raise Refused(
            f"PG_SSLROOTCERT {ca_file} cannot be used as a CA file: {error}; name the file in the env file and deploy"
        ) from error


class Session:
    """A connection whose statements end before the invocation does, if need be with an error that names the cause.

    A statement outside transaction() gets a transaction of its own. row_count and columns are those of the last
    statement; codec is Python's name of the database's encoding.
    """

    def __init__(self, connection, line: socket.socket, seconds: float):
        self.connection, self.line = connection, line
        self.end = time.monotonic() + seconds
        # The server's limit of a statement in this transaction, in seconds.
        self.allowed = 0.0
        self.in_transaction = False
        # The connection cannot be used any more: it is dead, or the source of a COPY failed.
        self.broken = False
        self.row_count = 0
        self.columns: list[dict] = []
        self.codec = codec_of(connection.parameter_statuses.get("server_encoding", "UTF8"))

    def run(self, sql: str, **parameters) -> list | None:
        """Run one statement and return its rows.

        Text parameters are cleaned, dictionaries and lists become JSON. Raises Refused if its data can never be
        stored, Unavailable for any other error.
        """
        if self.in_transaction:
            return self.execute(sql, **parameters)
        with transaction(self):
            rows = self.execute(sql, **parameters)
            answer = self.row_count, self.columns
        self.row_count, self.columns = answer
        return rows

    def execute(self, sql: str, stream=None, **parameters) -> list | None:
        from pg8000 import native

        given = {name: self.parameter(value) for name, value in parameters.items()}
        try:
            self.bound()
            rows = self.connection.run(sql, stream=stream, **given)
            self.row_count, self.columns = self.connection.row_count, self.connection.columns
            return rows
        except native.DatabaseError as error:
            state = error.args[0].get("C", "") if error.args and isinstance(error.args[0], dict) else ""
            hint = f"; {HINTS[state]}" if state in HINTS else ""
            message, kind = (
                f"{where()}: {describe(error)}{hint}",
                Refused if state.startswith(HOPELESS) else Unavailable,
            )
        except (native.Error, OSError) as error:
            self.broken = True
            message, kind = f"{where()}: {describe(error)}", Unavailable
        except BaseException:
            self.broken = True
            raise
        # Raised here, without PostgreSQL's error as its cause: a traceback would show whole rows.
        raise kind(message)

    def parameter(self, value: object) -> object:
        if isinstance(value, str):
            return clean(value, self.codec)
        if isinstance(value, (dict, list)):
            return json.dumps(self.cleaned(json.loads(json.dumps(value, default=str))), ensure_ascii=False)
        return value

    def cleaned(self, value: object) -> object:
        """Return a JSON value whose texts the database can hold; jsonb takes no NUL and no character without a code."""
        if isinstance(value, str):
            return clean(value, self.codec)
        if isinstance(value, dict):
            return {clean(key, self.codec): self.cleaned(one) for key, one in value.items()}
        return [self.cleaned(one) for one in value] if isinstance(value, list) else value

    def bound(self) -> None:
        """Fit the time-outs of server and line to the time that is left."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise Unavailable(f"{where()}: {HINTS['57014']}")
        self.line.settimeout(left + SOCKET_GRACE_SECONDS)
        if self.in_transaction and self.allowed > left + 1:
            self.connection.run(self.time_limits(left))

    def time_limits(self, left: float) -> str:
        self.allowed = left
        return TIME_LIMITS.format(milliseconds=max(1, int(left * 1000)))

    def begin(self) -> None:
        left = self.end - time.monotonic()
        self.execute(f"{BEGIN.format(schema=settings.current().pg_schema)}; {self.time_limits(left)}")
        self.in_transaction = True

    def commit(self) -> None:
        self.run("COMMIT")
        self.in_transaction = False

    def roll_back(self) -> None:
        """Roll back if the server still listens; otherwise it detects the closed line and rolls back without us."""
        self.in_transaction = False
        if not self.broken:
            with contextlib.suppress(Refused, Unavailable):
                self.execute("ROLLBACK")


def codec_of(encoding: str) -> str:
    """Return Python's codec for a server's encoding; ASCII, which all of them hold, for an unknown one."""
    from pg8000.converters import PG_PY_ENCODINGS

    name = encoding.lower()
    try:
        return codecs.lookup(PG_PY_ENCODINGS.get(name) or name).name
    except LookupError:
        return "ascii"


def log_in(connect_seconds: float = CONNECT_SECONDS, through=secret.log_in) -> tuple:
    """Return a connection of the settings' user and its socket; through: what resolves references, then connects."""
    now = settings.current()
    return through("PostgreSQL", now.pg_user, now.pg_password, functools.partial(connect, connect_seconds))


def connect(connect_seconds: float, user: str, password: str) -> tuple:
    """Log in once; see `connected` for the errors."""
    from pg8000 import native

    now = settings.current()
    try:
        line = open_line(connect_seconds)
        connection = native.Connection(
            user,
            sock=line,
            ssl_context=False,
            database=now.pg_database,
            password=password,
            application_name="finance-closing",
        )
    except native.DatabaseError as error:
        state = error.args[0].get("C", "") if isinstance(error.args[0], dict) else ""
        # 28…: login refused; 3D000: no such database. 57P0x, while it starts or stops, is worth another try.
        kind = LoginRefused if state[:2] == "28" else Refused if state[:2] == "3D" else Unavailable
        raise kind(f"{where()}: {describe(error)}") from error
    except (native.InterfaceError, OSError) as error:
        raise Unavailable(f"{where()}: {describe(error)}") from error
    return connection, line


@contextlib.contextmanager
def connected(
    statement_seconds: float = STATEMENT_SECONDS, connect_seconds: float = CONNECT_SECONDS
) -> Iterator[Session]:
    """Open one connection for one step; raises Refused for a refused login and Unavailable for a dead line."""
    from pg8000 import native

    connection, line = log_in(connect_seconds)
    try:
        yield Session(connection, line, min(statement_seconds, deadline.left()))
    finally:
        # A connection that died in the middle of a COPY cannot be closed politely.
        with contextlib.suppress(native.Error, OSError):
            connection.close()


@contextlib.contextmanager
def transaction(session: Session) -> Iterator[Session]:
    """Run START TRANSACTION … COMMIT around a block, ROLLBACK after an error."""
    session.begin()
    try:
        yield session
        session.commit()
    except BaseException:
        session.roll_back()
        raise
