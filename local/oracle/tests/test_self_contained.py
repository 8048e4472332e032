"""The stand-in is a package that can be taken out of this repository."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))
# The rest of the repository, each folder by the name under which its modules are imported.
OTHERS = (
    {path.name for path in ROOT.iterdir() if path.is_dir()} | {path.stem for path in ROOT.glob("*.py")} | {"support"}
)


def imports(tree: ast.Module, depth: int) -> Iterator[str]:
    """Return the modules that a file imports, relative ones under `local.oracle`; depth: its folders in the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "local.oracle" if node.level <= depth + 1 else "local"
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_the_stand_in_itself_is_imported(file):
    found = set(imports(ast.parse(file.read_text()), len(file.relative_to(PACKAGE).parts) - 1))
    foreign = {name for name in found if name.split(".")[0] in OTHERS and not f"{name}.".startswith("local.oracle.")}
    assert foreign == set()


def test_help_is_shown_without_the_rest_of_the_repository(tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "oracle").symlink_to(PACKAGE)
    command = [sys.executable, "-m", "local.oracle", "--help"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "--procedure-seconds" in shown
