"""Genius, the old Oracle database: the closing job and the open balances. The only module that knows Oracle."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from datetime import timezone
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from . import settings
from .errors import Refused, Unavailable, clean
from .job_status import GIVEN_UP
from .oracle import connected, driver, exact_text, first_line
from .request import PERIOD, USER_ID

PING_SECONDS = 5
FETCH_SECONDS = 300

# A name of one of our jobs, short enough for the name of its start mark.
JOB = r"[A-Z0-9_]{1,28}"
# A procedure status in GENIUS_SUCCESS_STATUS.
STATUS = r"[A-Za-z0-9_.-]{1,30}"

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

# The block that a closing job runs.
JOB_ACTION = "".join(
    line
    for line in (Path(__file__).parent / "closing_job.sql").read_text().splitlines(keepends=True)
    if not line.startswith("--")
)
# Its one call of the closing procedure, which a test job leaves out.
CALL = "Package_Rpt_Ac_Fi806.get_master_data('{year}', '{month}', '{month}', '{user_id}', v_status, v_message);"
# The comments of a job and of its start mark: which closing they belong to.
ABOUT = re.compile(r"finance-closing (\d{4}-\d{2}-\d{2}), by ([A-Za-z0-9_.-]{1,30}), ([A-Za-z0-9_]{1,80})")
STARTED = "started"
NO_MESSAGE = "'the procedure gave no message'"
NO_MESSAGE_STRICT = (
    "'the procedure gave no message and the status ' || SUBSTR(NVL(v_status, 'NULL'), 1, 50)"
    " || ', which GENIUS_SUCCESS_STATUS does not list'"
)

STOP_JOB = "BEGIN DBMS_SCHEDULER.STOP_JOB(job_name => :job, force => FALSE); END;"

NAMED = "(job_name LIKE :long_name ESCAPE '\\' OR job_name LIKE :short_name ESCAPE '\\')"
JOBS_OF_PERIOD = f"SELECT job_name, comments FROM user_scheduler_jobs WHERE {NAMED} ORDER BY job_name"
JOB_STATE = "SELECT state, enabled FROM user_scheduler_jobs WHERE job_name = :job"
# The start mark {job}_S and the recorded end {job}_R.
MARK = "SELECT comments FROM user_scheduler_schedules WHERE schedule_name = :mark"
MARKS_OF_PERIOD = """
SELECT schedule_name, comments FROM user_scheduler_schedules
 WHERE schedule_name LIKE :pattern ESCAPE '\\' AND comments IS NOT NULL ORDER BY schedule_name"""
TAKE_MARK = """
BEGIN
  DBMS_SCHEDULER.CREATE_SCHEDULE(schedule_name => :name, repeat_interval => 'FREQ=YEARLY', comments => :comments);
END;"""
DISABLE_JOB = "BEGIN DBMS_SCHEDULER.DISABLE(name => :job, force => TRUE); END;"
# Times in UTC: times of the database's own zone cannot be compared across a change of its offset, and a named zone
# ends in ORA-01805 or DPY-3022 if client and database have different time-zone files.
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
# In a job a role's rights do not count, so EXECUTE must be the user's own; its own package needs no grant. SELECT is
# used in a session, in which a role's rights count: ALL_TAB_PRIVS has those, too.
RIGHTS = f"""
SELECT 'CREATE JOB' FROM session_privs WHERE privilege IN ('CREATE JOB', 'CREATE ANY JOB')
UNION SELECT 'EXECUTE' FROM all_tab_privs
 WHERE table_name = '{PACKAGE}' AND privilege = 'EXECUTE' AND grantee IN (USER, 'PUBLIC')
