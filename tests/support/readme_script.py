"""README.md as a script: its blocks of commands in order, the expected output of each, and a shell that runs them.

A block of `sh` is run, unless its fence has the mark `aws-only`. It must fail if that has the mark `exit-1`. A
block of `text` right behind it is its expected output: each line must be printed, in that order; `…` is any lines.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from support.helpers import ROOT, UNUSED

README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
AWS_ONLY, FAILS, ANYTHING = "aws-only", "exit-1", "…"
# The word that a task of repair.py asks a person to type.
ASKED = re.compile(r"^inv (?:rerun|cancel|resolve|stop-job)\b.* --(?:date|period) (\S+)", re.MULTILINE)
SECONDS = 120
# The progress lines of a closing depend on the machine; its result does not.
PROGRESS = re.compile(r"^ *\d+\.\d s  (submit|wait|ledger|metrics|other job)")
# Text that differs from run to run, and the word that replaces it.
VOLATILE = [
    (r"\b(inv|dp)_\w{20,}", r"\1_ID"),
    (r"\bGNS_(\d{6})_[0-9A-F]{12}\b", r"GNS_\1_DIGEST"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\b(?=\d*[a-f])[0-9a-f]{12}( git \S+)?", "DIGEST"),
    (r"Restate at \S+", "Restate at URL"),
    (r", \.pyc of \S+", ""),
    (r"127\.0\.0\.1:\d+", "HOST"),
    (r":\d{12}:", ":ACCOUNT:"),
    (r"account \d{12}", "account ACCOUNT"),
    (r"function:finance-closing:\d+", "function:finance-closing:N"),
    (r"\bversion \d+", "version N"),
    (r"python3\.\d+", "python3.N"),
    (r"aws-cli/\S+", "aws-cli/N"),
    (r"arn:aws:iam::\d+:", "arn:aws:iam::ACCOUNT:"),
    (r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:[\d.]+)?([+-]\d\d:\d\d|Z)?", "MOMENT"),
    (r"\d[\d,.]* (s|ms|min|h|MB|polls|invocations|billed ms|variables)\b", r"N \1"),
    (r"\b20\d\d-\d\d(?=, the last period| runs or waits)", "MONTH"),
    (r"generation \d+", "generation N"),
    (r"ORA-06512: at line \d+", "ORA-06512: at line N"),
    (r'"seconds": [\d.]+', '"seconds": N'),
]


class Block(NamedTuple):
    """heading: the nearest one above; output: None if the README shows none; mark: the word after `sh`, or ""."""

    number: int
    heading: str
    text: str
    output: str | None
    mark: str = ""

    @property
    def runs(self) -> bool:
        return self.mark != AWS_ONLY

    @property
    def fails(self) -> bool:
        return self.mark == FAILS


def blocks(text: str) -> list[Block]:
    """The blocks of commands, in order."""
    fences = list(FENCE.finditer(text))
    prose = FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)
    found, headings = [], [(match.start(), match[1]) for match in HEADING.finditer(prose)]
    for fence, after in zip(fences, [*fences[1:], None]):
        if fence[1] != "sh":
            continue
        heading = [title for start, title in headings if start < fence.start()][-1]
        shown = after and after[1] == "text" and not text[fence.end() : after.start()].strip()
        found.append(Block(len(found), heading, fence[3], after[3] if shown else None, fence[2] or ""))
    return found


def masked(text: str) -> list[str]:
    """The lines of an output without what differs from run to run and without their columns' widths."""
    kept = [line for line in text.splitlines() if line.strip() and not PROGRESS.match(line)]
    lines = []
    for line in kept:
        for pattern, word in VOLATILE:
            line = re.sub(pattern, word, line)
        lines.append(" ".join(line.split()))
    return lines


def difference(expected: str, printed: str) -> str:
    """Return the first line that is printed but not expected, or expected but not printed; "" if there is none."""
    lines, place, gap = masked(printed), 0, False
    for line in masked(expected):
        if line == ANYTHING:
            gap = True
            continue
        if gap and line in lines[place:]:
            place = lines.index(line, place)
        if lines[place : place + 1] != [line]:
            return f"expected {line!r}" + ("" if gap else f", printed {lines[place : place + 1]}")
        place, gap = place + 1, False
    return "" if gap or place == len(lines) else f"{lines[place]!r} is printed but not expected"


class Terminal:
    """The shell of a reader who pastes block after block: a variable that a block exports is set in the next one.

    checkout: the folder to paste in; scratch: a folder for the shell's own files; extra: variables of the reader's.
    """

    def __init__(self, page: list[Block], checkout: Path, scratch: Path, extra: dict[str, str]):
        self.page, self.checkout = page, checkout
        self.exports, self.script = scratch / "exports", scratch / "block"
        self.exports.write_text("")
        self.environ = {key: value for key, value in os.environ.items() if key not in UNUSED} | extra
        self.results: dict[int, tuple[int, str]] = {}

    def result(self, block: Block) -> tuple[int, str]:
        """Return the exit code and the output of a block; the first call runs it, after all blocks before it."""
        for one in self.page[: block.number + 1]:
            if one.runs and one.number not in self.results:
                self.results[one.number] = self.run(one)
        return self.results[block.number]

    def run(self, block: Block) -> tuple[int, str]:
        """Run a block; returns the exit code and all that was printed."""
        self.script.write_text(block.text)
        command = f"set -eo pipefail; . {self.exports}; . {self.script}; export -p > {self.exports}"
        typed = "".join(f"{word}\n" for word in ASKED.findall(block.text))
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.checkout,
            env=self.environ,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout


def fault(block: Block, code: int, printed: str) -> str:
    """Return how the result of a block differs from the page; "" if it does not."""
    if code != int(block.fails):
        return f"exit {code}\n{block.text}\n{printed}"
    differs = "" if block.output is None else difference(block.output, printed)
    return f"{differs}\n{block.text}\n{printed}" if differs else ""
