"""The ledger step and the metrics step: a period's trial balance and its metrics, right or left as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from . import log, rollup, settings
from .ahead import ahead
from .errors import Refused
from .findings import Finding
from .postgres import LOCK_CLASS, Session, connected, transaction
from .runs import record, record_findings, run_id, update

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
 WHERE period = :period AND ledger_job_ended_at > CAST(:ended_at AS timestamptz)
 ORDER BY ledger_job_ended_at DESC LIMIT 1"""
REPLACED = """
ledger_at = clock_timestamp(), ledger_job = :job, ledger_job_ended_at = CAST(:ended_at AS timestamptz)"""
# The run whose balances the trial balance of a period holds.
NEWEST_LEDGER = """
SELECT id, closing_date FROM closing_runs WHERE period = :period AND ledger_at IS NOT NULL
 ORDER BY ledger_at DESC LIMIT 1"""
OWN_RUN = "SELECT ledger, closing_date FROM closing_runs WHERE id = CAST(:id AS uuid) FOR UPDATE"


def replace_trial_balance(owner: str, period: str, open_balances: Callable[[str], AbstractContextManager]) -> dict:
    """Replace a period's trial balance by Genius' balances, rolled up along the account tree, or leave it unchanged.

    open_balances: see genius.open_balances. Genius is read with the period's lock held, so that of two
    replacements the later one has also read later: a closing without a job of its own copies Genius' balances
    of that moment, which no recorded job can be newer than, and a zombie cannot bring an old reading back.
    Returns {"balances", "rows", "totals": {column: text}, "job", "jobEndedAt", "findings"}. Raises Refused for a later
    job's result and for findings that refuse the ledger, which are recorded even so.
    """
    year, month = (int(part) for part in period.split("-"))
    with connected() as session, transaction(session):
        session.run("SELECT pg_advisory_xact_lock(:class, :key)", **{"class": LOCK_CLASS}, key=year * 100 + month)
        job, ended_at = job_of(session, owner, period)
        session.run(rollup.PLANNING)
        session.run("SAVEPOINT as_it_was")
        tree, findings = rollup.read_tree(session)
        rows, wrong = 0, []
        with open_balances(period) as source, ahead(*source) as reading:
            copied = rollup.load(session, "balances", reading.rows(), tree)
            checked = rollup.check_balances(session, settings.current())
            # Written before Genius has summed its balances: it does so meanwhile, and what it finds undoes the writing.
            if not refusals([*findings, *checked]):
                rollup.roll_up(session, tree)
                rows, wrong = rollup.replace(session, year, month)
            totals = reading.result()
            findings += [*rollup.check_totals(session, copied, totals, source.read), *checked, *wrong]
        if refusals(findings):
            session.run("ROLLBACK TO as_it_was")
        record_findings(session, owner, "ledger", findings)
        reports = [one.report() for one in findings]
        detail = {
            "balances": totals["rows"],
            "rows": rows,
            "job": job,
            "jobEndedAt": ended_at,
            "findings": reports,
            "totals": {column: str(totals[name]) for name, column in rollup.COLUMNS.items()},
        }
        if refusals(findings):
            record(session, owner, "ledger", "failed", {"findings": reports})
        else:
            record(session, owner, "ledger", "succeeded", detail)
            update(session, REPLACED, job=job, ended_at=ended_at, id=run_id(owner))
    if findings:
        log.write("ledger_findings", period=period, run=run_id(owner), findings=reports)
    if refusals(findings):
        raise Refused(f"{period}: {'; '.join(refusals(findings))}; nothing was replaced; {amounts_of(owner)}")
    return detail


def refusals(findings: list[Finding]) -> list[str]:
    return [one.text for one in findings if one.refused]


def amounts_of(owner: str) -> str:
    return f"closing_findings has the amounts, of run {run_id(owner)}"