UNION SELECT 'EXECUTE' FROM user_sys_privs WHERE privilege = 'EXECUTE ANY PROCEDURE'
UNION SELECT 'EXECUTE' FROM user_objects WHERE object_name = '{PACKAGE}' AND object_type = 'PACKAGE'
UNION SELECT 'SELECT' FROM all_tab_privs WHERE table_name = 'AC_GLOPENBALANCE' AND privilege = 'SELECT'
UNION SELECT 'SELECT' FROM session_privs WHERE privilege = 'SELECT ANY TABLE'
UNION SELECT 'SELECT' FROM user_objects WHERE object_name = 'AC_GLOPENBALANCE'"""

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
    """The balances and movements of one account of one branch in a period; amounts in IDR, as exact text."""

    account: str
    description: str | None
    branch: str
    beginning_debit: str | None
    beginning_credit: str | None
    debit: str | None
    credit: str | None
    ending_debit: str | None
    ending_credit: str | None


def checked_text(value: str, form: str) -> str:
    """Return a value that is about to become part of an SQL text; raises Refused unless it matches the form."""
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise Refused(f"{value!r:.60} cannot be part of SQL: expected {form}")
    return value


def year_and_month(period: str) -> tuple[str, str]:
    year, month = checked_text(period, PERIOD).split("-")
    return year, month


def job_name(period: str, owner: str) -> str:
    """Return the name that only this owner's closing of a period has: at most 30 bytes, upper case."""
    digest = hashlib.sha256(owner.encode()).hexdigest()[:12].upper()
    return f"GNS_{''.join(year_and_month(period))}_{digest}"


def names_of_period(period: str) -> dict[str, str]:
    """Return LIKE patterns for the names of a period's closing jobs: ours and those of the older service."""
    year, month = year_and_month(period)
    return {"long_name": f"GNS\\_{year}{month}\\_%", "short_name": f"GNS\\_{year[2:]}{month}\\_%"}


def about(date: str, user_id: str, owner: str) -> str:
    """Return the comments of a closing job: the closing that it belongs to."""
    return checked_text(f"finance-closing {date}, by {user_id}, {owner}", ABOUT.pattern)


def marker(job: str) -> str:
    """Return the beginning of each error that a job's own guard raises."""
    return f"[finance-closing {job}]"


def job_action(period: str, job: str, date: str, user_id: str, owner: str, template: str = "") -> str:
    """Return the block that the job runs; every value in it is checked here, because a job takes no binds.

    template: empty for JOB_ACTION.
    """
    year, month = year_and_month(period)
    checked_text(job, JOB)
    checked_text(user_id, USER_ID)
    listed = settings.current().genius_success_status
    return (template or JOB_ACTION).format(
        job=job,
        marker=marker(job),
        about=about(date, user_id, owner),
        year=year,
        month=month,
        user_id=user_id,
        failure=f"NOT IN ({', '.join(map(quoted_status, listed))})" if listed else "= '0'",
        no_message=NO_MESSAGE_STRICT if listed else NO_MESSAGE,
        **names_of_period(period),
    )


def quoted_status(status: str) -> str:
    return f"'{checked_text(status, STATUS)}'"


def ping() -> dict:
    """Log in anew and return {"version", "user", "characterSet", "rights", "connectSeconds"}.

    rights: those of CREATE JOB, EXECUTE on the package and SELECT on the open balances that the user has.
    """
    begin = time.monotonic()
    with connected(PING_SECONDS, connect_seconds=PING_SECONDS) as connection, connection.cursor() as cursor:
        connected_in = round(time.monotonic() - begin, 3)
        (character_set,) = cursor.execute(CHARACTER_SET).fetchone()
        rights = sorted(right for (right,) in cursor.execute(RIGHTS))
        known = {"version": connection.version, "user": connection.username, "connectSeconds": connected_in}
        return known | {"characterSet": character_set, "rights": rights}


