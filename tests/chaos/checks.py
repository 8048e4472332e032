"""The checks after each closing, made on the databases and logs themselves, not on the service's answers."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import oracledb
from support import books

from local.demo import connect
from ops import closings

AUDIT = """
CREATE TABLE IF NOT EXISTS financial_report.metrics_audit (id uuid NOT NULL, at timestamptz NOT NULL DEFAULT now());
GRANT SELECT, INSERT ON financial_report.metrics_audit TO finance;
CREATE OR REPLACE FUNCTION financial_report.audit_metrics() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO financial_report.metrics_audit (id) VALUES (NEW.id); RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER audit_metrics AFTER INSERT OR UPDATE ON financial_report.calculation_runs
FOR EACH ROW WHEN (NEW.status = 'completed') EXECUTE FUNCTION financial_report.audit_metrics();
"""
BALANCES = """
SELECT chart_of_account_code, branch_code, start_balance, movement_debit, movement_credit, end_balance
  FROM legacy_trial_balances WHERE year = :year AND month = :month"""
# How a close ended in Restate -> the statuses that its run may have in closing_runs.
AGREES = {"success": {"succeeded"}, "failure": {"failed", "cancelled", "blocked"}}


class Broken(Exception):
    """The promise is broken; the message reports what was found."""


def procedure_log(state: Path, period: str) -> list[dict]:
    """Return the events of a period in the stand-in's log of the procedure, oldest first."""
    log = state / "genius" / "procedure.log"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line] if log.exists() else []
    return [one for one in lines if f"{one['year']}-{one['month_from']}" == period]


def starts_of(state: Path, period: str, job: str | None) -> int:
    """Count how often a job started the procedure."""
    return sum(1 for one in procedure_log(state, period) if one["event"] == "start" and one["job"] == job)


def check_starts(state: Path, period: str, rows: list[dict]) -> None:
    """Check that no request started the procedure twice, and that each that succeeded started it once."""
    for row in rows:
        count = starts_of(state, period, row["job"]) if row["job"] else 0
        if count > 1:
            raise Broken(f"{row['job']} started the procedure {count} times")
        resolved = "resolved" in row["detail"]
        if row["genius"] == "succeeded" and count != 1 and not resolved:
            raise Broken(f"{row['job']} is recorded as succeeded and started the procedure {count} times")
        if row["genius"] in ("backed-off", "never-submitted", "reused", "skipped") and count:
            raise Broken(f"{row['job']} is recorded as {row['genius']} and started the procedure")


def check_names_kept(cfg: dict, rows: list[dict]) -> None:
    """Check that each job keeps its name, which prevents a second start under the same name."""
    with oracledb.connect(
        user=cfg["ORACLE_USER"], password=cfg["ORACLE_PASSWORD"], dsn=cfg["ORACLE_CONNECT_STRING"]
    ) as connection:
        kept = {name for (name,) in connection.cursor().execute("SELECT job_name FROM user_scheduler_jobs")}
    for row in rows:
        if row["genius"] in ("succeeded", "failed") and "resolved" not in row["detail"] and row["job"] not in kept:
            raise Broken(f"{row['job']} is recorded as {row['genius']} and its name is free again")


def check_never_two(state: Path, period: str, restarts: list[float]) -> None:
    """Check that no two jobs of a period ran at once; a restart of the database ends the running ones."""
    running: dict[str, float] = {}
    for one in procedure_log(state, period):
        at = datetime.fromisoformat(one["at"]).timestamp()
        for job, since in list(running.items()):
            if any(since <= restart <= at for restart in restarts) or one.get("job") == job:
                del running[job]
        if one["event"] == "start":
            if running:
                raise Broken(f"{one['job']} started while {', '.join(running)} ran")
            running[one["job"]] = at


def check_balance(cfg: dict, period: str, closed: bool) -> None:
    """Check that the trial balance is right to the cent, or empty if no closing has succeeded yet."""
    connection = connect(cfg)
    rows = connection.run(BALANCES, year=int(period[:4]), month=int(period[5:]))
    connection.close()
    found = {(account, branch): tuple(amounts) for account, branch, *amounts in rows}
    if not found and not closed:
        return
    if found != books.trial_balance(period):
        raise Broken(f"the trial balance of {period} is wrong: {len(found)} rows")


def check_metrics_once(cfg: dict, rows: list[dict]) -> None:
    """Check that each run computed its metrics once if they succeeded, and never otherwise."""
    connection = connect(cfg)
    counted: dict[str, int] = defaultdict(int)
    for (identity,) in connection.run("SELECT id FROM metrics_audit"):
        counted[str(identity)] += 1
    connection.close()
    for row in rows:
        wanted = 1 if row["metrics"] == "succeeded" else 0
        if counted[row["id"]] != wanted:
            raise Broken(f"run {row['id']} has metrics {row['metrics']} and computed them {counted[row['id']]} times")


def check_agreement(cfg: dict, date: str, rows: list[dict]) -> None:
    """Check that closing_runs and Restate agree on the newest run of a date."""
    run = closings.invocation_of(cfg, "DailyClosing", date, "run")
    if not rows or not run:
        return
    if run["status"] != closings.ENDED:
        raise Broken(f"{date} is {run['status']} but should have ended")
    if rows[-1]["status"] not in AGREES[run["completion_result"]]:
        raise Broken(f"{date}: Restate reports {run['completion_result']}, closing_runs {rows[-1]['status']}")


def check_released(cfg: dict, period: str, date: str) -> None:
    """Check that a closing that succeeded left nothing for which the next one would wait."""
    state = closings.state_of(cfg, "ClosingPeriod", period)
    left = {name: state[name] for name in ("closing", "blocked", "progress") if name in state}
    if left:
        raise Broken(f"{date} has succeeded and its period still holds {left}")
