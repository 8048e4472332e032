"""The Instant Client ZIP: find or download it, check it, and identify its client."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from invoke import Exit

from handler.client import OLDEST
from layer.archive import CHUNK, digest_of
from ops import environment

ROOT = Path(__file__).resolve().parents[1]
PINNED = "instantclient-basiclite-linux.x64-19.28.0.0.0dbru.zip"
ADDRESS = f"https://download.oracle.com/otn_software/linux/instantclient/1928000/{PINNED}"
PAGE = "https://www.oracle.com/database/technologies/instant-client/linux-x86-64-downloads.html"
CHECKSUM = ROOT / "layer" / "client.sha256"
ANSWER_SECONDS = 30
MOST_BYTES = 400_000_000
REAL_NAME = re.compile(r"libclntsh\.so\.(\d+)\.(\d+)")
# Of Basic Lite and of Basic; OCI opens it by name.
DATA_LIBRARIES = ("libociicus.so", "libociei.so")


class Client(NamedTuple):
    """folder: where its files lie; library: the real file of libclntsh; version: from the README, such as
    19.28.0.0.0, or else from the library's name; data: the data library; kind: Basic Lite or Basic."""

    folder: Path
    library: str
    version: str
    data: str
    kind: str


def find_zip(given: str) -> Path:
    """Return the ZIP to build from: the named one, or the pinned one, downloaded if it is not there."""
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise Exit(f"layer: INSTANT_CLIENT names {given}, and there is no such file. Nothing was built.")
    else:
        path = ROOT / "layer" / PINNED
        if not path.exists():
            download(ADDRESS, path)
    check_recorded(path)
    return path


