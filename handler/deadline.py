"""The rest of the running invocation's time, so that a step reports its error before Lambda ends the process."""

from __future__ import annotations

import math
import time

# The reserve to report the error and to let the databases roll back: a tenth, within these bounds, in seconds.
LEAST_MARGIN, MOST_MARGIN = 1, 10

# By the monotonic clock; without an end outside of Lambda.
_end = math.inf


def begin(context) -> None:
    """Take an invocation's remaining time from its Lambda context; None means that it has no end."""
    global _end
    if context is None:
        _end = math.inf
        return
    left = context.get_remaining_time_in_millis() / 1000
    _end = time.monotonic() + left - min(MOST_MARGIN, max(LEAST_MARGIN, left / 10))


def left() -> float:
    """Return the seconds that a step may still use; 0 or less if it should not begin anything."""
    return _end - time.monotonic()
