"""inv report and inv reconcile: the books of a period for the finance department, and whether Genius still agrees."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import secrets
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import IO
from zoneinfo import ZoneInfo

from invoke import Exit

from handler import schedule_times, settings
from handler.balances import COLUMNS
from handler.plan import describe_hold
from handler.request import check_period
from ops import closings, config, ping, report_page, schedule
from ops.report_page import Account, printable
from ops.shell import ROOT
from ops.target import Target
from ops.task import NOTHING, task

FOLDER = ROOT / "build" / "reports"
# The limit of one page, and of a comparison, which reads all balances of Genius.
PAGE_SECONDS, RECONCILE_SECONDS = 120, 600
HEAD = ("account", "name", "parent", "branch", "start", "debit", "credit", "end", "previous_end")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
PERIOD_HELP = {"period": "the period, as YYYY-MM"}


@task(group="watch", changes=NOTHING, uses=("aws",), help={**config.ENV_HELP, **PERIOD_HELP})
def report(c, env, period):
    """Write the closing report of a period for the finance department: an HTML page and a CSV file in build/reports."""
    target = Target.load(c, env)
    checked(period)
    for file in write(target, period):
        print(f"{env}: {file}")


@task(group="watch", changes=NOTHING, uses=("aws",), help={**config.ENV_HELP, **PERIOD_HELP})
def reconcile(c, env, period):
    """Compare Genius' balances of now with the trial balance of a period; exit 1 if they differ."""
    target = Target.load(c, env)
    checked(period)
    found = ask(target, "reconcile", {"period": period}, RECONCILE_SECONDS)
    about = f"{found['balances']} balances of Genius, and the closing of {found['date']}, run {found['run']}"
    if not found["count"]:
        print(f"{env}: {period} equal: {about}")
        return
    print("\n".join(difference_lines(found["differences"])))
    printed = len(found["differences"])
    limit = f", the first {printed} printed" if found["count"] > printed else ""
    raise Exit(
        f"{env}: {period} differs; different balances: {found['count']}{limit}; compared: {about};"
        " something was posted in Genius after the closing, or changed in PostgreSQL; to close the date again:"
        f" `inv rerun --env {env} --date {found['date']} --from genius`"
    )


def checked(period: str) -> None:
    try:
        check_period(period)
    except ValueError as error:
        raise Exit(f"{error}. Nothing was read.") from None


def difference_lines(differences: list[list]) -> list[str]:
    """Return one line for each amount that differs, for the operator's screen alone."""
    lines = []
    for account, branch, columns in differences:
        for column, (theirs, ours) in columns.items():
            with report_page.localcontext(report_page.EXACT):
                by = report_page.Decimal(theirs) - report_page.Decimal(ours)
            place = f"account {printable(account)}, branch {printable(branch)}, {column.replace('_', ' ')}"
            lines.append(f"{place}: Genius {theirs}, PostgreSQL {ours}, difference {by:+f}")
    return lines


def ask(target: Target, event: str, asked: dict, seconds: int = PAGE_SECONDS) -> dict:
    """Return the function's answer to one of report.py's events; Exit in one line if it has none."""
    answer = ping.send(target, {event: asked}, seconds)
    if not isinstance(answer, dict) or "ok" not in answer:
        raise Exit(f"{target.env}: the live version has no {event}; run `inv deploy --env {target.env}`")
    if not answer["ok"]:
        raise Exit(f"{target.env}: {printable(answer['error'])}".replace("--env ENV", f"--env {target.env}"))
    return answer


def write(target: Target, period: str) -> tuple[Path, Path]:
    """Write page and CSV of a period and return their paths; they are complete or as they were before."""
    header = ask(target, "report", {"period": period})
    page, table = (FOLDER / f"{target.env}-{period}.{kind}" for kind in ("html", "csv"))
    try:
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A BOM, by which a spreadsheet knows that it is UTF-8.
        with replaced(table, "utf-8-sig") as out, replaced(page, "utf-8") as html:
            accounts = write_table(out, read_pages(target, header))
            for text in render(target, header, accounts):
                html.write(text)
    except OSError as error:
        fix = "check its owner and the free disk, then run it again"
        raise Exit(f"{target.env}: the report cannot be written to {FOLDER}: {error.strerror}; {fix}") from None
    return page, table


@contextlib.contextmanager
def replaced(file: Path, encoding: str) -> Iterator[IO[str]]:
    """Open a new file that only this user can read; it replaces the file at its path when the block has ended."""
    aside = file.with_name(f"{file.name}.{os.getpid()}.part")
    made = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(made, "w", encoding=encoding, newline="") as out:
            yield out
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def read_pages(target: Target, header: dict) -> Iterator[dict]:
    """Yield the pages of the trial balance, all of the header's moment."""
    after: list | None = ["", ""]
    while after:
        asked = {"period": header["period"], "moment": header["moment"], "after": after}
        page = ask(target, "report", asked)
        yield page
        after = page["next"]


