"""The readiness event: the facts of Genius that the first closing depends on. It only reads.

Each fact is one query. What the user may not read, or what takes too long, is a fact of its own: "unreadable".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from . import genius, settings
from .errors import Refused, Unavailable
from .oracle import connected, driver, first_line

CONNECT_SECONDS, CALL_SECONDS = 5, 5
# After this time no other fact is read, so that the doctor still gets the answer.
FACTS_SECONDS = 15
# The number of balances that are read to measure how long reading takes.
SAMPLE = 1000

EXPIRY = "SELECT account_status, expiry_date FROM user_users"
ARGUMENTS = f"""
SELECT owner, overload, data_type, in_out FROM all_arguments
 WHERE package_name = '{genius.PACKAGE}' AND object_name = 'GET_MASTER_DATA' AND data_level = 0
 ORDER BY owner, overload, position"""
JOB_QUEUE = "SELECT value FROM v$parameter WHERE name = 'job_queue_processes'"
SCHEDULER = """
SELECT attribute_name, value FROM all_scheduler_global_attribute
 WHERE attribute_name IN ('LOG_HISTORY', 'SCHEDULER_DISABLED')"""


def read() -> dict[str, dict]:
    """Return {fact: {"value": …} or {"unreadable": the error in one line}}; {} if Genius cannot be reached.

    The deep ping reports the reason.
    """
    found: dict[str, dict] = {}
    try:
        with connected(CALL_SECONDS, connect_seconds=CONNECT_SECONDS) as connection, connection.cursor() as cursor:
            until = time.monotonic() + FACTS_SECONDS
            for name, fact in FACTS.items():
                if time.monotonic() > until:
                    found[name] = {"unreadable": f"Genius is slow: all facts before this took {FACTS_SECONDS:g} s"}
                    continue
                try:
                    found[name] = {"value": fact(cursor)}
                except driver().Error as error:
                    found[name] = {"unreadable": first_line(error)}
    except (Refused, Unavailable):
        return found
    return found


def login(cursor) -> dict:
    """Return {"warning": what the login warned of, such as ORA-28002, "account": its status, "expires": the date on
    which the password expires}, each of them None if there is none."""
    warning = cursor.connection.warning
    status, date = cursor.execute(EXPIRY).fetchone()
    return {
        "warning": first_line(warning) if warning else None,
        "account": status,
        "expires": date.date().isoformat() if date else None,
    }


def arguments(cursor) -> list[list]:
    """Return the arguments of each get_master_data that the user sees: [[[data type, direction], …], …]."""
    found: dict[tuple, list] = {}
    for owner, overload, kind, direction in cursor.execute(ARGUMENTS):
        found.setdefault((owner, overload), []).append([kind, direction])
    return list(found.values())


def job_queue(cursor) -> int | None:
    """Return JOB_QUEUE_PROCESSES, None if the view has no such row."""
    found = cursor.execute(JOB_QUEUE).fetchone()
    return int(found[0]) if found else None


def scheduler(cursor) -> dict[str, str | None]:
    """Return the scheduler's attributes: LOG_HISTORY in days, and SCHEDULER_DISABLED if it is set."""
    return dict(cursor.execute(SCHEDULER).fetchall())


def current_period(back: int = 0) -> str:
    """Return the period of the date that a closing scheduled for now would close; back: how many months earlier."""
    now = settings.current()
    day = datetime.now(now.schedule_zone).date() + timedelta(days=now.closing_day_offset)
    for _ in range(back):
        day = day.replace(day=1) - timedelta(days=1)
    return f"{day:%Y-%m}"


def live(cursor) -> dict:
    """Return the jobs of the current period that run or can still start: {"period", "jobs"}."""
    period = current_period()
    names = cursor.execute(genius.LIVE_JOBS, genius.names_of_period(period) | {"job": "NONE"}).fetchall()
    jobs = [name for (name,) in names if genius.read_mark(cursor, name) != genius.GIVEN_UP]
    return {"period": period, "jobs": jobs}


def balances(cursor) -> dict:
    """Return the last period's number of open balances, and how long reading SAMPLE of them took:
    {"period", "count", "read", "seconds"}."""
    period = current_period(back=1)
    year, month = genius.year_and_month(period)
    count, *_ = cursor.execute(genius.TOTALS, year=year, month=month).fetchone()
    begin = time.monotonic()
    cursor.arraysize = SAMPLE
    read = cursor.execute(genius.BALANCES, year=year, month=month).fetchmany(SAMPLE)
    return {"period": period, "count": int(count), "read": len(read), "seconds": round(time.monotonic() - begin, 3)}


FACTS: dict[str, Callable] = {
    "login": login,
    "arguments": arguments,
    "job queue": job_queue,
    "scheduler": scheduler,
    "jobs": live,
    "balances": balances,
}
