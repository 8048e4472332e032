"""The demo: deploy to the cloud on this machine, close the next business date, and print the result."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path

from invoke import Exit
from pg8000 import native

from local.cloud import Cloud
from local.errors import LocalError
from local.state import ROOT
from ops import closings, logs, report, restate, terminal
from ops.target import Target

FIRST = date(2025, 1, 31)
# The stand-in's ledger ends there; `inv local.reset` starts again at FIRST.
LAST = date(2025, 12, 31)

JOURNAL = "SELECT name, entry_type, appended_at FROM sys_journal WHERE id = '{}' ORDER BY index"
ROOTS = """
SELECT chart.code, chart.name, sum(start_balance), sum(movement_debit), sum(movement_credit), sum(end_balance)
  FROM legacy_trial_balances balance JOIN legacy_chart_of_accounts chart ON chart.code = balance.chart_of_account_code
 WHERE year = :year AND month = :month AND chart.parent_code IS NULL
 GROUP BY chart.code, chart.name ORDER BY chart.code"""
METRICS = "SELECT metric, value FROM financial_metrics WHERE year = :year AND month = :month"
PRINTED_METRICS = ("total_assets", "premium_income", "net_income", "claims_ratio", "combined_ratio", "solvency_ratio")


def run(target: Target, deploy, schema) -> None:
    """Deploy, close the next date and print the result; raises Exit in one line if a service ends meanwhile."""
    cfg = target.cfg
    day = next_date(cfg)
    followed = closings.running(cfg, day)
    began = time.time()
    deploy()
    schema()
    title(f"Closing {day}")
    try:
        if not followed:
            closings.submit(target, day, closings.request_body(target, day, "adm", {}))
        result = closings.follow(cfg, day, check=check_services)
    except Exit:
        # A service that ended explains the error of its caller.
        check_services()
        raise
    print_result(target, day, result, began)


def check_services() -> None:
    """Raise Exit if a service is down."""
    down = [name for name, service in Cloud().status().items() if not service["up"]]
    if down:
        raise Exit(
            f"{', '.join(down)} ended while the demo ran; the closing waits in Restate."
            f" Read `inv local.logs --service {down[0]}`; `make demo` starts it again and continues."
        )


def connect(cfg: dict[str, str]) -> native.Connection:
    """Connect to the local PostgreSQL as the function does."""
    try:
        connection = native.Connection(
            cfg["PG_USER"], cfg["PG_HOST"], cfg["PG_DATABASE"], int(cfg["PG_PORT"]), cfg["PG_PASSWORD"]
        )
    except (native.InterfaceError, native.DatabaseError) as error:
        raise LocalError(f"PostgreSQL of the local cloud does not answer: {error}; run `inv local.up`") from None
    connection.run(f'SET search_path = "{cfg["PG_SCHEMA"]}"')
    return connection


def next_date(cfg: dict[str, str]) -> str:
    """Return the business date after the newest one of closing_runs, or that one if its closing still runs."""
    connection = connect(cfg)
    made = connection.run("SELECT to_regclass('closing_runs')")[0][0]
    newest = connection.run("SELECT max(closing_date) FROM closing_runs")[0][0] if made else None
    connection.close()
    day = newest or FIRST
    while day.weekday() > 4 or closings.ended(cfg, day.isoformat()):
        day += timedelta(days=1)
    if day > LAST:
        raise Exit(f"the stand-in's ledger ends on {LAST}; start again with `inv local.reset` and `make demo`")
    return day.isoformat()


def title(text: str) -> None:
    """Print a title, bold on a terminal."""
    print(f"\n{terminal.styled(text, terminal.BOLD)}", flush=True)


def print_result(target: Target, day: str, result: dict, began: float) -> None:
    """Print steps, invocations, trial balance and metrics of a closing, and the next commands."""
    cfg = target.cfg
    close = closings.invocation_of(cfg, "ClosingPeriod", day[:7], "close")
    connection = connect(cfg)
    print_steps(cfg, close["id"], result)
    print_invocations(target, began, result)
    print_balance(connection, day, result)
    print_metrics(connection, day)
    connection.close()
    run = closings.invocation_of(cfg, "DailyClosing", day, "run")
    title("Each step in the journal")
    print(f"  {closings.page(cfg, close['id'])}\n  {closings.page(cfg, run['id'])}")
    title("Next")
    inv = inv_command()
    for command, effect in (
        ("make demo", "close the next business date"),
        (f"{inv} status --env local --date {day}", "its state, from Restate"),
        ("make down", "stop everything; the data stays"),
    ):
        print(f"  {command:<54} {effect}")
    page, table = report.write(target, day[:7])
    title("Report for the finance department")
    print(f"  {table}\n  {page}")


def inv_command() -> str:
    """Return the command of `inv` as this shell finds it."""
    own = Path(sys.executable).with_name("inv")
    found = shutil.which("inv")
    return "inv" if found and Path(found).resolve() == own.resolve() else os.path.relpath(own, ROOT)


def print_steps(cfg: dict[str, str], invocation: str, result: dict) -> None:
    """Print the duration of each step, from Restate's journal."""
    rows = restate.sql(cfg, JOURNAL.format(invocation))
    moments = {row["name"]: row["appended_at"] for row in rows if row.get("name")}
    genius, ledger, metrics = result["genius"], result["ledger"], result["metrics"]
    title("Steps")
    rows = [
        ("procedure in Genius", genius["seconds"], f"{result['job']}, ended after {genius['polls']} polls"),
        (
            "trial balance",
            between(moments, "record genius", "ledger"),
            f"{ledger['balances']:,} balances rolled up to {ledger['rows']:,} rows",
        ),
        (
            "metrics",
            between(moments, "ledger", "metrics"),
            f"{metrics['status']}, {metrics['completedSteps']} of {metrics['totalSteps']} steps,"
            f" {metrics['warnings']} warnings",
        ),
    ]
    for name, seconds, remark in rows:
        print(f"  {name:<20} {seconds:7.2f} s   {remark}")


