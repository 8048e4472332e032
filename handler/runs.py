"""closing_runs, the closing log: what was begun for a date, how each step ended, and which dates are closed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable

from .errors import Refused
from .findings import Finding
from .plan import OPEN, plan
from .postgres import Session, connected, transaction
from .request import STEPS

NAMESPACE = uuid.UUID("6f6b8d0e-5f0b-5c6e-9d0a-806806806806")

SHOWN = "id, owner, closing_date, user_id, job, status, genius, ledger, metrics, message, detail, started_at, ended_at"
# A decision on a job whose run PostgreSQL has lost counts like a run without any other step.
OF_DATE = f"""
SELECT {SHOWN} FROM closing_runs WHERE closing_date = CAST(:date AS date)
UNION ALL
SELECT NULL, '', closing_date, NULL, job, 'decided', decision, 'pending', 'pending', 'decided by ' || who, '{{}}',
       decided_at, decided_at
  FROM closing_decisions WHERE closing_date = CAST(:date AS date) AND job NOT IN (
    SELECT job FROM closing_runs WHERE closing_date = CAST(:date AS date) AND job IS NOT NULL)
 ORDER BY started_at, id"""
NEWEST = f"SELECT {SHOWN} FROM closing_runs ORDER BY started_at DESC, id LIMIT :count"
# Only one closing holds a period at a time, so another row of it with the status running is of a killed closing.
KILLED = """
SELECT id FROM closing_runs WHERE period = :period AND status = 'running' AND id <> CAST(:id AS uuid) FOR UPDATE"""
INSERT = """
INSERT INTO closing_runs (id, owner, closing_date, period, user_id, job, status, started_at)
VALUES (CAST(:id AS uuid), :owner, CAST(:date AS date), :period, :user_id, :job, 'running',
        coalesce(least(CAST(:begun AS timestamptz), now()), now()))
ON CONFLICT (id) DO NOTHING"""
# An amount arrives as the text of a JSON number, because Python's floats are not exact.
INSERT_FINDINGS = """
INSERT INTO closing_findings (run_id, step, kind, account, branch, amounts)
SELECT CAST(:run AS uuid), :step, kind, account, branch, CAST(amounts AS jsonb)
  FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS found (kind text, account text, branch text, amounts text)"""
# The decision of a person is kept, whatever is found later.
RECORD_JOB = """
job = :job,
genius = coalesce((SELECT decision FROM closing_decisions WHERE job = :job), :outcome),
detail = detail || CAST(:detail AS jsonb)"""
DECIDE = """
INSERT INTO closing_decisions (job, decision, who, closing_date, period)
VALUES (:job, :decision, :who, CAST(:date AS date), :period) ON CONFLICT (job) DO NOTHING"""
ACCOUNTED = """
WITH asked AS (SELECT jsonb_array_elements_text(CAST(:jobs AS jsonb)) AS job)
SELECT job FROM closing_runs JOIN asked USING (job)
 WHERE genius NOT IN (SELECT jsonb_array_elements_text(CAST(:open AS jsonb)))
UNION SELECT job FROM closing_decisions JOIN asked USING (job)"""
# The first end that was written stays.
FINISH = """
message = CASE WHEN status = 'running' THEN :message ELSE message END,
ended_at = CASE WHEN status = 'running' THEN now() ELSE ended_at END,
status = CASE WHEN status = 'running' THEN :status ELSE status END"""


def run_id(owner: str) -> str:
    """Return the key of an owner's row in closing_runs, and the id of its metrics run."""
    return str(uuid.uuid5(NAMESPACE, owner))


def update(session: Session, changes: str, *, key: str = "id", **values) -> None:
    """Change the one row of closing_runs whose key, id or job, is in values; Refused for no row and for several."""
    cast = "CAST(:id AS uuid)" if key == "id" else f":{key}"
    session.run(f"UPDATE closing_runs SET {changes} WHERE {key} = {cast}", **values)
    if session.row_count != 1:
        raise Refused(
            f"closing_runs has {session.row_count} rows of {key} {values[key]}, expected one: PostgreSQL may have"
            " failed over to a copy without its last seconds; `inv history --env ENV` names the next command"
        )


def begin(owner: str, date: str, user_id: str, job: str | None) -> dict:
    """Write the run's row before anything is started; a second call finds it there. Returns {"run", "at"}."""
    with connected() as session, transaction(session):
        for (killed,) in session.run(KILLED, period=date[:7], id=run_id(owner)):
            changes = "status = 'cancelled', message = 'killed before its end', ended_at = now()"
            update(session, changes, id=str(killed))
        insert(session, owner, date, user_id, job)
    return {"run": run_id(owner), "at": time.time()}


def insert(session: Session, owner: str, date: str, user_id: str, job: str | None, begun: str | None = None) -> None:
    """Make a run's row unless it is there; begun: ISO 8601, if the run began earlier than now."""
    row = {"owner": owner, "date": date, "period": date[:7], "user_id": user_id, "job": job, "begun": begun}
    session.run(INSERT, id=run_id(owner), **row)


def left_out(owner: str, date: str, resume: bool, first: str | None) -> list[str]:
    """Return the steps of a date that a run leaves out; Restate forgets a finished closing, the database does not."""
    with connected() as session:
        earlier = [row for row in read(session, OF_DATE, date=date) if row["owner"] != owner]
    try:
        return plan(date, earlier, resume, first)
    except ValueError as error:
        raise Refused(f"{error}; nothing was started") from None


