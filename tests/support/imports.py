"""The imports of a Python file of the repository, at its top and inside its functions."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def names_in(path: Path) -> Iterator[str]:
    """Yield the full names that a file imports, such as "ops.config" or "ops.config.load"."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(part for part in ((package if node.level else ""), node.module or "") if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def file_of(name: str) -> Path | None:
    """Return the file of one of our modules, or None for a package's, a folder's or an attribute's name."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def closure(starts: Iterable[str]) -> set[Path]:
    """Return the files of some of our modules, and of all our modules that these import, directly or indirectly.

    tasks.py, which imports all tasks, is left out: only the index of the tasks imports it.
    """
    found: set[Path] = set()
    left = [path for path in map(file_of, starts) if path]
    while left:
        path = left.pop()
        if path not in found and path != ROOT / "tasks.py":
            found.add(path)
            left += [other for other in map(file_of, names_in(path)) if other]
    return found


def top_level(paths: Iterable[Path]) -> set[str]:
    """Return the first parts of all names that files import, such as {"ops", "re"}."""
    return {name.partition(".")[0] for path in paths for name in names_in(path) if name}
