"""Check the English of this repository for `make lint`: words that it does not use, and the first word of docstrings.

ruff's D401 finds a docstring that does not begin with an imperative, but only if it knows the word.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PLACES = (
    *("README.md", "CHANGELOG.md", "Makefile", "tasks.py", "pyproject.toml", ".github", "docs", "env", "alarms"),
    *("policies", "handler", "layer", "local", "ops", "tests"),
)
ENDINGS = {"", ".md", ".py", ".sql", ".sh", ".env", ".j2", ".json", ".yml", ".toml"}
# Words that this repository does not use, each a regular expression, and what it uses.
WORDS = {
    r"doors?": "shell",
    r"by[_ -]hand": "manual commands, yourself",
    r"shipping|bring_to_bucket": "upload",
    r"strays?": "unknown accounts",
    r"verdicts?|judg(?:e|es|ed|ing)": "job status, evaluate",
    r"look(?:s|ed|ing)?(?![- ]?(?:up|back)\b| something up\b| it up\b)": "poll, read, search, check",
    r"forestall\w*": "reserve the job's name",
    r"disarm\w*": "give up",
    r"settle_earlier": "recover the previous job",
    r"tick(?:s|ed|ing)?": "schedule time, planned run",
    r"borrow(?:s|ed|ing)?|papers": "system libraries, licence files",
    r"plant(?:s|ed|ing)?|lift(?:s|ed|ing)?": "inject, clear",
    r"str(?:ike|ikes|iking|uck)": "fault",
    r"rehears\w*": "dry run, soak test",
    r"mend(?:s|ed|ing)?": "fix",
    r"told|tell(?:s|ing)?|said|say(?:s|ing)?": "report, print, name",
    r"warmth": "keep-warm",
    r"bears?|borne": "have, accept",
    r"stand(?:s|ing)?(?![- ]in\b)|stood": "is, stays, means",
    r"let go|lets go|take away|takes away": "delete, release",
    r"(?:keep|keeps|kept|leave|leaves|left) (?:it |them )?whole": "unchanged",
    r"no news": "not reported",
    r"comes? to (?:its|their) end": "finish",
    # A comment or docstring begins with a noun or a verb; a heading of a page may be a question.
    r"(?:(?<=^# )|(?<= # )|(?<=^-- )|(?<=\"\"\"))what": "a noun: The result of, The limits of",
}
USED = re.compile(rf"(?<![\w-])(?:{'|'.join(f'({word})' for word in WORDS)})(?![\w-])", re.IGNORECASE)
# The name of a function or a class where it is defined.
NAME = re.compile(r"(?<=def )\w+|(?<=class )\w+")
# Where such a word is right, and why.
EXCEPTIONS = {
    "ops/english.py": "the list itself",
    "tests/unit/test_english.py": "its examples",
    "local/processes.py": "the kernel counts a process's start time in clock ticks",
    "local/service.py": "the same",
    "local/state.py": "the same",
}
# First words of a docstring that are no verb and that D401 does not know.
NO_VERB = re.compile(
    "(?:All|Another|Anything|As|By|Each|Every|From|How|In|It|Its|No|One|Several|That|The|These|This|Those|Two|Under|What"
    r"|When|Where|Whether|Which|Who|Why|With|Without)\b|[^A-Z]|[A-Z]+\b|\w+['’:]"
)


def faults(root: Path) -> Iterator[str]:
    """Yield a line for each word that is not used here, and for each docstring that does not begin with a verb."""
    for path in files(root):
        name, text = path.relative_to(root).as_posix(), path.read_text()
        if name not in EXCEPTIONS:
            yield from (f"{name}:{line}: {one}" for line, one in unused_words(text))
        if path.suffix == ".py":
            yield from (f"{name}:{line}: {one}" for line, one in docstrings_without_verb(text))


def files(root: Path) -> Iterator[Path]:
    """Yield the files that are written in English."""
    for place in PLACES:
        found = [root / place] if (root / place).is_file() else sorted((root / place).rglob("*"))
        yield from (one for one in found if one.is_file() and one.suffix in ENDINGS)


def unused_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, message) for each word of WORDS in a text; also within a name, such as that of a test."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in USED.finditer(NAME.sub(lambda name: name[0].replace("_", " "), line)):
            plain = list(WORDS.values())[match.lastindex - 1]
            yield number, f"{match[0]!r}: use a plain word, such as {plain}"


def docstrings_without_verb(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, message) for each public function whose docstring does not begin with a verb; tests need none."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith(("_", "test_")):
            docstring = ast.get_docstring(node)
            if docstring and NO_VERB.match(docstring):
                begin = docstring.split()[0]
                yield node.lineno, f"the docstring of {node.name} begins with {begin!r}: use a verb, such as Return"
