"""Install the packages of handler/requirements.txt for a platform, without what the function does not use."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from shlex import quote as q
from typing import NamedTuple

from invoke import Exit

from ops import installer

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "handler" / "requirements.txt"
# oracledb depends on these and imports them in thin mode; in thick mode Instant Client does the encryption.
THIN_ONLY = {"cryptography", "cffi", "pycparser"}
# dateutil's own copy of tzdata, and adapters to packages that the lock does not have.
UNUSED = ("dateutil/zoneinfo/dateutil-zoneinfo.tar.gz", "oracledb/plugins/", "restate/ext/")
SOURCES = (".pyi", ".pyc", ".pyx", ".pxd", ".pxi", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs")
ADVICE = "change RUNTIME or BUNDLE_PLATFORM, or handler/requirements.in and run `inv lock`. Nothing was built."


class Platform(NamedTuple):
    """runtime: Lambda's name; wheels: uv's name of their platform, empty for this machine's; client: thick or thin."""

    runtime: str
    wheels: str
    client: str

    @property
    def name(self) -> str:
        return f"{self.runtime} on {self.wheels or 'this machine'}, {self.client}"


def lock_command() -> str:
    return (
        "uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.10"
        " --custom-compile-command 'inv lock' --output-file handler/requirements.txt handler/requirements.in"
    )


def install_command(platform: Platform, requirements: Path, tree: Path) -> str:
    """Return the command that installs the wheels. It copies them, because a link would lead into uv's cache."""
    wheels = f" --python-platform {q(platform.wheels)}" if platform.wheels else ""
    return (
        f"uv pip install --quiet --no-deps --target {q(str(tree))} --python {q(sys.executable)}"
        f" --python-version {platform.runtime.removeprefix('python')}{wheels}"
        " --only-binary :all: --require-hashes --no-compile-bytecode --link-mode copy"
        f" --requirement {q(str(requirements))}"
    )


def install(platform: Platform, tree: Path) -> None:
    """Fill a new folder with the packages of a platform, without unused files; raises Exit."""
    requirements = tree.with_name("requirements.txt")
    requirements.write_text(locked_for(platform.client, LOCK.read_text()))
    command = install_command(platform, requirements, tree)
    done = subprocess.run(
        [uv(), *shlex.split(command)[1:]],
        cwd=ROOT,
        env=installer.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Exit(explain(done.stderr, platform))
    for name in files_of(tree):
        if is_left_out(name):
            (tree / name).unlink()


def files_of(tree: Path) -> list[str]:
    """Return the sorted names of a tree's files; pathlib takes several times as long."""
    start = len(str(tree)) + 1
    return sorted(f"{folder}/{name}"[start:] for folder, _, names in os.walk(tree) for name in names)


def locked_for(client: str, lock: str) -> str:
    """Return the lock without the packages that a mode of oracledb does not import."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    left_out = THIN_ONLY if client == "thick" else set()
    return "".join(block for block in blocks if block.partition("==")[0] not in left_out)


def uv() -> str:
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if not found:
        raise Exit("uv, which installs the function's packages, is not installed; run `make .venv/ready`")
    return found


def explain(output: str, platform: Platform) -> str:
    """Return uv's error in one line."""
    without = re.search(r"[Bb]ecause ([\w.-]+)(?:\{[^}]*\})?==(\S+) has no usable wheels", output)
    if without:
        return f"{without[1]} {without[2]} has no wheel for {platform.name}; {ADVICE}"
    if "--python-platform" in output:
        return f"BUNDLE_PLATFORM {platform.wheels!r} is not a platform of uv, such as x86_64-manylinux_2_34"
    return f"the packages for {platform.name} could not be installed: {installer.explain(output)}"


def is_left_out(name: str) -> bool:
    """Return whether a file is a program, source, stub, test or an installer's record."""
    top, *rest = name.split("/")
    if top.endswith(".dist-info"):
        # pg8000 and scramp ask importlib.metadata for their own version.
        return rest != ["METADATA"]
    tests = {"tests", "test"} & {top, *rest[:-1]}
    return bool(tests) or top == "bin" or top.startswith(".") or name.endswith(SOURCES) or name.startswith(UNUSED)
