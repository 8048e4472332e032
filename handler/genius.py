"""Genius, the old Oracle database: the closing job and the open balances. The only module that knows Oracle."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timezone
from decimal import Decimal
from typing import NamedTuple

from . import client, deadline, settings
from .errors import Refused, Unavailable, clean
from .job_block import job_action, job_name, names_of_period, year_and_month

CONNECT_SECONDS = 10
PING_SECONDS = 5
CALL_SECONDS = 30
FETCH_SECONDS = 300
# Retrying these cannot help, and a wrong password that is tried again locks the account.
LOGIN_REFUSED = {"ORA-01017", "ORA-28000", "ORA-28001", "ORA-01045"}

AMOUNTS = (
    "BEGINNING_DEBIT",
    "BEGINNING_CREDIT",
    "DEBIT_AMOUNT",
    "CREDIT_AMOUNT",
    "ENDING_DEBIT",
    "ENDING_CREDIT",
)

CREATE_JOB = """
BEGIN
  DBMS_SCHEDULER.CREATE_JOB(
    job_name => :job, job_type => 'PLSQL_BLOCK', job_action => :action,
    enabled => TRUE, auto_drop => FALSE, comments => :comments);
END;"""

# A schedule of the job's own name.
RESERVE_NAME = """
BEGIN
  DBMS_SCHEDULER.CREATE_SCHEDULE(
    schedule_name => :name, repeat_interval => 'FREQ=YEARLY', comments => 'this closing never started');
END;"""
STOP_JOB = "BEGIN DBMS_SCHEDULER.STOP_JOB(job_name => :job, force => FALSE); END;"

NAMED = "(job_name LIKE :long_name ESCAPE '\\' OR job_name LIKE :short_name ESCAPE '\\')"
JOBS_OF_PERIOD = f"SELECT job_name, comments FROM user_scheduler_jobs WHERE {NAMED} ORDER BY job_name"
JOB_STATE = "SELECT state, enabled FROM user_scheduler_jobs WHERE job_name = :job"
JOB_END = "SELECT comments FROM user_scheduler_schedules WHERE schedule_name = :mark"
# Times in UTC: times of the database's own zone cannot be compared across a change of its offset, and a named zone
# ends in ORA-01805 or DPY-3022 where client and database have other time-zone files.
RUNS_OF_JOB = """
SELECT status, error# AS error_number, additional_info, SYS_EXTRACT_UTC(actual_start_date), run_duration,
       SYS_EXTRACT_UTC(log_date)
  FROM user_scheduler_job_run_details WHERE job_name = :job ORDER BY log_id"""
LIVE_JOBS = f"""
SELECT job_name FROM user_scheduler_jobs
 WHERE job_name <> :job AND {NAMED} AND state IN ('RUNNING', 'SCHEDULED', 'RETRY SCHEDULED', 'CHAIN_STALLED')
 ORDER BY job_name"""

CHARACTER_SET = "SELECT value FROM nls_database_parameters WHERE parameter = 'NLS_CHARACTERSET'"
PACKAGE = "PACKAGE_RPT_AC_FI806"
# In a job a role's rights do not count, so EXECUTE has to be the user's own; its own package needs no grant.
RIGHTS = f"""
SELECT 'CREATE JOB' FROM session_privs WHERE privilege IN ('CREATE JOB', 'CREATE ANY JOB')
UNION SELECT 'EXECUTE' FROM all_tab_privs
 WHERE table_name = '{PACKAGE}' AND privilege = 'EXECUTE' AND grantee IN (USER, 'PUBLIC')
