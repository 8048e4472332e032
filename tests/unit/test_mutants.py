"""The mutants of a chaos run fit the current code."""

from __future__ import annotations

import ast
import shutil

import pytest
from chaos.checkout import MUTANTS, ROOT, mutate


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_changes_the_code_and_still_compiles(mutant, tmp_path):
    folder = tmp_path / "handler"
    shutil.copytree(ROOT / "handler", folder)
    mutate(folder, mutant)
    mutated = (folder / MUTANTS[mutant][0]).read_text()
    assert mutated != (ROOT / "handler" / MUTANTS[mutant][0]).read_text()
    if MUTANTS[mutant][0].endswith(".py"):
        ast.parse(mutated)
