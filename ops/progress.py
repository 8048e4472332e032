"""Print a line while something takes long, so that it does not seem to hang. Needs the standard library alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_SECONDS, NEXT_SECONDS = 10.0, 20.0


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Print how long the body has been running, after FIRST_SECONDS and then every NEXT_SECONDS, until it ends.

    It prints on stderr, and only if that is a terminal: cron sends a mail about each line.
    """
    ended, begin = threading.Event(), time.monotonic()
    # The body can redirect it.
    stderr = sys.stderr

    def watch() -> None:
        pause = FIRST_SECONDS
        while not ended.wait(pause):
            if stderr.isatty():
                print(f"still waiting for {what}: {time.monotonic() - begin:.0f} s", file=stderr, flush=True)
            pause = NEXT_SECONDS

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