def submit(period: str, owner: str, date: str, user_id: str) -> dict:
    """Create the owner's closing job and return {"job", "at"}; a second call finds the job of the first.

    A lost reply raises and the caller tries again: names are used once and kept, so ORA-27477 can only mean
    that this owner has submitted already.
    """
    job = job_name(period, owner)
    action = job_action(period, job, date, user_id, owner)
    with connected() as connection, connection.cursor() as cursor:
        cursor.execute("ALTER SESSION SET NLS_LANGUAGE = 'AMERICAN' NLS_TERRITORY = 'AMERICA'")
        if not created(cursor, CREATE_JOB, job=job, action=action, comments=about(date, user_id, owner)):
            seen = read_job(cursor, job)
            if not seen["state"] and not seen["runs"]:
                raise Refused(
                    f"{job}: Genius reports that the name is taken, but lists neither the job nor a run of it;"
                    " check USER_OBJECTS before anything is started again"
                )
    return {"job": job, "at": time.time()}


def created(cursor, statement: str, **values) -> bool:
    """Create a job or a schedule; False if the name, which both kinds share, is taken."""
    try:
        cursor.execute(statement, **values)
    except driver().DatabaseError as error:
        if error.args[0].full_code != "ORA-27477":
            raise
        return False
    return True


def reserve_name(job: str) -> bool:
    """Reserve a job's name so that the job can never be created; False if the job exists.

    A closing that died while it submitted may have an attempt that is still on its way, on a function that
    was frozen or whose connection hangs. Jobs and schedules share one name space, so Oracle decides which of the two
    came first, and a job whose name was reserved has certainly never started.
    """
    with connected() as connection, connection.cursor() as cursor:
        created(cursor, TAKE_MARK, name=job, comments="this closing never started")
        seen = read_job(cursor, job)
        # A job that has started and was dropped leaves its name free, but not its mark.
        return not seen["state"] and not seen["runs"] and seen["mark"] != STARTED


def give_up(job: str) -> str:
    """Take the start mark of a job that has not started, so that it never will; return whose mark it is.

    Returns "given up", also if an earlier call took it, or "started" if the job's own guard was first. The job keeps
    its name and is disabled.
    """
    with connected() as connection, connection.cursor() as cursor:
        created(cursor, TAKE_MARK, name=f"{job}_S", comments=f"{GIVEN_UP} {job}")
        mark = read_mark(cursor, job)
        if mark == GIVEN_UP:
            # The job can be gone, and a start that comes first is refused by the mark.
            with contextlib.suppress(driver().DatabaseError):
                cursor.execute(DISABLE_JOB, job=job)
        return mark


def stop_job(job: str) -> dict:
    """Ask Oracle to stop a running job (force FALSE) and return the poll after it; the job may end later."""
    with connected() as connection, connection.cursor() as cursor:
        try:
            cursor.execute(STOP_JOB, job=job)
        except driver().DatabaseError as error:
            raise Refused(f"{job} was not stopped: {first_line(error)}") from error
    return poll_job(job)


def period_jobs(period: str) -> list[dict]:
    """Return all closing jobs of a period that Genius has or that left a start mark there, by name.

    Returns [{"job", "ours", "date", "userId", "owner", "comments", "state", "mark", "runs", "end"}]; date, userId and
    owner are None for a job of another program.
    """
    with connected() as connection, connection.cursor() as cursor:
        jobs = dict(cursor.execute(JOBS_OF_PERIOD, names_of_period(period)).fetchall())
        pattern = names_of_period(period)["long_name"] + "\\_S"
        for mark, comments in cursor.execute(MARKS_OF_PERIOD, pattern=pattern).fetchall():
            # A dropped job is known by its mark.
            jobs.setdefault(mark.removesuffix("_S"), comments)
        return [read_period_job(cursor, job, clean(jobs[job] or "")) for job in sorted(jobs)]


def read_period_job(cursor, job: str, comments: str) -> dict:
    known = ABOUT.search(comments)
    date, user_id, owner = known.groups() if known else (None, None, None)
    ours = {"ours": known is not None, "date": date, "userId": user_id, "owner": owner}
    return {"job": job, **ours, "comments": comments, **read_job(cursor, job)}


