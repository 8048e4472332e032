"""closing_runs, the closing log: what was begun for a date, how each step ended, and which dates are closed."""

from __future__ import annotations

import json
import time

from .errors import Refused
from .ledger import connected, run_id, transaction
from .plan import plan

SHOWN = "id, owner, closing_date, user_id, job, status, genius, ledger, metrics, message, detail, started_at, ended_at"
OF_DATE = f"SELECT {SHOWN} FROM closing_runs WHERE closing_date = CAST(:date AS date) ORDER BY started_at, id"
NEWEST = f"SELECT {SHOWN} FROM closing_runs ORDER BY started_at DESC, id LIMIT :count"
# The period is held by one closing at a time, so another row of it that still says running was killed.
END_KILLED = """
UPDATE closing_runs SET status = 'cancelled', message = 'killed before its end', ended_at = now()
 WHERE period = :period AND status = 'running' AND id <> CAST(:id AS uuid)"""
INSERT = """
INSERT INTO closing_runs (id, owner, closing_date, period, user_id, job, status)
VALUES (CAST(:id AS uuid), :owner, CAST(:date AS date), :period, :user_id, :job, 'running')
ON CONFLICT (id) DO NOTHING"""


def begin(owner: str, date: str, user_id: str, job: str | None) -> dict:
    """Write the run's row before anything is started; a second call finds it there. Returns {"run", "at"}."""
    with connected() as connection, transaction(connection):
        connection.run(END_KILLED, period=date[:7], id=run_id(owner))
        connection.run(INSERT, id=run_id(owner), owner=owner, date=date, period=date[:7], user_id=user_id, job=job)
    return {"run": run_id(owner), "at": time.time()}


def left_out(owner: str, date: str, resume: bool, first: str | None) -> list[str]:
    """What plan says of a date, from its earlier runs; Restate forgets a finished closing, the database does not."""
    with connected() as connection:
        earlier = [row for row in read(connection, OF_DATE, date=date) if row["owner"] != owner]
    try:
        return plan(earlier, resume, first)
    except ValueError as error:
        raise Refused(f"{date} {error}; nothing was started") from None


def record_job(job: str, outcome: str, detail: dict) -> int:
    """Write how a closing job ended to the row of the run that submitted it; returns how many rows there were."""
    with connected() as connection:
        connection.run(
            "UPDATE closing_runs SET genius = :outcome, detail = detail || CAST(:detail AS jsonb) WHERE job = :job",
            outcome=outcome,
            detail=json.dumps({"genius": detail}, default=str),
            job=job,
        )
        return connection.row_count


def resolve(job: str, outcome: str, who: str) -> dict:
    """Write a person's word on a job of which nobody else can know: who said what, and when."""
    word = {"as": outcome, "who": who, "at": time.time()}
    with connected() as connection:
        connection.run(
            "UPDATE closing_runs SET genius = :outcome, detail = detail || CAST(:word AS jsonb) WHERE job = :job",
            outcome=outcome,
            word=json.dumps({"resolved": word}),
            job=job,
        )
        return {"job": job, "rows": connection.row_count, **word}


def of_date(date: str) -> list[dict]:
    """A date's runs in the order of their start, as values that the journal can keep."""
    with connected() as connection:
        return read(connection, OF_DATE, date=date)


def newest(count: int) -> list[dict]:
    """The newest runs, newest first."""
    with connected() as connection:
        return read(connection, NEWEST, count=count)


def read(connection, query: str, **values) -> list[dict]:
    rows = connection.run(query, **values)
    names = [column["name"] for column in connection.columns]
    return json.loads(json.dumps([dict(zip(names, row)) for row in rows], default=str))
