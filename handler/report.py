"""The report and reconcile events: what closings have left of a period in PostgreSQL, and whether Genius still agrees.

They only read, each in one read-consistent transaction. Every amount travels as the text that PostgreSQL writes.
If there is nothing to report, the answer is {"ok": False, "error": one line}, and the function does not fail.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import date, timedelta

from . import genius, rollup, runs, settings
from .ahead import ahead
from .balances import COLUMNS
from .errors import Refused, Unavailable, clean
from .ledger import NEWEST_LEDGER
from .postgres import Session, connected, transaction
from .request import check_period, excerpt
from .schema import COLUMNS as CATALOGUE
from .schema import TABLE_RIGHTS

# Lambda refuses an answer of more than 6 MB.
PAGE_ROWS, PAGE_BYTES = 40_000, 4_500_000
LONGEST_NAME = 300
# How many earlier periods of the metrics, places of a finding and differences an answer has at most.
EARLIER, PLACES, DIFFERENCES = 12, 200, 500

SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
RUNNING = """
SELECT closing_date, id FROM closing_runs WHERE period = :period AND status = 'running'
 ORDER BY started_at DESC LIMIT 1"""
# The newest ones, and the one whose balances the trial balance holds.
RUNS = f"""
SELECT {runs.SHOWN} FROM closing_runs
 WHERE id = CAST(:run AS uuid)
    OR id IN (SELECT id FROM closing_runs WHERE period = :period ORDER BY started_at DESC, id LIMIT 500)
 ORDER BY started_at DESC, id"""
LEDGER_AT = "SELECT CAST(ledger_at AS text), ledger_job FROM closing_runs WHERE id = CAST(:id AS uuid)"
# A balance of an account that the chart does not know has no parent, either.
TOTALS = f"""
SELECT count(*), {
    ", ".join(f"CAST(coalesce(sum({one}) FILTER (WHERE parent_code IS NULL), 0) AS text)" for one in COLUMNS.values())
}
  FROM legacy_trial_balances LEFT JOIN legacy_chart_of_accounts chart ON chart.code = chart_of_account_code
 WHERE year = :year AND month = :month"""
PLACES_FOUND = f"""
SELECT kind, account, branch, CAST(amounts AS text) FROM (
  SELECT *, row_number() OVER (PARTITION BY kind ORDER BY id) AS place
    FROM closing_findings WHERE run_id = CAST(:run AS uuid) AND step = :step) found
 WHERE place <= {PLACES} ORDER BY kind, place"""
WARNINGS = "SELECT CAST(metadata AS text) FROM calculation_runs WHERE id = CAST(:run AS uuid)"
METRICS = """
SELECT year, month, CAST(metric AS text), CAST(value AS text) FROM financial_metrics
 WHERE year * 12 + month BETWEEN :first AND :last ORDER BY metric, year, month"""
KEYS = "chart_of_account_code AS account, branch_code AS branch"
AFTER = "(chart_of_account_code, branch_code) > (:account, :branch)"
# An account that only the previous period has is in the report, too: its balance is zero now.
PAGE = f"""
WITH own AS (
  SELECT {KEYS}, description, start_balance, movement_debit, movement_credit, end_balance
    FROM legacy_trial_balances WHERE year = :year AND month = :month AND {AFTER}),
before AS (
  SELECT {KEYS}, description, end_balance AS previous
    FROM legacy_trial_balances WHERE year = :before_year AND month = :before_month AND {AFTER})
