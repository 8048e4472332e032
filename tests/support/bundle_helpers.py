"""The bundle for this machine's own Python, unzipped, and scripts that run from it alone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from support.plugin import UNUSED

from ops import bundle

HOST = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def made_for_this_host(client: str) -> bundle.Bundle:
    return bundle.build({"RUNTIME": HOST, "BUNDLE_PLATFORM": "", "ORACLE_CLIENT": client})


def unzip_to(folder: Path, client: str) -> Path:
    """Make the bundle of a client mode, thick or thin, and unzip it; returns the folder."""
    with zipfile.ZipFile(made_for_this_host(client).path) as archive:
        archive.extractall(folder)
    return folder


def bare(folder: Path, script: str, cwd: Path, **environ: str) -> str:
    """Run a script in an interpreter that has the bundle on its path and otherwise its standard library alone."""
    head = f"import sys; sys.path.insert(0, {str(folder)!r}); import os\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", head + script],
        cwd=cwd,
        env={**UNUSED, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
