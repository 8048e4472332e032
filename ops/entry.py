"""Set up the process of every task: output line by line, and one line for an unexpected error."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
from pathlib import Path
from types import TracebackType

from ops.environment import OTHER_ENDPOINT

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "errors"
# The values that must not be printed or stored; config.load adds those of its environment.
secrets: set[str] = set()
SECRET_NAMES = re.compile(r"(PASSWORD|TOKEN|SECRET|ACCESS_KEY|API_KEY)(?!\w*_FILE$)", re.IGNORECASE)
HEADER = re.compile(r"(authorization['\"]?[:=,]\s*b?['\"]?|\bBearer\s+)[^'\"\n]+", re.IGNORECASE)
# These values, which `inv env.shell` exports for another endpoint than AWS, are no secrets.
NO_SECRETS = set(OTHER_ENDPOINT.values())
# Shorter values occur in any text by chance.
MIN_SECRET = 4
REDACTED = "(redacted)"


def install() -> None:
    """Print what is printed at once, also into a pipe or a file, and report unexpected errors by `report`."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.excepthook = report
    threading.excepthook = lambda given: report(given.exc_type, given.exc_value, given.exc_traceback)


def report(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """Print one line on an unexpected error; its traceback, without secrets, is in the file that the line names."""
    if issubclass(kind, BrokenPipeError):
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        line = "The reader of the output has ended, and so has the task, half way; run it again without a pipe"
    elif kind is ValueError and raised_by_option(where):
        value = str(error).rpartition(": ")[2]
        line = f"{value} is not a whole number, which an option needs; `inv --help TASK` lists them. Nothing was done"
    else:
        text = redacted("".join(traceback.format_exception(kind, error, where)))
        cause = " ".join(redacted(f"{kind.__name__}: {error}").split())[:300]
        line = f"Unexpected error: {cause}; its traceback is in {stored(text)}. Read it, then run the command again"
    print(f"{line}.", file=sys.stderr, flush=True)


def raised_by_option(where: TracebackType | None) -> bool:
    """Return whether Invoke has raised an error for the value of an option, before any task began."""
    return bool(where) and traceback.extract_tb(where)[-1].filename.endswith("invoke/parser/argument.py")


def redacted(text: str) -> str:
    """Return a text without tokens, headers and the secrets of this process and its environment file."""
    given = {value for name, value in os.environ.items() if SECRET_NAMES.search(name)} - NO_SECRETS
    for secret in sorted(secrets | given, key=len, reverse=True):
        if len(secret) >= MIN_SECRET:
            for form in (secret, repr(secret)[1:-1], urllib.parse.quote(secret, safe="")):
                text = text.replace(form, REDACTED)
    return HEADER.sub(rf"\1{REDACTED}", text)


def stored(text: str) -> str:
    """Write a file of mode 0600 in build/errors/, or in the folder of temporary files; returns its path."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}.{os.getpid()}.txt"
    for folder in (FOLDER, Path(tempfile.gettempdir())):
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            continue
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    return "no file, because none could be written"