SELECT account, branch, coalesce(chart.name, own.description, before.description, ''), parent_code,
       chart.code IS NOT NULL, {
    ", ".join(
        f"CAST(coalesce({one}, 0) AS text)"
        for one in ("start_balance", "movement_debit", "movement_credit", "end_balance")
    )
}, CAST(previous AS text)
  FROM own FULL JOIN before USING (account, branch) LEFT JOIN legacy_chart_of_accounts chart ON chart.code = account
 ORDER BY account, branch LIMIT CAST(:count AS bigint)"""

SUMMED = ", ".join(f"sum({one}) AS {one}" for one in COLUMNS.values())
# The postings to an account itself: its balance without those of its children.
OWN_BALANCES = f"""
SELECT account, branch, {
    ", ".join(f"coalesce(written.{one}, 0) - coalesce(below.{one}, 0) AS {one}" for one in COLUMNS.values())
}
  FROM (SELECT {KEYS}, {", ".join(COLUMNS.values())} FROM legacy_trial_balances
         WHERE year = :year AND month = :month) written
  FULL JOIN (
    SELECT parent_code AS account, branch_code AS branch, {SUMMED}
      FROM legacy_trial_balances JOIN legacy_chart_of_accounts chart ON chart.code = chart_of_account_code
     WHERE year = :year AND month = :month AND parent_code IS NOT NULL GROUP BY 1, 2) below
  USING (account, branch)"""
BOTH_SIDES = [f"coalesce({side}.{one}, 0)" for side in ("genius", "own") for one in COLUMNS.values()]
DIFFERENCE = f"""
SELECT count(*) OVER (), account, branch, {", ".join(f"CAST({one} AS text)" for one in BOTH_SIDES)}
  FROM incoming genius FULL JOIN ({OWN_BALANCES}) own USING (account, branch)
 WHERE ({", ".join(BOTH_SIDES[:6])}) IS DISTINCT FROM ({", ".join(BOTH_SIDES[6:])})
 ORDER BY account, branch LIMIT {DIFFERENCES}"""


def answer(asked: object) -> dict:
    """Answer a report event, {"period"} for the header or {"period", "moment", "after"} for a page of the balances.

    moment: that of the header; after: the account and the branch where the last page ended, ["", ""] for the first.
    Returns the dictionary of header or page with "ok", or {"ok": False, "error"}.
    """
    try:
        period, moment, after = checked(asked)
        with connected() as session, read_consistent(session):
            found = find_run(session, period)
            if moment is None:
                return {"ok": True, **header(session, period, found)}
            if found["moment"] != moment:
                raise ValueError(
                    f"a closing has replaced the trial balance of {period} or of the period before it while the report"
                    " was read; run it again"
                )
            return {"ok": True, **page(session, period, after)}
    except (ValueError, Refused, Unavailable) as error:
        return {"ok": False, "error": str(error)}


def checked(asked: object) -> tuple[str, str | None, tuple[str, str]]:
    """Return the period, moment and place of a report event; raises ValueError in one line."""
    given = asked if isinstance(asked, dict) else {}
    period, moment, after = given.get("period"), given.get("moment"), given.get("after", ["", ""])
    check_period(period)
    if not isinstance(moment, str | None):
        raise ValueError(f"moment {excerpt(moment)}: expected the text that the header has")
    if not isinstance(after, list) or len(after) != 2 or not all(isinstance(one, str) for one in after):
        raise ValueError(f"after {excerpt(after)}: expected an account and a branch")
    return period, moment, (after[0], after[1])


@contextlib.contextmanager
def read_consistent(session: Session) -> Iterator[None]:
    """Run a block in one transaction whose statements all see the database of one moment."""
    with transaction(session):
        session.run(SNAPSHOT)
        yield


def find_run(session: Session, period: str) -> dict:
    """Return the run whose balances the trial balance of a period holds: {"run", "date", "ledgerAt", "job", "moment"}.

    moment: a text that changes whenever the balances of the period or of the previous one change.
    Raises ValueError for a period in progress and for one that no closing has loaded.
    """
    running = session.run(RUNNING, period=period)
    if running:
        raise ValueError(
            f"{period} is in progress: the closing of {running[0][0]}, run {running[0][1]}, has not ended; see"
            f" `inv next --env ENV --date {running[0][0]}`"
        )
    found = [session.run(NEWEST_LEDGER, period=one) for one in (period, previous(period))]
    if not found[0]:
        raise ValueError(
            f"nothing is closed yet: no closing has loaded the trial balance of {period}; see `inv history --env ENV`"
        )
    ((run, day),) = found[0]
    moments = [session.run(LEDGER_AT, id=str(rows[0][0]))[0] for rows in found if rows]
    return {
        "run": str(run),
        "date": f"{day}",
        "ledgerAt": moments[0][0],
        "job": moments[0][1],
        "moment": f"{run} {' '.join(at for at, _ in moments)}",
    }


def previous(period: str) -> str:
    return f"{date.fromisoformat(f'{period}-01') - timedelta(days=1):%Y-%m}"


def months(period: str) -> tuple[int, int]:
    return int(period[:4]), int(period[5:])


def header(session: Session, period: str, found: dict) -> dict:
    """Return all of a report but the balances: {"version", "period", "previous", "zone", "moment", "run", "job",
    "ledgerAt", "totals", "findings", "warnings", "metrics", "runs"}.

    previous: the period before, None if it has no balances; job: the one whose result the trial balance holds; totals:
    {"genius", "postgres"}, each {column: text} with "rows"; findings: see describe; runs: rows of closing_runs, the
    newest first; run: the id of one of them.
    """
    all_runs = runs.read(session, RUNS, period=period, run=found["run"])
    own = next(row for row in all_runs if row["id"] == found["run"])
    metrics_run = next((row for row in all_runs if row["metrics"] == "succeeded"), None)
    before = previous(period)
    return {
        "version": os.environ.get("AWS_LAMBDA_FUNCTION_VERSION"),
        "period": period,
        "previous": before if totals_of(session, before)["rows"] else None,
        "zone": str(settings.current().schedule_zone),
        **{name: found[name] for name in ("moment", "run", "job", "ledgerAt")},
        "totals": {"genius": genius_totals(own), "postgres": totals_of(session, period)},
        "findings": describe(session, own, "ledger")
        + (describe(session, metrics_run, "metrics") if metrics_run else []),
        "warnings": warnings(session, metrics_run["id"]) if metrics_run else [],
        "metrics": metrics(session, period),
        "runs": [{**row, "message": row["message"][:LONGEST_NAME], "detail": times(row["detail"])} for row in all_runs],
    }


def totals_of(session: Session, period: str) -> dict:
    year, month = months(period)
    ((rows, *sums),) = session.run(TOTALS, year=year, month=month)
    return {"rows": rows, **dict(zip(COLUMNS.values(), sums))}


def genius_totals(row: dict) -> dict:
    """Return the control totals that Genius had when a run read it, and how many rows that run wrote."""
    detail = row["detail"].get("ledger", {})
    return {"balances": detail.get("balances"), "rows": detail.get("rows"), **detail.get("totals", {})}


def describe(session: Session, row: dict, step: str) -> list[dict]:
    """Return the findings of a run's step: {"kind", "count", "text", "refused", "places"}.

    places: the first accounts and branches with their amounts, [account, branch, {column: text}].
    """
    places: dict[str, list] = {}
    for kind, account, branch, amounts in session.run(PLACES_FOUND, run=row["id"], step=step):
        places.setdefault(kind, []).append([account, branch, json.loads(amounts, parse_float=str, parse_int=str)])
    found = row["detail"].get(step, {}).get("findings", [])
    # Findings of the metrics have no places: warnings() has their texts.
    return [{**one, "places": places.get(one["kind"], []) if step == "ledger" else []} for one in found]


def warnings(session: Session, run: str) -> list[str]:
    """Return the warnings in the metadata of a metrics run, [] if it has no such list."""
    rows = session.run(WARNINGS, run=run)
    metadata = json.loads(rows[0][0] or "{}") if rows else {}
    found = metadata.get("warnings", []) if isinstance(metadata, dict) else []
    return [clean(str(one))[:LONGEST_NAME] for one in found] if isinstance(found, list) else []


def metrics(session: Session, period: str) -> dict:
    """Return {"values": [[period, metric, text or None]], "error"}, of the period and of EARLIER ones before it.

    error: why there are none, if the report's table of metrics is not as expected. The closing does not need it.
    """
    schema = settings.current().pg_schema
    columns = {column for table, column, _ in session.run(CATALOGUE, schema=schema) if table == "financial_metrics"}
    missing = {"year", "month", "metric", "value"} - columns
    if missing:
        return {"values": [], "error": f"{schema}.financial_metrics has no column {', '.join(sorted(missing))}"}
    if ("financial_metrics", "SELECT") not in {tuple(row) for row in session.run(TABLE_RIGHTS, schema=schema)}:
        ((user,),) = session.run("SELECT session_user")
        error = f"the schema's owner must run: GRANT SELECT ON {schema}.financial_metrics TO {user}"
        return {"values": [], "error": error}
    year, month = months(period)
    last = year * 12 + month
    rows = session.run(METRICS, first=last - EARLIER, last=last)
    return {"values": [[f"{y:04}-{m:02}", metric, value] for y, m, metric, value in rows], "error": None}


def times(detail: dict) -> dict:
    """Return only the end of each step from a row's detail."""
    return {step: {"at": one["at"]} for step, one in detail.items() if isinstance(one, dict) and "at" in one}


