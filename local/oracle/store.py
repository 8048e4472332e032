"""Store small records that must outlive the process, by kind and key, in an append-only file of JSON lines.

One line holds the records that change together, so after a kill all of them are there or none: a line that was cut
short is ignored. A write returns when the operating system has it, so it survives the end of the process, but not a
crash of the machine.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

Changes = list[tuple[str, str, "dict | None"]]


class Store:
    """The records under a data folder; a kind's records keep the order in which they were first written."""

    def __init__(self, path: Path):
        self.path = path
        self.guard = threading.Lock()
        self.records: dict[str, dict[str, dict]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._replay()
        self._compact()
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def _replay(self) -> None:
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._apply(json.loads(line))

    def _compact(self) -> None:
        """Leave one line for each record, so that the file grows with the records, not with their changes."""
        fresh = self.path.with_suffix(".new")
        with fresh.open("w") as file:
            for kind, records in self.records.items():
                file.writelines(json.dumps([[kind, key, value]]) + "\n" for key, value in records.items())
        fresh.replace(self.path)

    def _apply(self, changes: Changes) -> None:
        for kind, key, value in changes:
            records = self.records.setdefault(kind, {})
            if value is None:
                records.pop(key, None)
            else:
                records[key] = value

    def write(self, *changes: tuple[str, str, dict | None]) -> None:
        """Put records, or remove those whose value is None; all of them or, if the process dies, none."""
        with self.guard:
            os.write(self.file, (json.dumps(changes) + "\n").encode())
            self._apply(list(changes))

    def get(self, kind: str, key: str) -> dict | None:
        """Return a record, not to be changed in place."""
        return self.records.get(kind, {}).get(key)

    def all(self, kind: str) -> list[dict]:
        """Return the records of a kind."""
        with self.guard:
            return list(self.records.get(kind, {}).values())

    def close(self) -> None:
        """Close the file; a write after this is an error."""
        with self.guard:
            os.close(self.file)
            self.file = -1