def committed() -> str:
    """Return the sha256 of layer/client.sha256 as the current commit has it, "" if it has none or there is no git."""
    name = CHECKSUM.relative_to(ROOT).as_posix()
    command = ["git", "-C", str(ROOT), "show", f"HEAD:{name}"]
    try:
        done = subprocess.run(command, env=environment.clean(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.strip() else ""


def check_committed(digest: str) -> None:
    """Raise Exit in CI unless the ZIP that a layer was made of is the one whose checksum is committed.

    A fresh machine has no earlier download to compare with, so it would trust whatever it got.
    """
    if os.environ.get("CI") and committed() != digest:
        raise Exit(
            f"layer: it was made of a ZIP with sha256 {digest}, which no committed layer/client.sha256 has, so CI"
            f" cannot verify that it is Oracle's; compare the ZIP's `cksum` with {PAGE}, commit `{digest}  {PINNED}` as"
            " that file, and run it again. Nothing was published."
        )


def recorded() -> tuple[str, str] | None:
    """Return the sha256 and the name of layer/client.sha256, None without the file; raises Exit if it is malformed."""
    if not CHECKSUM.exists():
        return None
    found = re.fullmatch(r"([0-9a-f]{64}) [ *](\S+)\n?", CHECKSUM.read_text())
    if not found:
        raise Exit(f"layer: layer/client.sha256 is not one line `SHA256  {PINNED}`; correct it. Nothing was built.")
    return found[1], found[2]


def check_recorded(path: Path) -> None:
    """Raise Exit if a ZIP has the recorded name and another checksum."""
    known = recorded()
    if known and path.name == known[1] and digest_of(path) != known[0]:
        raise Exit(
            f"layer: {path} is not the file that was downloaded first: its sha256 is not the one in"
            f" layer/client.sha256; remove it and download it again from {PAGE}. Nothing was built."
        )


def download(address: str, target: Path) -> None:
    """Download the pinned ZIP; records the checksum of the first download, and later ones must match it.

    Oracle's page has each file's size and POSIX checksum, no sha256.
    """
    aside, known = target.with_suffix(".part"), recorded()
    print(f"layer     downloading {address}", flush=True)
    try:
        fetch(address, aside)
        found = digest_of(aside)
        if not known:
            CHECKSUM.write_text(f"{found}  {target.name}\n")
            print(
                f"layer     recorded its sha256 {found} in layer/client.sha256; compare `cksum layer/{target.name}`"
                f" with {PAGE}, then commit layer/client.sha256"
            )
        elif known != (found, target.name):
            raise Exit(
                f"layer: {address} has sha256 {found}, and layer/client.sha256 another one;"
                " find out why before you change that file. Nothing was built."
            )
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def fetch(address: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer, target.open("wb") as file:
            expected, size = answer.headers.get("content-length"), 0
            while chunk := answer.read(CHUNK):
                size += len(chunk)
                if size > MOST_BYTES:
                    raise OSError(f"it is larger than {MOST_BYTES / 1e6:.0f} MB")
                file.write(chunk)
        with target.open("rb") as file:
            if (expected and int(expected) != size) or file.read(4) != b"PK\x03\x04":
                raise OSError("it is not a complete ZIP file")
    except (OSError, http.client.HTTPException) as error:
        raise Exit(
            f"layer: the download from Oracle failed ({getattr(error, 'reason', error)}); get {target.stem}"
            f".zip from {PAGE} and put it into layer/, or name it: make layer INSTANT_CLIENT=path. Nothing was built."
        ) from error


def find_client(path: Path, unpacked: Path) -> Client:
    """Return the client in an unpacked ZIP; raises Exit if there is none or more than one."""
    found = [place for place in unpacked.rglob("libclntsh.so*") if REAL_NAME.fullmatch(place.name)]
    real = sorted((place for place in found if not place.is_symlink()), key=version_key)
    if not real:
        raise Exit(
            f"layer: {path.name} has no Instant Client: there is no libclntsh.so.VERSION in it; use Basic Lite or"
            f" Basic for Linux x86-64 from {PAGE}. Nothing was built."
        )
    library = real.pop()
    for other in real:
        if other.parent != library.parent or digest_of(other) != digest_of(library):
            names = " and ".join(place.relative_to(unpacked).as_posix() for place in (other, library))
            raise Exit(f"layer: {path.name} has two clients, {names}; name a ZIP with one. Nothing was built.")
        # A copy instead of Oracle's link: a program without support for links has repacked the ZIP.
        other.unlink()
        other.symlink_to(library.name)
    flat = library.with_name("libclntsh.so")
    if flat.is_file() and not flat.is_symlink() and flat.stat().st_size < 1024:
        raise Exit(
            f"layer: in {path.name} libclntsh.so is a text file instead of a link: a program without support for links"
            " has repacked the ZIP; use Oracle's own ZIP. Nothing was built."
        )
    data = [name for name in DATA_LIBRARIES if library.with_name(name).is_file()]
    if not data:
        raise Exit(
            f"layer: {path.name} has neither {' nor '.join(DATA_LIBRARIES)}, and without its data library the client"
            f" fails with ORA-01804; use Basic Lite or Basic from {PAGE}. Nothing was built."
        )
    kind = "Basic Lite" if data[0] == DATA_LIBRARIES[0] else "Basic"
    return Client(library.parent, library.name, version_of(library), data[0], kind)


def version_key(library: Path) -> tuple[int, ...]:
    return tuple(map(int, REAL_NAME.fullmatch(library.name).groups()))


def version_of(library: Path) -> str:
    """Return the full version from the README if it agrees with the library's name, else the name's version."""
    major, minor = version_key(library)
    for readme in sorted(library.parent.glob("*README")):
        with readme.open(errors="replace") as file:
            found = re.search(r"Client Shared Library 64-bit - (\d+(?:\.\d+){2,4})\b", file.read(10_000))
        if found and int(found[1].split(".")[0]) == major:
            return found[1]
    return f"{major}.{minor}"


def check_version(client: Client, insist: bool) -> None:
    """Raise Exit for a client that the driver cannot use or that cannot reach the database; insist: only print it."""
    major, minor = version_key(Path(client.library))
    if (major, minor) < OLDEST:
        fault = f"the function's call_timeout needs a client of {OLDEST[0]}.{OLDEST[1]} or later (DPI-1050)"
    elif major >= 21:
        fault = "a client of 21 or later cannot reach Oracle 11.2 (ORA-03134)"
    else:
        return
    if insist:
        print(f"layer     Instant Client {client.version}: {fault}; built because of INSTANT_CLIENT_ANY=1")
        return
    raise Exit(
        f"layer: this is Instant Client {client.version}, and {fault}; use a 19.x from {PAGE},"
        " or force it with INSTANT_CLIENT_ANY=1. Nothing was built."
    )