def page(session: Session, period: str, after: tuple[str, str]) -> dict:
    """Return the rows after a place: {"accounts", "rows", "next"}, next None at the end.

    accounts: {code: [name, parent code or None, whether the chart has it]} of the page; rows: [account, branch, start,
    debit, credit, end, previous end or None], the amounts as text, a balance as debit minus credit.
    """
    (year, month), (before_year, before_month) = months(period), months(previous(period))
    given = {"year": year, "month": month, "before_year": before_year, "before_month": before_month}
    found = session.run(PAGE, **given, account=after[0], branch=after[1], count=PAGE_ROWS)
    accounts: dict[str, list] = {}
    rows: list[list] = []
    size = 0
    for account, branch, name, parent, known, *amounts in found:
        about = [] if account in accounts else [name[:LONGEST_NAME], parent, known]
        row = [account, branch, *amounts]
        size += len(json.dumps([row, about, account]))
        if rows and size > PAGE_BYTES:
            break
        if about:
            accounts[account] = about
        rows.append(row)
    whole = len(rows) == len(found) < PAGE_ROWS
    return {"accounts": accounts, "rows": rows, "next": None if whole else rows[-1][:2]}


def reconcile(asked: object, open_balances=genius.open_balances) -> dict:
    """Compare Genius' balances of now with the trial balance, and change nothing.

    asked: {"period"}. Returns {"ok": True, "run", "date", "ledgerAt", "balances", "count", "differences"}, at most
    DIFFERENCES of count: [account, branch, {column: [text of Genius, text of PostgreSQL]}], or {"ok": False, "error"}.
    """
    try:
        period, *_ = checked(asked)
        with connected() as session, read_consistent(session):
            found = find_run(session, period)
            session.run(rollup.PLANNING)
            with open_balances(period) as source, ahead(*source) as reading:
                copied = rollup.load(session, "incoming", reading.rows(), {})
                totals = reading.result()
            # From here on PostgreSQL itself refuses a change; the temporary table ends with the transaction.
            session.run("SET TRANSACTION READ ONLY")
            check_read(session, copied, totals)
            year, month = months(period)
            differing = session.run(DIFFERENCE, year=year, month=month)
    except (ValueError, Refused, Unavailable) as error:
        return {"ok": False, "error": str(error)}
    return {
        "ok": True,
        **{name: found[name] for name in ("run", "date", "ledgerAt")},
        "balances": totals["rows"],
        "count": differing[0][0] if differing else 0,
        "differences": [[account, branch, unequal(amounts)] for _, account, branch, *amounts in differing],
    }


