"""The ledger in PostgreSQL: trial balance, metrics and the closing log. The only module that knows PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from . import deadline, log, rollup, settings
from .errors import Refused, Unavailable

CONNECT_SECONDS = 10
PING_SECONDS = 5
STATEMENT_SECONDS = 600
# The server's own time-out comes first, since it says more than a line that stays silent.
SOCKET_GRACE_SECONDS = 2
# The message by which a client asks for TLS, before anything else is said.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
# A server that has lost us (a frozen function says no goodbye) lets go of lock and transaction after about two minutes.
KEEPALIVE = "SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6"
# The class of our advisory locks, so that they cannot meet those of the report's own programs.
LOCK_CLASS = 806
NAMESPACE = uuid.UUID("6f6b8d0e-5f0b-5c6e-9d0a-806806806806")
# SQLSTATEs of which no retry can rid us: the data do not fit the tables.
HOPELESS = ("22", "23502", "23503", "23514")
HINTS = {
    "42501": "`inv schema` names the grants that are missing",
    "42P01": "`inv schema` makes our own table and names what is missing",
    "57014": "the time that the invocation had left was over; nothing of this step was kept",
}

# The job whose result a run copies: its own one, or the one of an earlier run of the same date.
JOB_OF = """
SELECT source.job, source.detail #>> '{genius,endedAt}'
  FROM closing_runs own LEFT JOIN closing_runs source
    ON source.closing_date = own.closing_date AND source.genius = 'succeeded'
   AND (source.id = own.id OR own.genius = 'reused')
 WHERE own.id = CAST(:id AS uuid)
 ORDER BY source.id = own.id DESC NULLS LAST, source.started_at DESC NULLS LAST LIMIT 1"""
LATER_JOB = """
SELECT ledger_job, ledger_job_ended_at FROM closing_runs
 WHERE period = :period AND ledger_job_ended_at > CAST(:ended_at AS timestamp)
 ORDER BY ledger_job_ended_at DESC LIMIT 1"""


def run_id(owner: str) -> str:
    """The key of an owner's row in closing_runs, and the id of its metrics run."""
    return str(uuid.uuid5(NAMESPACE, owner))


def describe(error: Exception) -> str:
    """PostgreSQL's own message in one line; pg8000 hands over a dictionary of the protocol's fields."""
    fields = error.args[0] if error.args else ""
    if isinstance(fields, dict):
        return " ".join(fields[key] for key in ("M", "D", "H") if key in fields).replace("\n", " ")
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def where() -> str:
    now = settings.current()
    return f"PostgreSQL at {now.pg_host}:{now.pg_port}"


def open_line(seconds: float) -> socket.socket:
    """A connection to the server's port, in TLS that verifies unless the settings say plain text.

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
                " to disable where nobody can listen"
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


def verifying(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Refused(
            f"PG_SSLROOTCERT {ca_file} cannot be used as a CA file: {error}; deploy it with the function"
        ) from error


class Session:
    """A connection on which each statement ends, with an error that tells, before the invocation does."""

    def __init__(self, connection, line: socket.socket, seconds: float):
        self.connection, self.line = connection, line
        self.end = time.monotonic() + seconds
        # The server's own limit of a statement, in seconds, as it was told last.
        self.allowed = 0.0

    def run(self, sql: str, **parameters) -> list | None:
        """Run one statement; raises Refused where its data can never be stored, Unavailable for any other error."""
        from pg8000 import native

        try:
            self.bound()
            return self.connection.run(sql, **parameters)
        except (native.Error, OSError) as error:
            state = error.args[0].get("C", "") if error.args and isinstance(error.args[0], dict) else ""
            hint = f"; {HINTS[state]}" if state in HINTS else ""
            raise (Refused if state.startswith(HOPELESS) else Unavailable)(
                f"{where()}: {describe(error)}{hint}"
            ) from error

    def bound(self) -> None:
        """Fit the time-outs of server and line to the time that is left."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise Unavailable(f"{where()}: {HINTS['57014']}")
        self.line.settimeout(left + SOCKET_GRACE_SECONDS)
        if not self.allowed or self.allowed > left + 1:
            milliseconds = int(left * 1000) + 1
            self.connection.run(
                f"SET statement_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {milliseconds}"
            )
            self.allowed = left

    @property
    def row_count(self) -> int:
        return self.connection.row_count

    @property
    def columns(self) -> list[dict]:
        return self.connection.columns