def job_of(session: Session, owner: str, period: str) -> tuple[str | None, str | None]:
    """Return the job whose result this run copies and when it ended, by Genius' clock; nothing for a run without a job.

    Raises Refused if the period holds the result of a job that ended later.
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


def compute_metrics(owner: str, period: str) -> dict:
    """Call calculate_financial_metrics once for this owner, close the run's row, and return how it went.

    All in one transaction under a lock on the run's id, so that a lost reply never starts the calculation twice.
    Returns {"run", "status", "completedSteps", "totalSteps", "errors", "warnings", "findings"}. Raises Refused for a
    trial balance that is not this run's and for a run of the function that did not complete: then all that it did is
    rolled back, and the reasons are recorded in a transaction of their own.
    """
    year, month = (int(part) for part in period.split("-"))
    identity = run_id(owner)
    found: dict = {}
    try:
        with connected() as session, transaction(session):
            # A replacement of the period that is on its way comes before or after, never in the middle.
            session.run(
                "SELECT pg_advisory_xact_lock_shared(:class, :key)", **{"class": LOCK_CLASS}, key=year * 100 + month
            )
            check_own_ledger(session, identity, period)
            found = read_metrics_run(session, identity)
            if not found:
                calculate(session, identity, year, month)
                found = read_metrics_run(session, identity)
            check_metrics(period, identity, found)
            findings = metrics_findings(found)
            record_findings(session, owner, "metrics", findings)
            detail = metrics_report(found, findings)
            record(session, owner, "metrics", "succeeded", detail)
    except Refused as error:
        record_failed_metrics(owner, str(error), found)
        raise
    if findings:
        log.write("metrics_findings", period=period, run=identity, findings=detail["findings"])
    return detail


def check_own_ledger(session: Session, identity: str, period: str) -> None:
    """Lock this run's row and raise Refused unless the period's trial balance is the one that this run is for."""
    own = session.run(OWN_RUN, id=identity)
    if not own:
        raise Refused(f"{period}: closing_runs has no row {identity} of this closing; no metrics were computed")
    ((ledger, date),) = own
    # A closing that left the ledger out as asked takes the trial balance as it is.
    if ledger == "skipped":
        return
    newest = session.run(NEWEST_LEDGER, period=period)
    ours = newest and (str(newest[0][0]) == identity if ledger == "succeeded" else newest[0][1] == date)
    if ledger not in ("succeeded", "reused") or not ours:
        holds = f"that of the closing of {newest[0][1]}, run {newest[0][0]}" if newest else "of no recorded closing"
        raise Refused(
            f"{period}: the ledger step of run {identity} is {ledger} and the trial balance is {holds}; no metrics were"
            f" computed; repeat the ledger with `inv rerun --env ENV --date {date} --from ledger`"
        )


def calculate(session: Session, identity: str, year: int, month: int) -> None:
    """Call the report's function, which may need public beside its own schema."""
    schema = settings.current().pg_schema
    session.run(f'SET LOCAL search_path = "{schema}", public')
    session.run(
        f'SELECT "{schema}".calculate_financial_metrics(CAST(:id AS uuid), CAST(:year AS int), CAST(:month AS int))',
        id=identity,
        year=year,
        month=month,
    )
    session.run(f'SET LOCAL search_path = "{schema}"')


def read_metrics_run(session: Session, identity: str) -> dict:
    rows = session.run(
        "SELECT status, completed_steps, total_steps, error_count, warning_count, CAST(metadata AS text)"
        " FROM calculation_runs WHERE id = CAST(:id AS uuid)",
        id=identity,
    )
    names = ("status", "completedSteps", "totalSteps", "errors", "warnings", "metadata")
    return {"run": identity, **dict(zip(names, rows[0]))} if rows else {}


def check_metrics(period: str, identity: str, found: dict) -> None:
    """Raise Refused unless the function has completed all its steps without an error."""
    if not found:
        raise Refused(f"{period}: calculate_financial_metrics left no row {identity} in calculation_runs")
    if found["status"] != "completed" or found["errors"] or found["completedSteps"] != found["totalSteps"]:
        raise Refused(
            f"{period}: the metrics run {identity} ended as {found['status']} with {found['completedSteps']} of"
            f" {found['totalSteps']} steps, {found['errors']} errors and {found['warnings']} warnings; its metrics were"
            " rolled back; closing_findings has its metadata"
        )


def metrics_findings(found: dict) -> list[Finding]:
    if not found["warnings"]:
        return []
    text = f"{found['warnings']} warnings of the metrics run; calculation_runs has them, as metadata of {found['run']}"
    return [Finding("metrics-warning", found["warnings"], text, False, [(None, None, found["metadata"])])]


def metrics_report(found: dict, findings: list[Finding]) -> dict:
    """Return what the journal gets of a metrics run: all but its metadata, which may have amounts."""
    return {key: value for key, value in found.items() if key != "metadata"} | {
        "findings": [one.report() for one in findings]
    }


def record_failed_metrics(owner: str, reason: str, found: dict) -> None:
    """Record why the metrics were refused, after the roll-back; the reason itself is what the caller reports."""
    failed = Finding("metrics-failed", 1, reason, True, [(None, None, found.get("metadata") or "{}")])
    with contextlib.suppress(Refused), connected() as session, transaction(session):
        record_findings(session, owner, "metrics", [failed])
        record(session, owner, "metrics", "failed", metrics_report(found, [failed]))