def unequal(amounts: list[str]) -> dict[str, list[str]]:
    """Return the columns that differ, given those of Genius and then those of PostgreSQL as text."""
    # 1.5 and 1.50 are the same amount: such a row differs in another column.
    pairs = zip(COLUMNS.values(), amounts[:6], amounts[6:])
    return {column: [theirs, ours] for column, theirs, ours in pairs if plain(theirs) != plain(ours)}


def plain(amount: str) -> str:
    """Return an amount's text without zeros at its end."""
    return amount.rstrip("0").rstrip(".") if "." in amount else amount


def check_read(session: Session, copied, totals: dict) -> None:
    """Raise ValueError unless all of Genius' balances have arrived and add up to its own totals."""
    if copied.refused:
        account, branch, _, why = copied.refused[0]
        raise ValueError(
            clean(
                f"{len(copied.refused)} balances of Genius cannot be compared, the first of account"
                f" {account or 'without a code'}, branch {branch or 'without a code'}: {why}; correct it in Genius"
            )
        )
    sums = ", ".join(f"coalesce(sum({column}), 0)" for column in COLUMNS.values())
    found = {"rows": copied.rows, **dict(zip(COLUMNS, session.run(f"SELECT {sums} FROM incoming")[0]))}
    if found != totals:
        differing = ", ".join(name for name in totals if found[name] != totals[name])
        raise ValueError(f"the balances that arrived differ from Genius' totals in {differing}; run it again")
