"""Compile a bundle with the runtime's own interpreter, because Lambda's file system is read-only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from invoke import Exit

from ops import environment

WHICH = "import sys; print(sys.implementation.name, *sys.version_info[:2], sys.abiflags, sys.version)"


class Interpreter(NamedTuple):
    path: str
    version: str


def find(runtime: str) -> Interpreter | None:
    """Return the interpreter of a runtime on this machine, None if there is none; bytecode is specific to a version."""
    for path in candidates(runtime):
        command = [path, "-I", "-S", "-c", WHICH]
        output = subprocess.run(command, env=environment.clean(), capture_output=True, text=True).stdout
        if output.startswith(f"cpython 3 {runtime.removeprefix('python3.')}  "):
            return Interpreter(path, " ".join(output.split()[3:]))
    return None


def candidates(runtime: str) -> Iterator[str]:
    """Yield candidates: this interpreter, PATH without pyenv's shims, which may fail, the folders of pyenv and uv."""
    if runtime == f"python{sys.version_info[0]}.{sys.version_info[1]}":
        yield sys.executable
    minor = runtime.removeprefix("python")
    folders = [Path(folder) for folder in os.get_exec_path() if folder and Path(folder).name != "shims"]
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local" / "share" / "uv" / "python")
    for parent, pattern in ((pyenv, f"{minor}.*"), (uv, f"cpython-{minor}.*")):
        folders += [folder / "bin" for folder in sorted(parent.glob(pattern), key=newest, reverse=True)]
    for folder in folders:
        if os.access(folder / runtime, os.X_OK):
            yield str(folder / runtime)


def newest(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", folder.name)]


@contextmanager
def compiling(python: Interpreter | None, tree: Path, strict: bool) -> Iterator[None]:
    """Compile a tree while the body runs. strict: raise Exit if a file does not compile."""
    if python is None:
        yield
        return
    # One worker: the bytes of several differ from run to run.
    command = [python.path, "-S", "-m", "compileall", "-q" if strict else "-qq", "-j1"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/var/task", str(tree)]
    with subprocess.Popen(
        command,
        cwd=tree.parent,
        # No PYTHON… variable of the shell, and a fixed hash seed, so that the bytes are reproducible.
        env={"PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield
        output = process.communicate()[0]
    if strict and process.returncode:
        raise Exit(f"handler/ does not compile under {python.version.split()[0]}: {' '.join(output.split())}")
