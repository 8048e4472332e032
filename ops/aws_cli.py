"""Run a plain command of the AWS CLI of requirements.txt in this process, which imports the CLI once.

A program `aws` takes 0.5 s to start; here only the first command does, each later one takes 0.04 s. The CLI gets the
same words and the same environment as from a shell, and a session of its own, so that no command changes the next one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NamedTuple

# A command that bash would pass on as it is: words of these characters, or in single quotes.
PLAIN = re.compile(r"aws (?:[\w@%+=:,./ -]|'[^']*')+", re.ASCII)
# The two forms of bash that our commands of the AWS CLI have: output into a file, and the first field of a file.
INTO = re.compile(r"mkdir -p ([\w./-]+) && (aws .*) > ([\w./-]+)", re.ASCII)
FIELD = re.compile(r'"\$\(cut -f1 ([\w./-]+)\)"', re.ASCII)
INTERRUPTED = 128 + signal.SIGINT
# The models of AWS's services that this process has read: the larger part of a command's time.
_shared: dict[str, object] = {}


class Parsed(NamedTuple):
    """The arguments of a command, and the file for its output, which `mkdir -p` prepares; "" for none."""

    words: list[str]
    file: str


def parse(command: str, environ: Mapping[str, str], folder: Path) -> Parsed | None:
    """Return a command that can run here, its files in a folder; None for one that needs bash, or another CLI."""
    into = INTO.fullmatch(command)
    file = into[3] if into and str(Path(into[3]).parent) == into[1] else ""
    try:
        plain = FIELD.sub(lambda found: shlex.quote(first_field(folder / found[1])), into[2] if file else command)
    except OSError:
        return None
    own = Path(sys.executable).with_name("aws")
    if not PLAIN.fullmatch(plain) or shutil.which("aws", path=environ["PATH"]) != str(own):
        return None
    # The environment of a process is that of all its threads.
    alone = threading.current_thread() is threading.main_thread()
    return Parsed(shlex.split(plain)[1:], file) if alone else None


def first_field(file: Path) -> str:
    return "\n".join(line.partition("\t")[0] for line in file.read_text().splitlines())


def run(command: Parsed, environ: Mapping[str, str], folder: Path, seconds: float | None) -> tuple[int, str, str]:
    """Return (exit code, output, errors) of the CLI in a folder; raises TimeoutExpired after `seconds`."""
    with surroundings(environ, folder) as (output, errors), time_limit(command.words, seconds):
        code = call(command.words)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    printed = text_of(output)
    if command.file:
        (folder / command.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / command.file).write_text(printed, encoding="utf-8")
        printed = ""
    return code, printed, text_of(errors)


def call(words: list[str]) -> int:
    """Return the exit code of the CLI, called as its program does it."""
    import awscli
    from awscli import clidriver

    # It sets this when it is imported, for its own models.
    os.environ["AWS_DATA_PATH"] = str(Path(awscli.__file__).with_name("data"))
    driver = clidriver.create_clidriver()
    loader = _shared.setdefault("loader", driver.session.get_component("data_loader"))
    driver.session.register_component("data_loader", loader)
    try:
        return driver.main(words)
    except SystemExit as stop:
        # argparse refuses words by 2; a signal that ends the task raises its number plus 128.
        if not isinstance(stop.code, int) or stop.code >= 128:
            raise
        return stop.code


@contextlib.contextmanager
def surroundings(environ: Mapping[str, str], folder: Path) -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    """Give the body a process's environment, folder and output; yields stdout and stderr, and puts all of it back."""
    before, here, arguments = dict(os.environ), os.getcwd(), sys.argv
    log = logging.getLogger("awscli")
    level, handlers = log.level, log.handlers[:]
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace") for _ in range(2))
    try:
        replace_environment(environ)
        os.chdir(folder)
        # The CLI's own errors begin with its name.
        sys.argv = ["aws"]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            yield output, errors
    finally:
        replace_environment(before)
        os.chdir(here)
        sys.argv = arguments
        # Each session adds a handler that writes to its own stderr.
        log.setLevel(level)
        log.handlers[:] = handlers


def replace_environment(environ: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)


@contextlib.contextmanager
def time_limit(words: list[str], seconds: float | None) -> Iterator[None]:
    """Raise TimeoutExpired in the body after `seconds`; None: never."""
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Over

    before = signal.signal(signal.SIGALRM, stop)
    # Again after each second: what is raised while Python calls a destructor is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    except Over:
        raise subprocess.TimeoutExpired(["aws", *words], seconds) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Over(BaseException):
    """The time of a command is over; not an Exception, which the CLI would report as its own."""


def text_of(stream: io.TextIOWrapper) -> str:
    """Return what was written, with the ends of lines as a program's output is read."""
    stream.flush()
    text = stream.buffer.getvalue().decode("utf-8", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