def record(session: Session, owner: str, step: str, outcome: str, detail: dict) -> None:
    """Write one step's outcome to the run's row, in the caller's transaction."""
    assert step in STEPS, step
    update(
        session,
        f"{step} = :outcome, detail = detail || CAST(:detail AS jsonb)",
        outcome=outcome,
        detail={step: {**detail, "at": time.time()}},
        id=run_id(owner),
    )


def record_step(owner: str, step: str, outcome: str, detail: dict) -> None:
    """Write one step's outcome to the run's row."""
    with connected() as session, transaction(session):
        record(session, owner, step, outcome, detail)


def record_findings(session: Session, owner: str, step: str, findings: Iterable[Finding]) -> None:
    """Replace the findings of an earlier try of a run's step by these, with their amounts."""
    session.run(
        "DELETE FROM closing_findings WHERE run_id = CAST(:run AS uuid) AND step = :step", run=run_id(owner), step=step
    )
    rows = [
        {"kind": one.kind, "account": account, "branch": branch, "amounts": amounts}
        for one in findings
        for account, branch, amounts in one.rows
    ]
    if rows:
        session.run(INSERT_FINDINGS, run=run_id(owner), step=step, rows=rows)


def record_job(job: str, outcome: str, detail: dict, closing: dict | None) -> str:
    """Write how a closing job ended to the row of the run that submitted it, and return the outcome that is kept.

    closing: {"owner", "date", "userId"} of that run, whose row is written anew if PostgreSQL has lost it; None for a
    job of another program, which has no row. A decision of a person on the job stays.
    """
    with connected() as session, transaction(session):
        if closing:
            # A row that is written anew keeps its start: the procedure that ran last decides which steps are done.
            begun = detail.get("startedAt")
            insert(session, closing["owner"], closing["date"], closing["userId"], job, begun)
            changed = {"job": job, "outcome": outcome, "detail": {"genius": detail}}
            update(session, RECORD_JOB, id=run_id(closing["owner"]), **changed)
        decided = session.run("SELECT decision FROM closing_decisions WHERE job = :job", job=job)
    return decided[0][0] if decided else outcome


def unaccounted(jobs: list[str]) -> list[str]:
    """Return those jobs whose outcome neither a run nor a decision has recorded, in the order given."""
    with connected() as session:
        known = {job for (job,) in session.run(ACCOUNTED, jobs=jobs, open=list(OPEN))}
    return [job for job in jobs if job not in known]


def resolve(job: str, outcome: str, who: str, date: str | None, period: str, known: str = "") -> dict:
    """Record the decision of a person on a job whose outcome nobody else can know, once; also for jobs without a run.

    known: the outcome of the run's step if Genius knows more than the person, such as never-started.
    Returns {"job", "as", "who", "at", "rows"}. Raises Refused if another decision is recorded.
    """
    with connected() as session, transaction(session):
        session.run(DECIDE, job=job, decision=outcome, who=who, date=date, period=period)
        ((decision, by, at),) = session.run(
            "SELECT decision, who, extract(epoch FROM decided_at)::float8 FROM closing_decisions WHERE job = :job",
            job=job,
        )
        if decision != outcome:
            raise Refused(f"{job} was decided as {decision} by {by}; a recorded decision is not overwritten")
        decided = {"as": decision, "who": by, "at": at}
        rows = session.run("SELECT FROM closing_runs WHERE job = :job", job=job)
        if rows:
            changes = "genius = :outcome, detail = detail || CAST(:decided AS jsonb)"
            update(session, changes, key="job", job=job, outcome=known or decision, decided={"resolved": decided})
        return {"job": job, "rows": len(rows), **decided}


def finish(owner: str, date: str, user_id: str, status: str, message: str) -> dict:
    """Write the run's end, unless an end is written already; return the row's {"status", "message", "logged"}.

    The row is made if it is not there. Raises Refused for a run that is to succeed although a step of its row has not.
    """
    with connected() as session, transaction(session):
        insert(session, owner, date, user_id, None)
        if status == "succeeded":
            check_steps(session, owner)
        update(session, FINISH, status=status, message=message, id=run_id(owner))
        ((ended, reason, logged),) = session.run(
            "SELECT status, message, end_logged FROM closing_runs WHERE id = CAST(:id AS uuid)", id=run_id(owner)
        )
    return {"status": ended, "message": reason, "logged": logged}


def mark_logged(owner: str) -> None:
    """Remember that the event of the run's end is in the log, so that a repeated step does not write it again."""
    with connected() as session, transaction(session):
        update(session, "end_logged = true", id=run_id(owner))


def check_steps(session: Session, owner: str) -> None:
    rows = session.run(
        f"SELECT {', '.join(STEPS)} FROM closing_runs WHERE id = CAST(:id AS uuid) FOR UPDATE", id=run_id(owner)
    )
    open_steps = [
        f"{step} {outcome}"
        for row in rows
        for step, outcome in zip(STEPS, row)
        if outcome not in ("succeeded", "reused", "skipped")
    ]
    if open_steps:
        raise Refused(
            f"closing_runs has {', '.join(open_steps)} for run {run_id(owner)}: PostgreSQL may have failed over to a"
            " copy without its last seconds; `inv history --env ENV` names the next command"
        )


def of_date(date: str) -> list[dict]:
    """Return a date's runs in the order of their start, as values that the journal can keep."""
    with connected() as session:
        return read(session, OF_DATE, date=date)


def newest(count: int) -> list[dict]:
    """Return the newest runs, newest first."""
    with connected() as session:
        return read(session, NEWEST, count=count)


def read(session: Session, query: str, **values) -> list[dict]:
    rows = session.run(query, **values)
    names = [column["name"] for column in session.columns]
    return json.loads(json.dumps([dict(zip(names, row)) for row in rows], default=str))
