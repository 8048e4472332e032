"""Every command that a message names can be pasted as it is: the task is there, and it has its arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.helpers import ROOT

import tasks
from ops import alarms

CFG = {"FUNCTION_NAME": "finance-closing"}
# A command between backticks, or a text that is one.
NAMED = re.compile(r"`inv ([^`]+)`|^inv ([a-z][^;,]* --[^;,]*)")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string of a module but docstrings; a value that is put in is X."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(one) for one in node.values}
        elif isinstance(node, ast.Expr):
            skipped.add(id(node.value))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(one.value if isinstance(one, ast.Constant) else "X" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def fault(command: str) -> str:
    """Return what is missing in a command of Invoke, "" if nothing is."""
    known = {name: tasks.namespace[name] for name in tasks.namespace.task_names}
    words = command.split()
    name = words[0]
    if len(words) > 1 and f"{name}.{words[1]}" in known:
        name, words = f"{name}.{words[1]}", words[1:]
    if name == "X" or name.startswith("-"):
        return ""
    if name not in known:
        return f"no task {name}"
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    wanted = {
        f"--{one.name.strip('_').replace('_', '-')}" for one in known[name].get_arguments() if one.default is None
    }
    options = {f"--{one.name.strip('_').replace('_', '-')}" for one in known[name].get_arguments()}
    positional = [word for word in words[1:] if not word.startswith("-")]
    missing = sorted(wanted - given) if "--env" in wanted or not positional else []
    unknown = sorted(given - options)
    return "; ".join([f"{one} is missing" for one in missing] + [f"{one} is unknown" for one in unknown])


@pytest.mark.parametrize("folder", ["handler", "layer", "local", "ops"])
def test_every_command_that_a_message_names_has_its_arguments(folder):
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if "tests" in path.parts:
            continue
        for line, text in texts(path):
            for command in map("".join, NAMED.findall(text)):
                if reason := fault(command):
                    found.append(f"{path.relative_to(ROOT)}:{line}: inv {command}: {reason}")
    assert not found, "\n".join(found)


def test_every_alarm_names_a_command_that_has_its_arguments():
    commands = [
        one["alarm"]["AlarmDescription"].partition(" Next: ")[2] for one in alarms.wanted_alarms(CFG, "t").values()
    ]
    assert len(commands) > 5 and [one for one in commands if one.startswith("inv ") and fault(one[4:])] == []