def between(moments: dict[str, str], before: str, after: str) -> float:
    """Return the seconds between two journal entries; Restate writes moments with up to nine digits of a second."""
    begin, end = (
        datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", moments[name]).replace("Z", "+00:00"))
        for name in (before, after)
    )
    return (end - begin).total_seconds()


def billed_milliseconds(target: Target, began: float) -> list[int]:
    """Return the billed milliseconds of each invocation since a moment, from Lambda's REPORT lines."""
    events = target.query_json(logs.filter_log_events(target.cfg, int(began * 1000), "REPORT"))["events"]
    return [int(found[1]) for event in events if (found := re.search(r"Billed Duration: (\d+) ms", event["message"]))]


def print_invocations(target: Target, began: float, result: dict) -> None:
    """Print how much of the wait was billed."""
    billed = billed_milliseconds(target, began)
    title("Lambda")
    print(
        f"  {len(billed)} invocations, {sum(billed):,} billed ms,"
        f" while the job took {result['genius']['seconds']:.1f} s; nothing ran between two polls"
    )


def print_balance(connection: native.Connection, day: str, result: dict) -> None:
    """Print the roots of the chart of accounts and the control totals."""
    year, month = int(day[:4]), int(day[5:7])
    title(f"Trial balance {day[:7]}, IDR")
    print(f"  {'':<16} {'start':>24} {'debit':>24} {'credit':>24} {'end':>24}")
    for code, name, *amounts in connection.run(ROOTS, year=year, month=month):
        print(f"  {code} {name:<14}" + "".join(f" {amount:>24,.2f}" for amount in amounts))
    totals = result["ledger"]["totals"]
    same = "equal" if totals["end_debit"] == totals["end_credit"] else "DIFFERENT"
    print(f"  control totals at the end: debit {totals['end_debit']}, credit {totals['end_credit']}: {same}")


def print_metrics(connection: native.Connection, day: str) -> None:
    """Print the main financial metrics."""
    found = dict(connection.run(METRICS, year=int(day[:4]), month=int(day[5:7])))
    title(f"Metrics, {len(found)} in all")
    for name in PRINTED_METRICS:
        value = found.get(name)
        text = "none" if value is None else f"{value:,.4f}" if name.endswith("ratio") else f"{value:,.2f}"
        print(f"  {name:<16} {text:>24}")