@contextlib.contextmanager
def connected(
    statement_seconds: float = STATEMENT_SECONDS, connect_seconds: float = CONNECT_SECONDS
) -> Iterator[Session]:
    """One connection for one step; raises Refused for a refused login and Unavailable for a dead line."""
    from pg8000 import native

    now = settings.current()
    try:
        line = open_line(connect_seconds)
        connection = native.Connection(
            now.pg_user,
            sock=line,
            ssl_context=False,
            database=now.pg_database,
            password=now.pg_password,
            application_name="finance-closing",
        )
    except native.DatabaseError as error:
        state = error.args[0].get("C", "") if isinstance(error.args[0], dict) else ""
        # 28…: login refused; 3D000: no such database. 57P0x, while it starts or stops, is worth another try.
        kind = Refused if state[:2] in ("28", "3D") else Unavailable
        raise kind(f"{where()}: {describe(error)}") from error
    except (native.InterfaceError, OSError) as error:
        raise Unavailable(f"{where()}: {describe(error)}") from error
    session = Session(connection, line, min(statement_seconds, deadline.left()))
    try:
        session.run(f'{KEEPALIVE}; SET search_path = "{now.pg_schema}"')
        yield session
    finally:
        # A connection that died in the middle of a COPY cannot be closed politely.
        with contextlib.suppress(native.Error, OSError):
            connection.close()


@contextlib.contextmanager
def transaction(session: Session) -> Iterator[Session]:
    """BEGIN … COMMIT around a block; an error leaves the roll-back to the server, which sees the line close."""
    session.run("START TRANSACTION")
    yield session
    session.run("COMMIT")


def record(connection, owner: str, step: str, outcome: str, detail: dict) -> None:
    """Write one step's outcome to the run's row, in the caller's transaction."""
    assert step in ("genius", "ledger", "metrics"), step
    connection.run(
        f"UPDATE closing_runs SET {step} = :outcome, detail = detail || CAST(:detail AS jsonb)"
        " WHERE id = CAST(:id AS uuid)",
        outcome=outcome,
        detail=json.dumps({step: {**detail, "at": time.time()}}, default=str),
        id=run_id(owner),
    )


def record_step(owner: str, step: str, outcome: str, detail: dict) -> None:
    """Write one step's outcome to the run's row."""
    with connected() as connection, transaction(connection):
        record(connection, owner, step, outcome, detail)


def finish(owner: str, status: str, message: str) -> None:
    """Write how the run ended; the first end that was written stands."""
    with connected() as connection:
        connection.run(
            "UPDATE closing_runs SET status = :status, message = :message, ended_at = now()"
            " WHERE id = CAST(:id AS uuid) AND status = 'running'",
            status=status,
            message=message,
            id=run_id(owner),
        )


def replace_trial_balance(owner: str, period: str, open_balances: Callable[[str], AbstractContextManager]) -> dict:
    """Replace a period's trial balance by Genius' balances, rolled up along the account tree, or leave it whole.

    open_balances: see genius.open_balances. Genius is read with the period's lock held, so that of two
    replacements the later one has also read later: a closing without a job of its own copies what stands in Genius
    by then, which no recorded job can be newer than, and a zombie cannot bring an old reading back.
    Returns {"balances", "rows", "totals": {column: text}, "job", "jobEndedAt"} and what rollup.find_strays returns.
    Raises Refused for an empty period, for a later job's result and for any difference.
    """
    year, month = (int(part) for part in period.split("-"))
    with connected() as session, transaction(session):
        session.run("SELECT pg_advisory_xact_lock(:class, :key)", **{"class": LOCK_CLASS}, key=year * 100 + month)
        job, ended_at = job_of(session, owner, period)
        session.run(rollup.PLANNING)
        rollup.read_tree(session)
        with open_balances(period) as (totals, read):
            if not totals["rows"]:
                raise Refused(f"{period}: Genius has no balances of this period; the trial balance was left as it is")
            rollup.check_loaded(session, period, rollup.load(session, "incoming", read()), totals, read)
        rollup.check_balanced(session, period, totals)
        strays = rollup.find_strays(session)
        report_strays(period, strays)
        rows = rollup.write(session, year, month)
        rollup.check_written(session, period)
        detail = {
            "balances": totals["rows"],
            "rows": rows,
            "job": job,
            "jobEndedAt": ended_at,
            **strays,
            "totals": {column: str(totals[name]) for name, column in rollup.COLUMNS.items()},
        }
        record(session, owner, "ledger", "succeeded", detail)
        session.run(
            "UPDATE closing_runs SET ledger_job = :job, ledger_job_ended_at = CAST(:ended_at AS timestamp)"
            " WHERE id = CAST(:id AS uuid)",
            job=job,
            ended_at=ended_at,
            id=run_id(owner),
        )
    return detail