def read_mark(cursor, job: str) -> str | None:
    """Return the start mark of a job: "started", "given up", or None."""
    found = cursor.execute(MARK, mark=f"{job}_S").fetchone()
    if not found:
        return None
    return GIVEN_UP if (found[0] or "").startswith(GIVEN_UP) else STARTED


def read_job(cursor, job: str) -> dict:
    """Return what the dictionary has now: {"state", "mark", "end", "runs": [{"status", "error", "guard", …}]}.

    guard: the error was raised by the job's own guard. mark: see read_mark. end: what the job wrote about its own end,
    {"outcome": "succeeded" | "failed", "status": the procedure's OUT status}, or None.
    """
    before = cursor.execute(JOB_STATE, job=job).fetchone()
    runs = cursor.execute(RUNS_OF_JOB, job=job).fetchall()
    end = cursor.execute(MARK, mark=f"{job}_R").fetchone()
    mark = read_mark(cursor, job)
    # The run's row can appear between the two reads; the job is read last so that a state is never the older one.
    after = cursor.execute(JOB_STATE, job=job).fetchone()
    return {
        "state": (after or before or (None,))[0],
        "mark": mark,
        "end": read_end(end[0]) if end else None,
        "runs": [
            {
                "status": status,
                "error": int(number or 0),
                "guard": marker(job) in (message or ""),
                "message": clean((message or "").replace(f"{marker(job)} ", "")),
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
    """Return a moment of SYS_EXTRACT_UTC, which has no zone of its own, as text with its zone."""
    return moment.replace(tzinfo=timezone.utc).isoformat() if moment is not None else None


def poll_job(job: str) -> dict:
    """Poll a job once: {"at", "reachable": True, "state", "mark", "end", "runs"}.

    {"at", "reachable": True, "refused"} if the answer is an error, and {"at", "reachable": False, "error"} if nothing
    answered. Neither is a failure of the closing: the caller goes on waiting.
    """
    try:
        with connected() as connection, connection.cursor() as cursor:
            return {"at": time.time(), "reachable": True, **read_job(cursor, job)}
    except Unavailable as error:
        return {"at": time.time(), "reachable": False, "error": str(error)}
    except Refused as error:
        return {"at": time.time(), "reachable": True, "refused": str(error)}


def live_jobs(period: str, job: str) -> list[str]:
    """Return the names of the period's other closing jobs that run or can still start; not those given up."""
    with connected() as connection, connection.cursor() as cursor:
        names = [name for (name,) in cursor.execute(LIVE_JOBS, names_of_period(period) | {"job": job})]
        return [name for name in names if read_mark(cursor, name) != GIVEN_UP]


class OpenBalances(NamedTuple):
    """The functions that read a period's balances of one read-consistent moment, one call at a time."""

    # Returns an iterator that fetches as it goes; called again it reads the same moment again.
    read: Callable[[], Iterator[Balance]]
    # Returns the control totals, {"rows": int, "BEGINNING_DEBIT": Decimal, …}.
    totals: Callable[[], dict]
    # Ends the call of another thread with an error.
    cancel: Callable[[], None]


@contextlib.contextmanager
def open_balances(period: str) -> Iterator[OpenBalances]:
    """Open a period's balances for one read-consistent moment, that of this call."""
    year, month = year_and_month(period)
    with connected(FETCH_SECONDS) as connection, connection.cursor() as cursor, connection.cursor() as rows:
        # prefetchrows stays at its default: by the driver's documentation thick mode copies prefetched rows twice.
        rows.arraysize = 2000
        rows.outputtypehandler = exact_text
        cursor.execute("SET TRANSACTION READ ONLY")

        def totals() -> dict:
            count, *sums = cursor.execute(TOTALS, year=year, month=month).fetchone()
            return {"rows": int(count)} | {name: value or Decimal(0) for name, value in zip(AMOUNTS, sums)}

        def read() -> Iterator[Balance]:
            return map(Balance._make, rows.execute(BALANCES, year=year, month=month))

        yield OpenBalances(read, totals, connection.cancel)