UNION SELECT 'EXECUTE' FROM user_sys_privs WHERE privilege = 'EXECUTE ANY PROCEDURE'
UNION SELECT 'EXECUTE' FROM user_objects WHERE object_name = '{PACKAGE}' AND object_type = 'PACKAGE'"""

OF_PERIOD = "glyear = :year AND glmonth = :month"
# A CHAR column pads its values with blanks, which PostgreSQL's chart and branches do not have.
KEYS = "RTRIM(coacode), RTRIM(branch)"
TOTALS = f"""
SELECT COUNT(*), {", ".join(f"SUM({column})" for column in AMOUNTS)} FROM (
  SELECT {", ".join(f"SUM({column}) AS {column}" for column in AMOUNTS)}
    FROM acpdb.ac_glopenbalance WHERE {OF_PERIOD} GROUP BY {KEYS})"""
BALANCES = f"""
SELECT RTRIM(coacode), MAX(description), RTRIM(branch), {", ".join(f"SUM({column})" for column in AMOUNTS)}
  FROM acpdb.ac_glopenbalance WHERE {OF_PERIOD} GROUP BY {KEYS}"""


class Balance(NamedTuple):
    """What one account of one branch had and moved in a period; amounts in IDR."""

    account: str
    description: str | None
    branch: str
    beginning_debit: Decimal
    beginning_credit: Decimal
    debit: Decimal
    credit: Decimal
    ending_debit: Decimal
    ending_credit: Decimal


@functools.lru_cache(maxsize=1)
def driver():
    """python-oracledb, imported at the first need of Oracle and initialised as the settings say; raises Refused."""
    import oracledb

    oracledb.defaults.fetch_decimals = True
    oracledb.defaults.fetch_lobs = False
    if settings.current().oracle_client == "thick":
        # No fall back to thin: that would end in DPY-3010 at midnight.
        try:
            oracledb.init_oracle_client()
        except oracledb.Error as error:
            raise Refused(client.cause(str(error), client.libraries(client.folders()))) from error
        print(f"Oracle client {client_version()}, thick mode", file=sys.stderr, flush=True)
    return oracledb


def client_version() -> str:
    import oracledb

    return ".".join(map(str, oracledb.clientversion()))


def check_client() -> dict:
    """How this process reaches Oracle: {"mode", "version", "libraries", "error"}; initialises the client."""
    mode = settings.current().oracle_client
    seen = {"mode": mode, "version": None, "error": None, "libraries": sorted(client.libraries(client.folders()))}
    try:
        driver()
    except Refused as error:
        return seen | {"error": str(error)}
    return seen | ({"version": client_version()} if mode == "thick" else {})


def connect_descriptor(connect_seconds: float) -> str:
    """The connect string with time-outs in it, in the form that thin and thick mode both take."""
    params = driver().ConnectParams()
    params.parse_connect_string(settings.current().oracle_connect_string)
    # A NAT gateway drops flows that are idle for 350 s.
    params.set(tcp_connect_timeout=connect_seconds, expire_time=2)
    return params.get_connect_string()


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def call_milliseconds(seconds: float) -> int:
    """Return the time limit of one call, within the rest of the invocation; 0 would mean no limit."""
    return max(1, int(min(seconds, deadline.left()) * 1000))


@contextlib.contextmanager
def connected(call_seconds: float = CALL_SECONDS, *, connect_seconds: float = CONNECT_SECONDS):
    """One connection for one step; raises Refused for a refused login, Unavailable for a dead line and any error that
    the block does not handle itself."""
    oracledb = driver()
    now = settings.current()
    try:
        descriptor = connect_descriptor(connect_seconds)
        connection = oracledb.connect(user=now.oracle_user, password=now.oracle_password, dsn=descriptor)
    except oracledb.Error as error:
        code = error.args[0].full_code
        if code.startswith(("DPI-", "DPY-2", "DPY-3")):
            raise Refused(f"the Oracle driver cannot connect: {client.explain(first_line(error))}") from error
        if code in LOGIN_REFUSED:
            reason = client.explain(first_line(error))
            raise Refused(f"Genius refused the login of {now.oracle_user}: {reason}") from error
        raise Unavailable(f"Genius at {now.oracle_connect_string}: {client.explain(first_line(error))}") from error
    try:
        connection.call_timeout = call_milliseconds(call_seconds)
        connection.outputtypehandler = keep_undecodable
        yield connection
    except (oracledb.Error, OSError) as error:
        raise Unavailable(f"Genius: {first_line(error)}") from error
    finally:
        with contextlib.suppress(oracledb.Error):
            connection.close()


def keep_undecodable(cursor, column):
    """Read text whose bytes are not valid UTF-8 as lone surrogates, so that our own checks can name its account."""
    oracledb = driver()
    if column.type_code not in (oracledb.DB_TYPE_VARCHAR, oracledb.DB_TYPE_CHAR):
        return None
    return cursor.var(
        column.type_code, column.internal_size, arraysize=cursor.arraysize, encoding_errors="surrogateescape"
    )


def ping() -> dict:
    """Over a new connection {"version", "characterSet", "rights"}; rights: which a closing job has of CREATE JOB and
    EXECUTE on the package."""
    with connected(PING_SECONDS, connect_seconds=PING_SECONDS) as connection, connection.cursor() as cursor:
        (character_set,) = cursor.execute(CHARACTER_SET).fetchone()
        rights = sorted(right for (right,) in cursor.execute(RIGHTS))
        return {"version": connection.version, "characterSet": character_set, "rights": rights}


def submit(period: str, owner: str, user_id: str, comments: str) -> dict:
    """Create the owner's closing job and return {"job", "at"}; a second call finds the job of the first.

    A lost reply raises and the caller tries again: names are used once and kept, so ORA-27477 can only mean
    that this owner has submitted already.
    """
    job = job_name(period, owner)
    action = job_action(period, job, user_id)
    with connected() as connection, connection.cursor() as cursor:
        cursor.execute("ALTER SESSION SET NLS_LANGUAGE = 'AMERICAN' NLS_TERRITORY = 'AMERICA'")
        try:
            cursor.execute(CREATE_JOB, job=job, action=action, comments=comments[:240])
        except driver().DatabaseError as error:
            if error.args[0].full_code != "ORA-27477":
                raise
            seen = read_job(cursor, job)
            if not seen["state"] and not seen["runs"]:
                raise Refused(
                    f"{job}: Genius reports that the name is taken, but lists neither the job nor a run of it;"
                    " check USER_OBJECTS before anything is started again"
                ) from error
    return {"job": job, "at": time.time()}


def reserve_name(job: str) -> bool:
    """Reserve a job's name so that the job can never be created; False if the job exists.

    A closing that died while it submitted may have an attempt that is still on its way, on a function that
    was frozen or whose connection hangs. Jobs and schedules share one name space, so Oracle decides which of the two
    came first, and a job whose name was reserved has certainly never started.
    """
    with connected() as connection, connection.cursor() as cursor:
        try:
            cursor.execute(RESERVE_NAME, name=job)
        except driver().DatabaseError as error:
            if error.args[0].full_code != "ORA-27477":
                raise
            seen = read_job(cursor, job)
            # Without a job behind it the name was taken by an earlier call of this function, whose reply was lost.
            return not seen["state"] and not seen["runs"]
    return True


def stop_job(job: str) -> dict:
    """Ask Oracle to stop a running job (force FALSE) and return the poll after it; the job may end later."""
    with connected() as connection, connection.cursor() as cursor:
        try:
            cursor.execute(STOP_JOB, job=job)
        except driver().DatabaseError as error:
            raise Refused(f"{job} was not stopped: {first_line(error)}") from error
    return poll_job(job)


def period_jobs(period: str) -> list[dict]:
    """All closing jobs of a period that Genius still lists: {"job", "state", "comments", "runs"}, by name."""
    with connected() as connection, connection.cursor() as cursor:
        jobs = cursor.execute(JOBS_OF_PERIOD, names_of_period(period)).fetchall()
        return [{"job": job, "comments": clean(comments or ""), **read_job(cursor, job)} for job, comments in jobs]


def read_job(cursor, job: str) -> dict:
    """Return what the dictionary has now: {"state": str | None, "runs": [{"status", "error", "message", …}], "end"}.

    end: what the job wrote about its own end, {"outcome": "succeeded" | "failed", "status": the procedure's OUT
    status}, or None.
    """
    before = cursor.execute(JOB_STATE, job=job).fetchone()
    runs = cursor.execute(RUNS_OF_JOB, job=job).fetchall()
    mark = cursor.execute(JOB_END, mark=f"{job}_R").fetchone()
    # The run's row can appear between the two reads; the job is read last so that a state is never the older one.
    after = cursor.execute(JOB_STATE, job=job).fetchone()
    return {
        "state": (after or before or (None,))[0],
        "end": read_end(mark[0]) if mark else None,
        "runs": [
            {
                "status": status,
                "error": int(number or 0),
                "message": clean(message or ""),
                "startedAt": iso(started),
                "seconds": duration.total_seconds() if duration is not None else None,
                "endedAt": iso(logged),
            }
            for status, number, message, started, duration, logged in runs
        ],
    }


def read_end(comments: str | None) -> dict | None:
    outcome, _, status = clean(comments or "").partition(" ")
    return {"outcome": outcome, "status": status} if outcome in ("succeeded", "failed") else None


def iso(moment) -> str | None:
    """A moment of SYS_EXTRACT_UTC, which has no zone of its own, as text with its zone."""
    return moment.replace(tzinfo=timezone.utc).isoformat() if moment is not None else None


def poll_job(job: str) -> dict:
    """Poll a job once and return a value: {"at", "reachable", "state", "runs"} or {"at", "reachable", "error"}.

    Oracle not answering is not a failure of the closing: the caller goes on waiting.
    """
    try:
        with connected() as connection, connection.cursor() as cursor:
            return {"at": time.time(), "reachable": True, **read_job(cursor, job)}
    except (Unavailable, Refused) as error:
        return {"at": time.time(), "reachable": False, "error": str(error)}


def live_jobs(period: str, job: str) -> list[str]:
    """The names of the period's other closing jobs that run or still may."""
    with connected() as connection, connection.cursor() as cursor:
        cursor.execute(LIVE_JOBS, names_of_period(period) | {"job": job})
        return [name for (name,) in cursor]


@contextlib.contextmanager
def open_balances(period: str) -> Iterator[tuple[dict, Callable[[], Iterator[Balance]]]]:
    """A period's control totals and its balances, both of one read-consistent moment.

    Yields ({"rows": int, "BEGINNING_DEBIT": Decimal, …}, function): the function reads the balances and returns an
    iterator that fetches as it goes; called again it reads the same moment again.
    """
    year, month = year_and_month(period)
    with connected(FETCH_SECONDS) as connection, connection.cursor() as cursor:
        cursor.arraysize = 2000
        cursor.prefetchrows = 2001
        cursor.execute("SET TRANSACTION READ ONLY")
        count, *sums = cursor.execute(TOTALS, year=year, month=month).fetchone()
        totals = {"rows": int(count)} | {name: value or Decimal(0) for name, value in zip(AMOUNTS, sums)}
        yield totals, lambda: map(Balance._make, cursor.execute(BALANCES, year=year, month=month))
