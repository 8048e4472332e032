"""Check what `make demo` needs of this machine before it downloads and starts anything."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from invoke import Exit

from ops import bundle, bytecode, env_file
from ops.packages import Platform

from . import tools
from .errors import LocalError
from .state import ROOT, State, tools_folder

# Measured: 0.5 GB of programs. npm and uv also keep their downloads, and the services need room for data.
DISK_FIRST, DISK_LATER = 2_000_000_000, 500_000_000
# Measured: all services and one function use 0.45 GB after one closing. The commands of a deploy need some more.
MEMORY = 700_000_000
MEMINFO = Path("/proc/meminfo")


def check(state: State) -> None:
    """Raise LocalError, one line for each fault, if the demo cannot work here."""
    tools.restate_server()
    faults = [fault for folder in (state.path, tools_folder()) if (fault := folder_fault(folder))]
    faults = list(dict.fromkeys(faults)) or [fault for fault in (disk_fault(state), memory_fault()) if fault]
    if faults:
        raise LocalError("\n".join(faults))


def fetch_packages() -> None:
    """Download the function's packages for the demo's deploy, unless build/ has them; raises LocalError in one line.

    `Cloud.up` downloads the programs of the services, also before it starts the first one.
    """
    settings, runtime = env_file.read(ROOT / "env" / "local.env").values, tools.lambda_runtime()
    platform = Platform(runtime, settings.get("BUNDLE_PLATFORM") or "", settings["ORACLE_CLIENT"])
    try:
        bundle.packaged(platform, bytecode.find(runtime))
    except Exit as error:
        raise LocalError(f"{error.message}. Then run `make demo` again; nothing was started.") from None


def folder_fault(folder: Path) -> str:
    """Return the fault of a folder in which this user cannot make files; "" if there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}); give this user the folder, or a disk with free space."


def disk_fault(state: State) -> str:
    """Return the fault of a disk on which the services would fail; "" if there is none."""
    installed = tools.restate_server().exists() and tools.ministack_python().exists()
    needed = {state.path: DISK_LATER}
    if not installed:
        needed[tools_folder()] = DISK_FIRST
    for folder, size in needed.items():
        free = shutil.disk_usage(folder).free
        if free < size:
            return f"{folder} has {free / 1e9:.1f} GB of free disk, and {size / 1e9:.1f} GB are needed; free some."
    return ""


def memory_fault() -> str:
    """Return the fault of a machine with too little memory; "" if there is none, or if that is unknown."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return ""
    if free >= MEMORY:
        return ""
    return f"{free / 1e9:.1f} GB of memory are free, and {MEMORY / 1e9:.1f} GB are needed; end other programs."
