"""README.md as a script: its blocks of commands in order, what each shall print, and a shell that runs them.

A block of `sh` is run, unless its first line is `# AWS only`. One whose last line ends with `# exit 1` has to fail. A
block of `text` right behind it is what it prints: each of its lines has to come, in that order, and `…` stands for any.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from support.helpers import ROOT, UNUSED

README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
AWS_ONLY, FAILS, ANYTHING = "# AWS only\n", "# exit 1\n", "…"
# What a task of repair.py asks a person to type.
ASKED = re.compile(r"^inv (?:rerun|cancel|resolve|stop-job)\b.* --(?:date|period) (\S+)", re.MULTILINE)
SECONDS = 120
# How a closing is seen to get on depends on the machine; only its end does not.
PROGRESS = re.compile(r"^ *\d+\.\d s  (submit|wait|ledger|metrics|other job)")
# What differs from run to run, and the word that stands for it.
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
    (r"\d[\d,.]* (s|ms|min|h|MB|looks|invocations|billed ms|variables)\b", r"N \1"),
    (r"generation \d+", "generation N"),
    (r'"seconds": [\d.]+', '"seconds": N'),
]


class Block(NamedTuple):
    """heading: the one it stands under; output: None where the README does not show it."""

    number: int
    heading: str
    text: str
    output: str | None

    @property
    def runs(self) -> bool:
        return not self.text.startswith(AWS_ONLY)

    @property
    def fails(self) -> bool:
        return self.text.endswith(FAILS)


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
        found.append(Block(len(found), heading, fence[2], after[2] if shown else None))
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


def difference(expected: str, came: str) -> str:
    """The first line that came and is not shown, or is shown and did not come; empty where there is none."""
    lines, place, gap = masked(came), 0, False
    for line in masked(expected):
        if line == ANYTHING:
            gap = True
            continue
        if gap and line in lines[place:]:
            place = lines.index(line, place)
        if lines[place : place + 1] != [line]:
            return f"expected {line!r}" + ("" if gap else f", and {lines[place : place + 1]} came")
        place, gap = place + 1, False
    return "" if gap or place == len(lines) else f"{lines[place]!r} came and is not shown"


class Terminal:
    """The shell of a reader who pastes block after block: what one exports the next one has.

    checkout: the folder to paste in; scratch: a folder for the shell's own files; extra: variables of the reader's.
    """

    def __init__(self, page: list[Block], checkout: Path, scratch: Path, extra: dict[str, str]):
        self.page, self.checkout = page, checkout
        self.exports, self.script = scratch / "exports", scratch / "block"
        self.exports.write_text("")
        self.environ = {key: value for key, value in os.environ.items() if key not in UNUSED} | extra
        self.came: dict[int, tuple[int, str]] = {}

    def result(self, block: Block) -> tuple[int, str]:
        """What a block gave; it is run at the first question, after all that stand before it."""
        for one in self.page[: block.number + 1]:
            if one.runs and one.number not in self.came:
                self.came[one.number] = self.run(one)
        return self.came[block.number]

    def run(self, block: Block) -> tuple[int, str]:
        """Exit code and all that was printed."""
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


def fault(block: Block, code: int, came: str) -> str:
    """What is wrong with what a block gave; empty where nothing is."""
    if code != int(block.fails):
        return f"exit {code}\n{block.text}\n{came}"
    unlike = "" if block.output is None else difference(block.output, came)
    return f"{unlike}\n{block.text}\n{came}" if unlike else ""
