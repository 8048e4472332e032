"""inv docs: the generated parts of the documentation, between `<!-- generated: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re

from handler.client import ERRORS
from handler.settings import SETTINGS
from ops import alarms, config, listing
from ops.shell import ROOT
from ops.task import MACHINE, task

PAGES = (ROOT / "docs" / "reference.md",)
GENERATED = re.compile(r"(?<=<!-- generated: )([\w ]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


@task(group="develop", changes=MACHINE)
def docs(c):
    """Generate the tables of docs/reference.md again."""
    for page in PAGES:
        before = page.read_text()
        after = generate(before)
        page.write_text(after)
        print(f"{page.relative_to(ROOT)} {'has changed' if after != before else 'was up to date'}")


def generate(text: str) -> str:
    """Return a page's text with its generated parts renewed."""
    parts = {"tasks": tasks_table, "settings": settings_table, "errors": errors_table, "signals": signals_table}
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


def signals_table() -> str:
    return table(("signal", "after minutes", "message", "next command"), *alarms.signals())


def errors_table() -> str:
    return table(("error", "cause", "fix"), *((code, cause, fix) for code, (cause, fix) in ERRORS.items()))