def write_table(out: IO[str], pages: Iterator[dict]) -> dict[str, Account]:
    """Write each row as a line of CSV, and return the accounts with their sums over all branches."""
    table = csv.writer(out)
    table.writerow(HEAD)
    accounts: dict[str, Account] = {}
    for page in pages:
        for code, about in page["accounts"].items():
            accounts.setdefault(code, Account(code, *about))
        for row in page["rows"]:
            account, branch, *amounts = row
            report_page.add(accounts, row)
            known = accounts[account]
            texts = map(cell, (account, known.name, known.parent or "", branch))
            table.writerow((*texts, *("" if one is None else one for one in amounts)))
    return accounts


def cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, not even one that leaves out the spaces before it."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) and not NUMBER.fullmatch(text) else text


def render(target: Target, header: dict, accounts: dict[str, Account]) -> Iterator[str]:
    """Yield the page in parts."""
    # Imported here: no other command needs it.
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"printable": printable, "amount": report_page.amount, "money": report_page.money}
    newest = newest_due(target.cfg, time.time())
    state, notes = schedule_state(target, newest)
    period = header["period"]
    values = {
        "nonce": secrets.token_urlsafe(16),
        "env": target.env,
        "header": header,
        "facts": facts(target, header),
        "notes": notes,
        "columns": list(COLUMNS.values()),
        "totals": report_page.totals(header["totals"]),
        "tree": report_page.tree(accounts),
        "width": report_page.widest(accounts.values()),
        "metrics": report_page.metrics(header["metrics"]["values"], period),
        "metrics_source": report_page.metrics_source(header["runs"], header["run"]),
        "first_month": min((month for month, *_ in header["metrics"]["values"]), default=period),
        "calendar": report_page.calendar(period, header["runs"], state, newest),
        # Weeks begin on Monday.
        "blank_days": date.fromisoformat(f"{period}-01").weekday(),
        "durations": report_page.durations(header["runs"]),
    }
    yield from environment.get_template("report.html.j2").generate(values)


def facts(target: Target, header: dict) -> list[tuple[str, str]]:
    """Return the lines of the page's head: name and value."""
    zone, newest = header["zone"], header["runs"][0]
    run = next(row for row in header["runs"] if row["id"] == header["run"])
    lines = [
        ("Date of the last closing", run["closing_date"]),
        ("Run", run["id"]),
        ("Job in Genius", header["job"] or "none: the balances were copied without a job"),
        ("Asked for by", run["user_id"]),
        ("Started", report_page.local_time(run["started_at"], zone)),
        ("Ended", f"{report_page.local_time(run['ended_at'], zone)}, {run['status']}"),
        ("Trial balance written", report_page.local_time(header["ledgerAt"], zone)),
    ]
    if newest["id"] != run["id"]:
        words = f"{newest['closing_date']}, {newest['status']}, did not replace the trial balance"
        lines.append(("Newest run", f"{words}: {newest['message']}" if newest["message"] else words))
    lines += [
        ("Version of the service", f"{header['version']}, {ping.live_description(target)}"),
        ("Report made at", f"{datetime.now(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %Z}"),
    ]
    return lines


def schedule_state(target: Target, newest: date) -> tuple[dict, list[str]]:
    """Return the scheduler's state, and what a reader must know about it, such as a hold; newest: the last date due.

    The dates of a hold that is in force, up to the next one, are in "heldDates" with those of earlier holds.
    """
    try:
        state = closings.state_of(target.cfg, schedule.SERVICE, schedule.KEY)
    except Exit as error:
        return {}, [f"the schedule cannot be read, so held and left-out dates are missing below: {error.message}"]
    hold = state.get("hold")
    if not hold:
        return state, []
    before = newest_due(target.cfg, schedule_times.read(hold["at"]))
    dates = schedule_times.held(hold, before, newest + schedule_times.DAY)
    return {**state, "heldDates": [*(state.get("heldDates") or []), dates]}, [describe_hold(hold)]


def newest_due(cfg: dict, now: float) -> date:
    """Return the newest date whose schedule time has passed."""
    at = settings.time_of_day(cfg["DAILY_CLOSING_SCHEDULE_TIME"])
    offset = settings.day_offset(cfg["CLOSING_DAY_OFFSET"])
    return schedule_times.newest_due(now, at, ZoneInfo(cfg["SCHEDULE_ZONE"]), offset)
