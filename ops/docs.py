"""inv docs: the picture of README.md, and the tables of the reference.

A table is between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re

from handler.client import ERRORS
from handler.settings import SETTINGS
from ops import alarms, config, listing, picture
from ops.shell import ROOT
from ops.task import MACHINE, task

REFERENCE, PICTURE = ROOT / "docs" / "reference.md", ROOT / "docs" / "architecture.svg"
# The events of the function's log; tests/unit/test_pages.py compares their names with handler/.
EVENTS = {
    "step": "a step of a closing ran; `seconds` is its duration",
    "step_failed": "a database did not answer; the step is tried again",
    "step_refused": "a step ended with an error that a retry does not fix",
    "step_stuck": "a step fails for longer than STEP_STUCK_AFTER",
    "ledger_findings": "the checks of the books reported findings",
    "metrics_findings": "`calculate_financial_metrics` completed with warnings",
    "closing_completed": "a closing ended with all steps: its date is closed",
    "closing_partial": "a closing ended without an error, but with a skipped step: its date is not closed",
    "closing_failed": "a closing ended without success, or its request was refused",
    "closing_findings": "a closing succeeded, with findings",
    "closing_pauses": "Restate pauses a closing after its last try",
    "closing_late": "a scheduled date is not closed after CLOSING_LATE_AFTER; `next` is the next command",
    "dates_missed": "scheduled dates were covered by a later one, were left out, or wait for a blocked period",
    "closings_held": "a person let no closing begin",
    "closings_wait": "a scheduled date waits for the end of a hold",
    "closings_released": "a hold ended",
    "code_error": "the function's own code failed",
}
# The purpose of each table in PG_SCHEMA that the service uses; handler/schema.py has their columns.
TABLES = {
    "closing_runs": "one row per run of a closing: its steps, result, message and job",
    "closing_findings": "the findings of a run, with the amounts of single accounts and branches",
    "closing_decisions": "a person's decision on a job whose result is unknown; recorded once per job",
    "legacy_trial_balances": "the trial balance: one row per account and branch of a period",
    "legacy_chart_of_accounts": "the chart of accounts, along which balances are rolled up",
    "branches": "the branches that are known",
    "calculation_runs": "one row per run of `calculate_financial_metrics`, which writes it",
}
GENERATED = re.compile(r"(?<=<!-- generated: )([\w ]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


@task(group="develop", changes=MACHINE)
def docs(c):
    """Generate the tables of docs/reference.md and the picture of README.md again."""
    for file, text in ((REFERENCE, generate(REFERENCE.read_text())), (PICTURE, picture.svg())):
        changed = not file.exists() or file.read_text() != text
        file.write_text(text)
        print(f"{file.relative_to(ROOT)} {'has changed' if changed else 'was up to date'}")


def generate(text: str) -> str:
    """Return a page's text with its tables generated again."""
    parts = {"tasks": tasks_table, "settings": settings_table, "errors": errors_table, "signals": signals_table}
    parts |= {"events": events_table, "tables": database_table}
    return GENERATED.sub(lambda match: f"{match[1]}{match[2]}{parts[match[1]]()}\n", text)


def table(*rows: tuple[str, ...]) -> str:
    """Format rows as a Markdown table; the first is its head."""
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rest))


def tasks_table() -> str:
    from tasks import namespace

    groups = listing.grouped(namespace).items()
    rows = [(group, f"`inv {name}`", line) for group, tasks in groups for name, line in tasks]
    return table(("group", "task", "what it does"), *rows)


def settings_table() -> str:
    read = {setting.name for setting in SETTINGS}
    rows = [
        (f"`{one.name}`", default(one), "function" if one.name in read else "tasks", one.about)
        for one in config.ALL_SETTINGS
    ]
    return table(("name", "default", "read by", "meaning"), *rows)


def default(setting) -> str:
    if setting.default is None:
        return "required"
    return f"`{setting.default}`" if setting.default else "empty"


def events_table() -> str:
    return table(("event", "meaning"), *((f"`{name}`", meaning) for name, meaning in EVENTS.items()))


def database_table() -> str:
    # It imports PostgreSQL's driver, which no other task needs.
    from handler import schema

    rows = [
        (f"`{name}`", owner, meaning, ", ".join(privileges), ", ".join(f"`{column}`" for column in columns))
        for owner, tables in (("this service", schema.OWN_TABLES), ("the report", schema.REPORT_TABLES))
        for name, (privileges, columns) in tables.items()
        for meaning in [TABLES[name]]
    ]
    return table(("table", "created by", "content", "privileges of the function", "columns that it uses"), *rows)


def signals_table() -> str:
    return table(("signal", "after minutes", "message", "next command"), *alarms.signals())


def errors_table() -> str:
    return table(("error", "cause", "fix"), *((code, cause, fix) for code, (cause, fix) in ERRORS.items()))
