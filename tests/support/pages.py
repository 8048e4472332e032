"""The pages of the documentation as scripts: blocks of commands, their expected outputs, and a shell that runs them.

A block of `sh` runs, unless its fence has the mark `aws-only`. It must fail if its fence has the mark `exit-1`. A block
of `text` directly after it is its expected output: each line must be printed, in that order; `…` matches any lines.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from support.helpers import ROOT, UNUSED

README, RUNBOOK = ROOT / "README.md", ROOT / "docs" / "runbook" / "README.md"
# The order in which a first reader needs them: the demo, then the shell of the runbook, then all others.
PAGES = [README, RUNBOOK, *sorted({*ROOT.glob("docs/**/*.md")} - {RUNBOOK})]
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
AWS_ONLY, FAILS, ANYTHING = "aws-only", "exit-1", "…"
# The word that a task of repair.py asks a person to type.
ASKED = re.compile(r"^inv (?:rerun|cancel|resolve|stop-job)\b.* --(?:date|period) (\S+)", re.MULTILINE)
SECONDS = 240
# The progress lines of a closing depend on the machine; its result does not.
PROGRESS = re.compile(r"^ *\d+\.\d s  (submit|wait|ledger|metrics|other job)")
# Text that differs from run to run, and the word that replaces it.
VOLATILE = [
    (r"\b(inv|dp)_\w{20,}", r"\1_ID"),
    (r"\bGNS_(\d{6})_[0-9A-F]{12}\b", r"GNS_\1_DIGEST"),
    (r"\bGNS_TEST_\d+", "GNS_TEST_N"),
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
    """number: from 0 on its page; heading: the nearest one above; output: None if the page shows none.

    mark: the word after `sh`, or "".
    """

    page: Path
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


def blocks(page: Path) -> list[Block]:
    """Return the blocks of commands of a page, in order."""
    text = page.read_text()
    fences = list(FENCE.finditer(text))
    prose = FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)
    found, headings = [], [(match.start(), match[1]) for match in HEADING.finditer(prose)]
    for fence, after in zip(fences, [*fences[1:], None]):
        if fence[1] != "sh":
            continue
        heading = [title for start, title in headings if start < fence.start()][-1]
        shown = after and after[1] == "text" and not text[fence.end() : after.start()].strip()
        found.append(Block(page, len(found), heading, fence[3], after[3] if shown else None, fence[2] or ""))
    return found


def masked(text: str) -> list[str]:
    """Return the lines of an output without the text that differs from run to run and without column widths."""
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
    """The shells of a reader, one for each page: a variable that a block exports is set in the next one.

    The shell of a page starts with the variables that the pages of `first` have exported. checkout: the folder to run
    the blocks in; scratch: a folder for the shells' own files; extra: variables of the reader's.
    """

    def __init__(self, first: list[Path], checkout: Path, scratch: Path, extra: dict[str, str]):
        self.first, self.checkout, self.scratch = first, checkout, scratch
        self.environ = {key: value for key, value in os.environ.items() if key not in UNUSED} | extra
        self.results: dict[Path, list[tuple[int, str]]] = {}

    def result(self, block: Block) -> tuple[int, str]:
        """Return the exit code and the output of a block; the first call runs it, after all blocks before it."""
        if block.page not in self.results:
            self.open(block.page)
        done = self.results[block.page]
        for one in blocks(block.page)[len(done) : block.number + 1]:
            done.append(self.run(one, self.exports(block.page)) if one.runs else (0, ""))
        return done[block.number]

    def open(self, page: Path) -> None:
        """Start the shell of a page, after the last block of each page before it."""
        exported = ""
        for one in self.first[: self.first.index(page)] if page in self.first else self.first:
            self.result(blocks(one)[-1])
            exported = self.exports(one).read_text()
        self.results[page] = []
        self.exports(page).write_text(exported)

    def exports(self, page: Path) -> Path:
        """Return the file of a shell's variables."""
        return self.scratch / str(page.relative_to(ROOT)).replace("/", "-")

    def run(self, block: Block, exports: Path) -> tuple[int, str]:
        """Run a block; return the exit code and all that was printed."""
        script = self.scratch / "block"
        script.write_text(block.text)
        command = f"set -eo pipefail; . {exports}; . {script}; export -p > {exports}"
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
