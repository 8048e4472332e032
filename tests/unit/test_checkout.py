"""The copies that tests work on, and the check that a run leaves the checkout as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import checkout

from ops import ping


@pytest.fixture
def repository(tmp_path) -> Path:
    """Return a small git repository with a person's own environment, which git ignores, and a .venv."""
    folder = tmp_path / "repository"
    (folder / "env").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".gitignore").write_text("/.venv/\n/build/\n/env/*.env\n!/env/local.env\n")
    for name in ("env/local.env", "env/prod.env", "tasks.py"):
        (folder / name).write_text(name)
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_copy_has_what_git_holds_or_would_add(repository, tmp_path):
    (repository / "new.py").write_text("")
    made = checkout.copy(tmp_path / "copy", repository)
    assert paths(made) == {".gitignore", "env/local.env", "tasks.py", "new.py"}
    assert (made / ".venv").readlink() == repository / ".venv"


@pytest.mark.parametrize("without", ["program", "repository"])
def test_copy_of_a_checkout_without_git_has_the_same_files(repository, tmp_path, monkeypatch, without):
    if without == "program":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        # A ZIP that was unpacked inside of another repository.
        shutil.rmtree(repository / ".git")
        subprocess.run(["git", "init", "-q"], cwd=repository.parent, check=True)
    before = checkout.status(repository)
    assert paths(checkout.copy(tmp_path / "copy", repository)) == {".gitignore", "env/local.env", "tasks.py"}
    (repository / "tasks.py").write_text("written by a test")
    assert checkout.status(repository) != before


def test_commit_is_that_of_this_checkout_or_unknown(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(ping, "ROOT", repository)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    subprocess.run(["git", *identity, "commit", "-qm", "a"], cwd=repository, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout
    assert ping.description("d" * 64) == f"{'d' * 12} git {commit[:10]}"
    inside = repository / "unpacked"
    inside.mkdir()
    (inside / "tasks.py").touch()
    monkeypatch.setattr(ping, "ROOT", inside)
    assert ping.description("d" * 64) == f"{'d' * 12} git unknown"
    monkeypatch.setattr(ping, "ROOT", repository)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ping.description("d" * 64) == f"{'d' * 12} git unknown"


def test_copy_made_again_is_as_the_checkout_whatever_a_test_did(repository, tmp_path):
    made = checkout.copy(tmp_path / "copy", repository)
    (made / "tasks.py").write_text("edited")
    (made / "env" / "local.env").unlink()
    (made / ".venv").unlink()
    for name in (
        "env/test.env",
        "build/lambda.zip",
        "build/packages/kept.zip",
        ".venv/bin/python",
        "handler/notes.ipynb",
    ):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("")
    checkout.copy(made, repository)
    assert paths(made) == {".gitignore", "env/local.env", "tasks.py", "build/packages/kept.zip"}
    assert (made / "tasks.py").read_text() == "tasks.py"
    assert (made / ".venv").is_symlink()
    assert not (made / "handler").exists()


def test_copy_follows_a_file_that_changes_its_mode(repository, tmp_path):
    made = checkout.copy(tmp_path / "copy", repository)
    (repository / "tasks.py").chmod(0o755)
    checkout.copy(made, repository)
    assert os.access(made / "tasks.py", os.X_OK)


@pytest.mark.parametrize("name", ["tasks.py", "new.py", "env/local.env", "env/ignored.env"])
def test_status_changes_with_any_file_that_a_test_writes(repository, name):
    before = checkout.status(repository)
    (repository / name).write_text("written by a test")
    assert checkout.status(repository) != before


def test_status_ignores_build(repository):
    before = checkout.status(repository)
    (repository / "build").mkdir()
    (repository / "build" / "lambda.zip").write_text("")
    assert checkout.status(repository) == before
