"""Read from one database while the other one writes: a thread of its own, and a queue that holds a few chunks."""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from . import balances, deadline
from .errors import Unavailable

# Chunks that are read and not yet taken: the memory of a reader that is faster.
CHUNKS = 4
# A call that is not waiting for anything ends by itself.
PATIENCE_SECONDS = 0.2


class Ahead:
    """Rows that a thread reads while the caller takes them, and a last result after the rows.

    An error of the thread is raised where the rows or the last result are taken.
    """

    def __init__(self, read: Callable[[], Iterable], last: Callable):
        self.read, self.last = read, last
        self.chunks: queue.Queue = queue.Queue(CHUNKS)
        self.stopped = False
        self.thread = threading.Thread(target=self.work, name="ahead", daemon=True)

    def work(self) -> None:
        try:
            rows = iter(self.read())
            while not self.stopped and (some := list(itertools.islice(rows, balances.CHUNK_LINES))):
                self.chunks.put(some)
            self.chunks.put([])
            if not self.stopped:
                self.chunks.put(self.last())
        except BaseException as error:
            self.chunks.put(error)

    def rows(self) -> Iterator:
        """Return the rows in the order in which they are read."""
        while some := self.take():
            yield from some

    def result(self) -> object:
        """Return what was read last, behind the rows."""
        return self.take()

    def take(self) -> object:
        left = deadline.left()
        try:
            found = self.chunks.get(timeout=None if left == math.inf else max(0.0, left))
        except queue.Empty:
            raise Unavailable(
                "the invocation's time was over before all rows were read; nothing was replaced"
            ) from None
        if isinstance(found, BaseException):
            raise found
        return found


@contextlib.contextmanager
def ahead(read: Callable[[], Iterable], last: Callable, interrupt: Callable[[], None]) -> Iterator[Ahead]:
    """Read rows and then a last result in a thread of its own, which has ended at the end of the block.

    interrupt: ends the call in which the thread waits, if the block ends before the thread.
    """
    reader = Ahead(read, last)
    reader.thread.start()
    try:
        yield reader
    finally:
        reader.stopped = True
        # Room for all that the thread can still put: a chunk, the end, and the last result or an error.
        with contextlib.suppress(queue.Empty):
            while True:
                reader.chunks.get_nowait()
        reader.thread.join(PATIENCE_SECONDS)
        if reader.thread.is_alive():
            # An interrupt of a dead connection fails, and the error to report is that of the block.
            with contextlib.suppress(Exception):
                interrupt()
            reader.thread.join()
