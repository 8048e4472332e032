"""The packages of handler/requirements.txt as files for a target: which, from where, and what of them."""

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

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "handler" / "requirements.txt"
# oracledb wants these in its metadata, and thin mode imports them; thick mode leaves encryption to Instant Client.
THIN_ONLY = {"cryptography", "cffi", "pycparser"}
# dateutil's own copy of what tzdata is there for, and adapters to packages that the lock does not have.
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
    """uv links files from its cache unless it is told to copy, and then whoever edits one edits the cache."""
    wheels = f" --python-platform {q(platform.wheels)}" if platform.wheels else ""
    return (
        f"uv pip install --quiet --no-deps --target {q(str(tree))} --python {q(sys.executable)}"
        f" --python-version {platform.runtime.removeprefix('python')}{wheels}"
        " --only-binary :all: --require-hashes --no-compile-bytecode --link-mode copy"
        f" --requirement {q(str(requirements))}"
    )


def install(platform: Platform, tree: Path) -> None:
    """Fill a new folder with what the bundle takes of the target's packages; raises Exit."""
    requirements = tree.with_name("requirements.txt")
    requirements.write_text(locked_for(platform.client, LOCK.read_text()))
    command = install_command(platform, requirements, tree)
    done = subprocess.run(
        [uv(), *shlex.split(command)[1:]], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise Exit(explained(done.stderr, platform))
    for name in files_of(tree):
        if is_left_out(name):
            (tree / name).unlink()


def files_of(tree: Path) -> list[str]:
    """The names of a tree's files in one order; pathlib takes several times as long."""
    start = len(str(tree)) + 1
    return sorted(f"{folder}/{name}"[start:] for folder, _, names in os.walk(tree) for name in names)


def locked_for(client: str, lock: str) -> str:
    """The lock without what a mode of oracledb does not import."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    left_out = THIN_ONLY if client == "thick" else set()
    return "".join(block for block in blocks if block.partition("==")[0] not in left_out)


def uv() -> str:
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if not found:
        raise Exit("uv, which installs the function's packages, is not here: run `make .venv/ready`")
    return found


def explained(said: str, platform: Platform) -> str:
    """One line for a person from uv's several."""
    without = re.search(r"[Bb]ecause ([\w.-]+)(?:\{[^}]*\})?==(\S+) has no usable wheels", said)
    if without:
        return f"{without[1]} {without[2]} has no wheel for {platform.name}; {ADVICE}"
    if "--python-platform" in said:
        return f"BUNDLE_PLATFORM {platform.wheels!r} is no platform that uv knows, such as x86_64-manylinux_2_34"
    return f"the packages for {platform.name} could not be installed: {' '.join(said.split())}"


def is_left_out(name: str) -> bool:
    """Programs, sources, stubs, tests, what installers keep for themselves."""
    top, *rest = name.split("/")
    if top.endswith(".dist-info"):
        # pg8000 and scramp ask importlib.metadata for their own version.
        return rest != ["METADATA"]
    tests = {"tests", "test"} & {top, *rest[:-1]}
    return bool(tests) or top == "bin" or top.startswith(".") or name.endswith(SOURCES) or name.startswith(UNUSED)
