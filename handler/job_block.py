"""The PL/SQL block of a closing job and the names of jobs: every value that becomes part of their text is checked here.

Plain values in, text out; genius.py sends it to Oracle.
"""

from __future__ import annotations

import hashlib
import re

from . import settings
from .errors import Refused
from .request import PERIOD, USER_ID

# A name of one of our jobs, short enough for the name of its start mark.
JOB = r"[A-Z0-9_]{1,28}"
# A procedure status in GENIUS_SUCCESS_STATUS.
STATUS = r"[A-Za-z0-9_.-]{1,30}"

# The job checks for other jobs itself: another one could start between a check from outside and the procedure.
# It writes its end as schedule {job}_R, "outcome status", because a job of 11.2 has no channel for an OUT value and its
# log can be purged; an error of that changes nothing. CREATE_SCHEDULE commits, so the procedure's work is ended before
# it. ORA-01013 is a stopped job, whose outcome is unknown.
JOB_ACTION = """
DECLARE
  v_status  VARCHAR2(4000);
  v_message VARCHAR2(4000);
  v_other   VARCHAR2(30);
  v_end     VARCHAR2(240);
  e_exists  EXCEPTION;
  PRAGMA EXCEPTION_INIT(e_exists, -27477);
BEGIN
  BEGIN
    DBMS_SCHEDULER.CREATE_SCHEDULE(
      schedule_name => '{job}_S', repeat_interval => 'FREQ=YEARLY', comments => 'start mark of {job}');
  EXCEPTION
    WHEN e_exists THEN
      raise_application_error(-20808, '{job} has started once already');
  END;
  SELECT MIN(job_name) INTO v_other FROM user_scheduler_jobs
   WHERE state = 'RUNNING' AND job_name <> '{job}'
     AND (job_name LIKE '{long_name}' ESCAPE '\\' OR job_name LIKE '{short_name}' ESCAPE '\\');
  IF v_other IS NOT NULL THEN
    raise_application_error(-20807, v_other || ' is running; {job} has not called the procedure');
  END IF;
  BEGIN
    Package_Rpt_Ac_Fi806.get_master_data('{year}', '{month}', '{month}', '{user_id}', v_status, v_message);
  EXCEPTION
    WHEN OTHERS THEN
      IF SQLCODE <> -1013 THEN
        ROLLBACK;
        v_end := 'failed ORA' || SQLCODE;
        BEGIN
          DBMS_SCHEDULER.CREATE_SCHEDULE(
            schedule_name => '{job}_R', repeat_interval => 'FREQ=YEARLY', comments => v_end);
        EXCEPTION
          WHEN OTHERS THEN
            NULL;
        END;
      END IF;
      RAISE;
  END;
  IF v_status IS NULL OR v_status {failure} THEN
    ROLLBACK;
    v_end := 'failed ' || SUBSTR(v_status, 1, 50);
  ELSE
    COMMIT;
    v_end := 'succeeded ' || SUBSTR(v_status, 1, 50);
  END IF;
  BEGIN
    DBMS_SCHEDULER.CREATE_SCHEDULE(
      schedule_name => '{job}_R', repeat_interval => 'FREQ=YEARLY', comments => v_end);
  EXCEPTION
    WHEN OTHERS THEN
      NULL;
  END;
  IF v_end LIKE 'failed%' THEN
    raise_application_error(-20806, NVL(v_message, {no_message}));
  END IF;
END;"""
NO_MESSAGE = "'the procedure gave no message'"
NO_MESSAGE_STRICT = (
    "'the procedure gave no message and the status ' || SUBSTR(NVL(v_status, 'NULL'), 1, 50)"
    " || ', which GENIUS_SUCCESS_STATUS does not list'"
)


def checked_text(value: str, form: str) -> str:
    """A value that is about to become part of an SQL text; raises Refused unless it matches the form."""
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise Refused(f"{value!r:.60} cannot be part of SQL: expected {form}")
    return value


def year_and_month(period: str) -> tuple[str, str]:
    year, month = checked_text(period, PERIOD).split("-")
    return year, month


def job_name(period: str, owner: str) -> str:
    """The name that only this owner's closing of a period has: at most 30 bytes, upper case."""
    digest = hashlib.sha256(owner.encode()).hexdigest()[:12].upper()
    return f"GNS_{''.join(year_and_month(period))}_{digest}"


def names_of_period(period: str) -> dict[str, str]:
    """LIKE patterns for the names of a period's closing jobs: ours and those of the older service."""
    year, month = year_and_month(period)
    return {"long_name": f"GNS\\_{year}{month}\\_%", "short_name": f"GNS\\_{year[2:]}{month}\\_%"}


def job_action(period: str, job: str, user_id: str) -> str:
    """The block that the job runs; every value in it is checked here, because a job takes no binds."""
    year, month = year_and_month(period)
    checked_text(job, JOB)
    checked_text(user_id, USER_ID)
    listed = settings.current().genius_success_status
    return JOB_ACTION.format(
        job=job,
        year=year,
        month=month,
        user_id=user_id,
        failure=f"NOT IN ({', '.join(map(quoted_status, listed))})" if listed else "= '0'",
        no_message=NO_MESSAGE_STRICT if listed else NO_MESSAGE,
        **names_of_period(period),
    )


def quoted_status(status: str) -> str:
    return f"'{checked_text(status, STATUS)}'"
