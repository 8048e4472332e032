"""docs/troubleshooting.md has an entry for each error code that the code names, and its commands exist."""

from __future__ import annotations

import itertools
import re

import pytest
from support.helpers import ROOT

import tasks

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| error", "| ---"))]
SOURCES = [path for folder in ("handler", "layer", "ops") for path in sorted((ROOT / folder).glob("*.py"))]
# A code, or the part of a regular expression that means several.
NAMED = re.compile(r"\b((?:ORA|DPI|DPY|RT|META)-?)(\((?:[\d|]|\\d\{\d\})+\)|(?:\d|\[\d+\]|\\d\{\d\})+)")
# A pattern that means more codes than this is a family, such as ORA-12xxx.
FAMILY = 20
CODE = r"\b(?:(?:DPI|DPY|ORA|PLS)-\d+|META\d+|RT\d+|[A-Z]\w+(?:Exception|Accepted)|(?:Runtime|Sandbox)\.\w+)\b"


def codes_in(text: str) -> set[str]:
    """Return the codes that a source names; of a family only its first digits, such as ORA-12."""
    found = set()
    for prefix, patterns in NAMED.findall(text):
        width = 5 if prefix == "ORA-" else 4
        for pattern in patterns.strip("()").split("|"):
            codes = [f"{one:0{width}}" for one in range(10**width) if re.fullmatch(pattern, f"{one:0{width}}")]
            found |= {f"{prefix}{code if len(codes) <= FAMILY else code[:-3]}" for code in codes}
    return found


def sql_codes() -> set[str]:
    block = (ROOT / "handler" / "closing_job.sql").read_text()
    return {f"ORA-{int(number):05}" for number in re.findall(r"-(\d{4,5})\b(?!-)", block)}


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ('"DPI-1047": 1', {"DPI-1047"}),
        ("DPI-(1050|1072)\\b", {"DPI-1050", "DPI-1072"}),
        ("ORA-0311[34]|ORA-12\\d{3}", {"ORA-03113", "ORA-03114", "ORA-12"}),
        ("DPY-(4011|6\\d{3})", {"DPY-4011", "DPY-6"}),
    ],
)
def test_codes_of_patterns_are_found(text, codes):
    assert codes_in(text) == codes


def test_each_code_of_the_source_has_an_entry():
    errors = "\n".join(row.split("|")[1] for row in ROWS)
    named = {code for path in SOURCES for code in codes_in(path.read_text())}
    assert len(named) > 40
    missing = {code for code in named if not re.search(rf"\b{code}", errors)}
    assert not missing, f"add {', '.join(sorted(missing))} to docs/troubleshooting.md"


def test_each_code_of_the_job_has_an_entry():
    assert sql_codes() == {"ORA-01013", "ORA-20806", "ORA-20807", "ORA-20808", "ORA-27477"}
    assert not {code for code in sql_codes() if code not in PAGE}


def test_each_entry_has_a_cause_and_a_next_command():
    for row in ROWS:
        cells = [cell.strip() for cell in row.replace(r"\|", "").strip("|").split("|")]
        assert len(cells) == 3, row
        assert cells[0] == "nothing at all" or cells[1], row
        assert cells[2], row


def test_each_command_exists():
    known = {name: one for one in tasks.namespace.to_contexts() for name in (one.name, *one.aliases)}
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [span.split() for span in re.findall(r"`((?:inv|make) [^`]+)`", PAGE)]
    assert len(commands) > 50
    for program, *words in commands:
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, words
            continue
        task, *rest = [word for word in words if word != "--list"] or ["help"]
        assert task in known, words
        options = {word for word in rest if word.startswith("--")}
        assert options <= known[task].flags.keys(), words


def test_each_code_is_named_by_a_test_or_marked_as_from_documents():
    files = itertools.chain((ROOT / "tests").rglob("*.py"), (ROOT / "local" / "oracle" / "tests").rglob("*.py"))
    tested = "".join(path.read_text() for path in files if path.name != "test_troubleshooting.py")
    for row in ROWS:
        unmarked = row.split("|")[1].rpartition("(from documents)")[2]
        for code in re.findall(CODE, unmarked):
            # A test may compare an Oracle error's number alone.
            number = code.removeprefix("ORA-").lstrip("0")
            assert re.search(rf"\b({code}|{number})\b", tested), f"{code} is in no test: mark it (from documents)"
