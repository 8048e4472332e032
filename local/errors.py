"""The one error that a person reads."""

from __future__ import annotations


class LocalError(Exception):
    """One line: what was seen, what is known, what to do next. `detail` is a log's tail to show above it."""

    def __init__(self, line: str, detail: str = ""):
        super().__init__(line)
        self.detail = detail
