"""Copies of the checkout: tests run, edit and deploy a copy, never the checkout itself."""

from __future__ import annotations

import compileall
import fcntl
import itertools
import os
import py_compile
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[2]
# The state folder of a worker's cloud, which a killed run leaves behind and the next one takes over.
STATE = CHECKOUT / ".local" / f"test-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}"
COPIES = STATE.with_name("test-copies")
# Files that a copy keeps from the run before: their names or headers show which source they belong to.
KEPT = {"__pycache__", "packages"}
# The folders that git ignores, for a checkout without git, such as a downloaded ZIP.
IGNORED = {".git", ".venv", ".local", "build", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
SHIPPED = {"local.env", "example.env"}


def files(checkout: Path = CHECKOUT) -> list[str]:
    """Return the paths of the files that git holds or would add: neither build/ nor a person's own env/NAME.env."""
    listed = git(checkout, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return sorted(without_git(checkout))
    return [name for name in listed.split("\0") if name and (checkout / name).is_file()]


def git(checkout: Path, *words: str) -> str | None:
    """Return what git prints in a checkout; None without git, or if the folder is only inside of another repository."""
    with suppress(FileNotFoundError):
        for command in (["ls-files", "--error-unmatch", "tasks.py"], words):
            done = subprocess.run(["git", *command], cwd=checkout, capture_output=True, text=True)
            if done.returncode:
                return None
        return done.stdout
    return None


def without_git(checkout: Path) -> Iterator[str]:
    """Yield the paths of a checkout's files without those that git would ignore."""
    for folder, folders, names in os.walk(checkout):
        folders[:] = [name for name in folders if name not in IGNORED]
        for name in names:
            path = (Path(folder) / name).relative_to(checkout)
            own = path.parent.name == "env" and path.suffix == ".env" and name not in SHIPPED
            if path.name != ".venv" and not own and not name.endswith((".zip", ".part")):
                yield str(path)


def copy(folder: Path, checkout: Path = CHECKOUT) -> Path:
    """Make a folder a copy of the checkout with its .venv, whatever was in it before; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    link, wanted = folder / ".venv", files(checkout)
    if link.is_dir() and not link.is_symlink():
        # A `make` in the copy makes .venv if the one of the checkout is out of date.
        shutil.rmtree(link)
    remove_others(folder, {folder / name for name in wanted} | {link})
    for name in wanted:
        source, target = checkout / name, folder / name
        if not (target.exists() and same(source, target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            # With its time: make and Python compare times.
            shutil.copy2(source, target)
    if not link.is_symlink():
        link.symlink_to(checkout / ".venv")
    return folder


def compile_modules(folder: Path) -> None:
    """Compile what `inv` loads, since Invoke writes no bytecode; Python compares it with the source by its hash."""
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_file(folder / "tasks.py", quiet=2, invalidation_mode=mode)
    for name in ("ops", "handler", "layer", "local"):
        compileall.compile_dir(folder / name, quiet=2, invalidation_mode=mode)


def same(source: Path, target: Path) -> bool:
    one, other = source.stat(), target.stat()
    return (one.st_mtime_ns, one.st_size, one.st_mode) == (other.st_mtime_ns, other.st_size, other.st_mode)


def remove_others(folder: Path, wanted: set[Path]) -> None:
    for path in folder.iterdir():
        if path in wanted or path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            remove_others(path, wanted)
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink()


def own_copy() -> tuple[Path, IO]:
    """Return a copy that no other process uses, and the lock on it, which is held until it is closed.

    Copies are used again by later runs: what Python compiled and the packages of the bundle stay there.
    """
    COPIES.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        lock = (COPIES / f"{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        folder = copy(COPIES / str(number))
        compile_modules(folder)
        return folder, lock
    raise AssertionError


def status(checkout: Path = CHECKOUT) -> set[str]:
    """Return what git reports as changed or new in the checkout, and each file of env/, ignored ones included."""
    listed = git(checkout, "status", "--porcelain", "--untracked-files=all")
    if listed is None:
        listed = "\n".join(f"{name} {(checkout / name).stat().st_mtime_ns}" for name in without_git(checkout))
    return {*listed.splitlines(), *(f"env/{path.name}" for path in (checkout / "env").iterdir())}
