"""Faults on demand: one file per fault in the folder `faults` under the stand-in's data.

The file's name is the fault, its content is the value: `echo 5 > data/faults/procedure_seconds`. A one-shot
fault is consumed by removing its file, so exactly one call meets it. Files outlive a restart of the stand-in,
need no connection (the listener may be the fault), and `ls` shows what is planted.
"""

from __future__ import annotations

from pathlib import Path


class Faults:
    """The faults planted under one data folder; read anew at every use."""

    def __init__(self, data: Path):
        self.folder = Path(data) / "faults"
        self.folder.mkdir(parents=True, exist_ok=True)

    def value(self, name: str) -> str | None:
        """The content of a planted fault, stripped, or None where it is not planted."""
        try:
            return (self.folder / name).read_text().strip()
        except FileNotFoundError:
            return None

    def take(self, name: str) -> str | None:
        """Consume a one-shot fault: its content for exactly one caller, None for all others."""
        path = self.folder / name
        claimed = path.with_name(f".{name}.taken")
        try:
            path.rename(claimed)
        except FileNotFoundError:
            return None
        value = claimed.read_text().strip()
        claimed.unlink()
        return value

    def plant(self, name: str, value: object = "") -> None:
        """Plant a fault, whole or not at all."""
        partial = self.folder / f".{name}.new"
        partial.write_text(str(value))
        partial.rename(self.folder / name)

    def lift(self, name: str) -> None:
        """Remove a fault; one that is not planted is no error."""
        (self.folder / name).unlink(missing_ok=True)
