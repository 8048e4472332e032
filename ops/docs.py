"""inv readme: the parts of README.md that are made from the code, between `<!-- made: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re

from handler.settings import SETTINGS
from ops import config, listing, manual_commands
from ops.shell import ROOT
from ops.task import MACHINE, task

README = ROOT / "README.md"
MADE = re.compile(r"(?<=<!-- made: )([\w ]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


@task(group="develop", changes=MACHINE)
def readme(c):
    """Renew the tables and the plain commands of README.md."""
    before = README.read_text()
    after = made(before)
    README.write_text(after)
    print("README.md is renewed" if after != before else "README.md was as it should be")


def made(text: str) -> str:
    """The text with its made parts as the code says."""
    parts = {"tasks": tasks_table, "settings": settings_table}
    parts |= {name: lambda name=name: folded(manual_commands.lines(name)) for name in manual_commands.ENTRIES}
    return MADE.sub(lambda match: f"{match[1]}{match[2]}{parts[match[1]]()}\n", text)


def folded(lines: list[str]) -> str:
    """Commands in a part of the page that opens by a click."""
    body = "\n".join(lines)
    return f"<details><summary>By hand</summary>\n\n```sh\n{body}\n```\n\n</details>"


def tasks_table() -> str:
    from tasks import namespace

    rows = [
        f"| {group} | `inv {name}` | {line} |"
        for group, tasks in listing.grouped(namespace).items()
        for name, line in tasks
    ]
    return "\n".join(["| group | task | what it does |", "| --- | --- | --- |", *rows])


def settings_table() -> str:
    read = {setting.name for setting in SETTINGS}
    rows = [
        f"| `{one.name}` | {shown(one)} | {'function' if one.name in read else 'tasks'} | {one.about} |"
        for one in config.ALL_SETTINGS
    ]
    return "\n".join(["| name | default | read by | what it is |", "| --- | --- | --- | --- |", *rows])


def shown(setting) -> str:
    if setting.default is None:
        return "must be there"
    return f"`{setting.default}`" if setting.default else "empty"
