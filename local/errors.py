"""The error of the local cloud."""

from __future__ import annotations


class LocalError(Exception):
    """One line: what happened, its cause, the next command. `detail` is the end of a log, to print above it."""

    def __init__(self, line: str, detail: str = ""):
        super().__init__(line)
        self.detail = detail
