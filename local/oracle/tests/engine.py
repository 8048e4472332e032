"""Helpers of the engine's tests: a database in a folder of its own, and short ways to ask it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from local.oracle.database import Database, Session
from local.oracle.model import Bind, Result

CREATE_JOB = """BEGIN DBMS_SCHEDULER.CREATE_JOB(job_name => :job, job_type => 'PLSQL_BLOCK', job_action => :action,
  enabled => TRUE, auto_drop => FALSE, comments => :comments); END;"""
TYPES = {str: "VARCHAR2", bool: "BOOLEAN", bytes: "RAW"}
BOUND = 8.0


def opened(folder: Path, **options) -> Database:
    """Open a database under a folder, with a procedure that takes no time unless asked for."""
    options = {"procedure_seconds": 0.0, **options}
    return Database(folder, service="GENIUS", users={"FIN": "secret"}, **options)


def run(session: Session, sql: str, *values: object, cancel: threading.Event | None = None) -> Result:
    """Run one statement with binds of the types that the values have."""
    binds = [Bind(f"B{i}", TYPES.get(type(v), "NUMBER"), v, 4000) for i, v in enumerate(values)]
    return session.execute(sql, binds, cancel or threading.Event())


def rows(session: Session, sql: str, *values: object) -> list[tuple]:
    """Return all rows of a query."""
    return list(run(session, sql, *values).rows)


def value(session: Session, sql: str, *values: object) -> object:
    """Return the first column of a query's only row."""
    ((found, *_),) = rows(session, sql, *values)
    return found


def eventually(read, wanted=lambda found: found):
    """Read until the answer is wanted, and return it; fails after BOUND seconds."""
    until = time.monotonic() + BOUND
    while not wanted(found := read()):
        assert time.monotonic() < until, f"still {found!r}"
        time.sleep(0.01)
    return found


def job_state(session: Session, name: str) -> str | None:
    """Return the state of a job, None if there is no such job."""
    found = rows(session, "SELECT state FROM user_scheduler_jobs WHERE job_name = :1", name)
    return found[0][0] if found else None


def outcome(session: Session, name: str) -> tuple:
    """Return (status, error#, additional_info) of a job's last run, once it is there."""
    text = """SELECT status, error#, additional_info FROM user_scheduler_job_run_details WHERE job_name = :1
      ORDER BY log_id"""
    return eventually(lambda: rows(session, text, name))[-1]


def procedure_events(folder: Path, event: str = "start") -> list[dict]:
    """Return the starts, or ends, in the procedure's log."""
    found = map(json.loads, (folder / "procedure.log").read_text().splitlines())
    return [line for line in found if line["event"] == event]