def job_of(session, owner: str, period: str) -> tuple[str | None, str | None]:
    """The job whose result this run copies and when it ended, by Genius' clock; nothing for a run without a job.

    Raises Refused where the period holds the result of a job that ended later.
    """
    found = session.run(JOB_OF, id=run_id(owner))
    if not found:
        raise Refused(f"{period}: closing_runs has no row {run_id(owner)} of this closing; nothing was replaced")
    job, ended_at = found[0]
    later = session.run(LATER_JOB, period=period, ended_at=ended_at)
    if later:
        raise Refused(
            f"{period}: the trial balance holds the result of {later[0][0]}, which ended at {later[0][1]};"
            f" {job} ended before that, at {ended_at}; nothing was replaced"
        )
    return job, ended_at


def report_strays(period: str, strays: dict) -> None:
    """Say in the function's log which balances stand outside the tree's leaves; Refused where the settings say so."""
    said = rollup.strays_text(strays)
    if not said:
        return
    if settings.current().ledger_unknown_accounts == "refuse":
        raise Refused(f"{period}: {said}; LEDGER_UNKNOWN_ACCOUNTS is refuse; nothing was replaced")
    log.write("stray_postings", period=period, **strays)


def compute_metrics(owner: str, period: str) -> dict:
    """Call calculate_financial_metrics once for this owner, close the run's row, and return how it went.

    All in one transaction under a lock on the run's id, so that a lost reply never starts the calculation twice.
    """
    year, month = (int(part) for part in period.split("-"))
    identity = run_id(owner)
    with connected() as connection, transaction(connection):
        # A replacement of the period that is on its way comes before or after, never in the middle.
        connection.run(
            "SELECT pg_advisory_xact_lock_shared(:class, :key)", **{"class": LOCK_CLASS}, key=year * 100 + month
        )
        connection.run(
            "SELECT pg_advisory_xact_lock(hashtextextended(:id, :class))", id=identity, **{"class": LOCK_CLASS}
        )
        found = read_metrics_run(connection, identity)
        if not found:
            connection.run(
                "SELECT calculate_financial_metrics(CAST(:id AS uuid), CAST(:year AS int), CAST(:month AS int))",
                id=identity,
                year=year,
                month=month,
            )
            found = read_metrics_run(connection, identity)
        if not found:
            raise Refused(f"{period}: calculate_financial_metrics left no row {identity} in calculation_runs")
        if found["errors"] or found["status"] == "failed":
            raise Refused(
                f"{period}: the metrics run {identity} ended as {found['status']} with {found['errors']} errors"
            )
        record(connection, owner, "metrics", "succeeded", found)
    return found


def read_metrics_run(connection, identity: str) -> dict | None:
    rows = connection.run(
        "SELECT status, completed_steps, total_steps, error_count, warning_count FROM calculation_runs"
        " WHERE id = CAST(:id AS uuid)",
        id=identity,
    )
    names = ("status", "completedSteps", "totalSteps", "errors", "warnings")
    return {"run": identity, **dict(zip(names, rows[0]))} if rows else None


def ping() -> dict:
    """The server's version, read over a new connection."""
    with connected(PING_SECONDS, PING_SECONDS) as connection:
        return {"version": connection.run("SHOW server_version")[0][0]}
