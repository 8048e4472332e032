"""Print a line while something takes long, so that it does not seem to hang. Needs the standard library alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_SECONDS, NEXT_SECONDS = 10.0, 20.0


def print_on_terminal(line: str) -> None:
    """Print a line on stderr if that is a terminal: cron sends a mail about each line."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


@contextmanager
def waiting_for(what: str, report: Callable[[str], None] = print_on_terminal) -> Iterator[None]:
    """Report after FIRST_SECONDS, and then every NEXT_SECONDS, how long the body has been waiting, until it ends."""
    ended, begin = threading.Event(), time.monotonic()

    def watch() -> None:
        pause = FIRST_SECONDS
        while not ended.wait(pause):
            report(f"still waiting for {what}: {time.monotonic() - begin:.0f} s")
            pause = NEXT_SECONDS

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
