"""The test job: a job with the guard of a closing job, which never calls the closing procedure.

Oracle compiles the whole block inside the job, the call included, so the job fails as a closing job would if a right
comes from a role only. The call itself is behind a condition that is never true.
"""

from __future__ import annotations

import contextlib
import time

from . import genius, settings
from .oracle import connected, driver

# No period's name pattern matches it, so no closing and no guard sees the job. The milliseconds since 1970 follow it.
PREFIX = "GNS_TEST_"
# The block's guard searches running jobs of a period that no closing can have.
PERIOD, DATE = "2000-01", "2000-01-01"
WAIT_SECONDS, POLL_SECONDS = 12.0, 0.25
LEFT_OVER_SECONDS = 3600
DROP_JOB = "BEGIN DBMS_SCHEDULER.DROP_JOB(job_name => :name, force => TRUE); END;"
DROP_SCHEDULE = "BEGIN DBMS_SCHEDULER.DROP_SCHEDULE(schedule_name => :name, force => TRUE); END;"
OURS = f"""
SELECT job_name, 'job' FROM user_scheduler_jobs WHERE job_name LIKE '{PREFIX.replace("_", "!_")}%' ESCAPE '!'
UNION ALL SELECT schedule_name, 'schedule' FROM user_scheduler_schedules
 WHERE schedule_name LIKE '{PREFIX.replace("_", "!_")}%' ESCAPE '!'"""


def run(seconds: float = WAIT_SECONDS) -> dict:
    """Submit the test job, wait for its end, and drop it and its marks.

    Returns genius.read_job's answer with {"job", "seconds", "left"}; left: the names that could not be dropped. A test
    job that an earlier call left behind is dropped, too.
    """
    begin = time.monotonic()
    job = f"{PREFIX}{int(time.time() * 1000)}"
    with connected() as connection, connection.cursor() as cursor:
        drop(cursor, older_than=time.time() - LEFT_OVER_SECONDS)
        cursor.execute("ALTER SESSION SET NLS_LANGUAGE = 'AMERICAN' NLS_TERRITORY = 'AMERICA'")
        about = genius.about(DATE, "doctor", "test")
        cursor.execute(genius.CREATE_JOB, job=job, action=action(job), comments=about)
        try:
            while not (seen := genius.read_job(cursor, job))["runs"] and time.monotonic() - begin < seconds:
                time.sleep(POLL_SECONDS)
        finally:
            left = drop(cursor, job)
    return {"job": job, **seen, "seconds": round(time.monotonic() - begin, 3), "left": left}


def action(job: str) -> str:
    """Return the block of a closing job whose call of the procedure is compiled and never reached."""
    listed = settings.current().genius_success_status
    status = genius.quoted_status(listed[0] if listed else "1")
    template = genius.JOB_ACTION.replace(genius.CALL, f"IF 1 = 0 THEN {genius.CALL} END IF; v_status := {status};")
    return genius.job_action(PERIOD, job, DATE, "doctor", "test", template)


def drop(cursor, job: str = "", older_than: float = 0) -> list[str]:
    """Drop a test job and its marks, or those of all test jobs before a time; return the names that are still there."""

    def wanted(name: str) -> bool:
        if job:
            return name in (job, f"{job}_S", f"{job}_R")
        started = name.removeprefix(PREFIX).partition("_")[0]
        return started.isdigit() and int(started) < older_than * 1000

    for name, kind in cursor.execute(OURS).fetchall():
        if wanted(name):
            # Somebody else may drop it meanwhile; what stays is reported.
            with contextlib.suppress(driver().DatabaseError):
                cursor.execute(DROP_JOB if kind == "job" else DROP_SCHEDULE, name=name)
    return [name for name, _ in cursor.execute(OURS).fetchall() if wanted(name)]
