"""The reason why the Oracle client library does not work, from the driver's message and the files of the layer."""

from __future__ import annotations

import os
import platform
import re
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

LIBRARY = "libclntsh.so"
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
BUILD = "build and publish it again from Oracle's ZIP (make layer publish ENV=E), then make deploy ENV=E"
# The first client with call_timeout, without which a step could hang until Lambda ends it.
OLDEST = (18, 1)
# Errors of Oracle and its driver: (cause, fix). The function's messages, the doctor and docs/reference.md use it.
ERRORS = {
    "DPI-1047": ("the Oracle client library cannot be loaded", BUILD),
    "DPI-1050": ("the layer's Instant Client is too old for this driver", f"use a 19.x: {BUILD}"),
    "DPY-3010": ("thin mode cannot connect to a database as old as 11.2", "set ORACLE_CLIENT=thick and deploy"),
    "DPY-4027": (
        "ORACLE_CONNECT_STRING is a TNS alias or a JDBC address, and the function has no tnsnames.ora",
        "write host:port/service and deploy",
    ),
    "ORA-12170": (
        "Genius' host does not answer",
        "check routes, security groups (port 1521 outbound) and its firewall",
    ),
    "ORA-12541": ("no listener answers at this host and port", "correct ORACLE_CONNECT_STRING and deploy"),
    "ORA-12737": (
        "Basic Lite does not support the database's character set",
        f"use Oracle's Basic ZIP as INSTANT_CLIENT: {BUILD}",
    ),
    "ORA-01017": ("wrong user or password", "correct ORACLE_USER and ORACLE_PASSWORD and deploy"),
    "ORA-28000": ("the account is locked", "Genius' administrator unlocks it with ALTER USER ... ACCOUNT UNLOCK"),
}
# e_machine of an ELF header, as platform.machine() calls it.
MACHINES = {62: "x86_64", 183: "aarch64", 3: "i386"}


def explain(error: str) -> str:
    """Return an error with its cause and its fix, if ERRORS has them."""
    known = (f"{error}: {cause}; {fix}" for code, (cause, fix) in ERRORS.items() if re.search(rf"\b{code}\b", error))
    return next(known, error)


def folders(environ=os.environ) -> list[Path]:
    """Return the folders in which the loader searches a client."""
    return [Path(one) for one in environ.get("LD_LIBRARY_PATH", "").split(":") if one]


def libraries(places: Iterable[Path]) -> dict[str, str]:
    """Return the shared libraries of the folders that hold a client: {name: machine, or the fault of the file}."""
    client = [place for place in places if next(place.glob(f"{LIBRARY}*"), None)]
    return {file.name: machine_of(file) for place in reversed(client) for file in sorted(place.glob("*.so*"))}


def machine_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            head = opened.read(20)
    except OSError as error:
        return f"a link to nothing ({error.strerror})"
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return "no library"
    number = struct.unpack_from("<H", head, 18)[0]
    return MACHINES.get(number, f"machine {number}")


def cause(reported: str, found: dict[str, str], machine: str | None = None) -> str:
    """Return one line for a client that could not be initialised: the known cause and the command that fixes it.

    reported: the driver's message; found: libraries() of the folders; machine: this machine's, for a test.
    """
    machine = machine or platform.machine()
    first = reported.splitlines()[0] if reported else "the driver gave no message"
    return f"thick mode cannot start: {diagnosis(first, found, machine)}; the driver reports: {first}"


def too_old(version: str) -> str:
    """Return one line for a client that loads and has no call_timeout."""
    return (
        f"thick mode cannot start: the layer's Instant Client {version} is too old: a time limit for calls"
        f" (call_timeout) needs {OLDEST[0]}.{OLDEST[1]} or later; use a 19.x: {BUILD}"
    )


def crashed(how: str, stage: str) -> str:
    """Return one line for a client that ended the process that used it; stage: loaded or connected."""
    return (
        f"the Oracle client library {how} while it was being {stage}; some releases do that with an old database:"
        f" take another 19.x, {BUILD}"
    )


def diagnosis(reported: str, found: dict[str, str], machine: str) -> str:
    if re.match(r"DPI-(1050|1072|1079)\b", reported):
        return f"the layer's Instant Client is too old for this driver, or of no known version; take a 19.x and {BUILD}"
    if "ORA-01804" in reported:
        return (
            "the layer's client does not find its own data: libociicus.so or libociei.so, or one of the two names"
            f" {LIBRARY} and {LIBRARY}.VERSION, is missing from it; {BUILD}"
        )
    if version := re.search(r"version `([^']+)' not found \(required by ([^)]+)\)", reported):
        return (
            f"{Path(version[2]).name} needs {version[1]}, which this runtime does not have: the layer was built for"
            f" another one; build it with `inv layer.build --runtime {RUNTIME}`, then {BUILD}"
        )
    if "wrong ELF class" in reported:
        return f"a library in the layer is of the wrong architecture, not {machine}; {BUILD} for Linux x86-64"
    if "file too short" in reported or "invalid ELF header" in reported:
        return f"a link in the layer has become a text, as when a program that knows no links packed it; {BUILD}"
    if symbol := re.search(r"undefined symbol: (\w+)", reported):
        return f"the layer's libraries are of different releases: {symbol[1]} is in none of them; {BUILD}"
    missing = re.search(r"([\w.+-]+): cannot open shared object file", reported)
    if missing:
        return unopened(missing[1], found, machine)
    return f"unknown cause; list the layer's versions with `inv layer.list --env ENV`, or {BUILD}"


def unopened(name: str, found: dict[str, str], machine: str) -> str:
    """Diagnose a file that cannot be opened: the loader's message does not separate a missing file from a wrong one."""
    if name in found and found[name] in MACHINES.values() and found[name] != machine:
        return f"{name} in the layer is of the wrong architecture, {found[name]} and not {machine}; {BUILD}"
    if name in found and found[name] != machine:
        return f"{name} in the layer is {found[name]}; {BUILD}"
    if name == LIBRARY and not any(one.startswith(LIBRARY) for one in found):
        return (
            "the Instant Client layer is not attached: no folder of LD_LIBRARY_PATH holds libclntsh.so; publish it"
            " (make layer publish ENV=E), then attach it (make deploy ENV=E)"
        )
    if name == LIBRARY and name not in found:
        return f"the layer has {min(found)} and more, but not the name {LIBRARY}, a link to it; {BUILD}"
    return f"the layer lacks the library {name}; {BUILD}"
