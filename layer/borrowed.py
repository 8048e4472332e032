"""libaio.so.1 and libnsl.so.1, which the client asks for and neither Oracle nor the runtime brings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from shlex import quote as q

from invoke import Exit

from layer import elf, runtimes

LIBAIO, LIBNSL = "libaio.so.1", "libnsl.so.1"
# Ubuntu 24.04 and Debian 13 gave the library another file name; the programs still ask for the old one.
LIBAIO_FILES = (LIBAIO, "libaio.so.1t64")
LIBAIO_PACKAGES = ("libaio1t64", "libaio1")
FOLDERS = ("/usr/lib64", "/lib64", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu")
# What libnsl.so.1 of any glibc exports: NIS and NIS+.
NIS = re.compile(r"_*(yp|nis|xdr_yp|xdr_nis|xdr_(domainname|keydat|mapname|peername|valdat|obj_p)|nss_.*nis)\w*")
DOCKER_SECONDS, APT_SECONDS = 300, 60


def borrow(missing: set[str], clients: list[elf.Elf], folder: Path, runtime: str) -> list[str]:
    """Put the missing ones of the two into a folder; returns a line on each, saying where it came from."""
    wanted = [name for name in (LIBAIO, LIBNSL) if name in missing]
    if not wanted:
        return []
    named = os.environ.get("LIBAIO", "")
    if not named and docker_works():
        return from_image(wanted, folder, runtime)
    lines = []
    if LIBAIO in wanted:
        lines.append(f"{LIBAIO} from {take_libaio(named, folder)}")
    if LIBNSL in wanted:
        lines.append(make_libnsl(clients, folder))
    return lines


def docker_works() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        return not subprocess.run(["docker", "info"], capture_output=True, timeout=15).returncode
    except (subprocess.TimeoutExpired, OSError):
        return False


def image_command(wanted: list[str], folder: Path, runtime: str) -> str:
    """Install the libraries in the runtime's own image and copy them out, dereferenced; owned by who asked."""
    # Amazon Linux 2023 has microdnf as dnf and a package libnsl; in Amazon Linux 2 libnsl is a part of glibc.
    packages = "if command -v dnf; then dnf install -y libaio libnsl; else yum install -y libaio; fi >&2"
    copies = " && ".join(f"cp -L /lib64/{name} /out/{name}" for name in wanted)
    script = f"{packages} && {copies} && chown {os.getuid()}:{os.getgid()} /out/*"
    return (
        f"docker run --rm --platform linux/amd64 --volume {q(str(folder))}:/out --entrypoint /bin/sh"
        f" {runtimes.image_of(runtime)} -c {q(script)}"
    )


def from_image(wanted: list[str], folder: Path, runtime: str) -> list[str]:
    command = image_command(wanted, folder, runtime)
    said = run(command, DOCKER_SECONDS)
    absent = [name for name in wanted if not (folder / name).is_file()]
    if said is not None or absent:
        raise Exit(
            f"layer: {' and '.join(wanted)} could not be taken from {runtimes.image_of(runtime)}"
            f" ({said or 'nothing was copied'}); look with `{command}`, or name a libaio of your own, which leaves"
            " Docker out: make layer LIBAIO=path. Nothing was built."
        )
    return [f"{name} from {runtimes.image_of(runtime)}" for name in wanted]


def run(command: str, seconds: float, folder: Path | None = None) -> str | None:
    """None if the command did its work, else the last line of what it said."""
    try:
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"no end within {seconds} s"
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
    return said[-1].strip() if done.returncode else None


def take_libaio(named: str, folder: Path) -> str:
    """Copy libaio under the name that the client asks for; returns where it was."""
    if named and not Path(named).is_file():
        raise Exit(f"layer: LIBAIO names {named}, and there is no such file. Nothing was built.")
    places = [Path(named)] if named else [Path(place) / name for place in FOLDERS for name in LIBAIO_FILES]
    found = next((place for place in places if place.is_file()), None)
    if found:
        shutil.copyfile(found, folder / LIBAIO)
        return str(found)
    for package in LIBAIO_PACKAGES:
        if from_package(package, folder):
            return f"the distribution's package {package}"
    raise Exit(
        f"layer: the client needs {LIBAIO}, and this machine has none; install it (Debian 13, Ubuntu 24.04:"
        " apt-get install libaio1t64; older ones: libaio1; Fedora, Amazon Linux: dnf install libaio), or name one"
        " for Linux x86-64: make layer LIBAIO=path. Nothing was built."
    )


def from_package(package: str, folder: Path) -> bool:
    """Take libaio out of its Debian package, which needs neither root nor an installation."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return False
    aside = folder / "package"
    aside.mkdir(exist_ok=True)
    try:
        # The architecture is named: the operator's machine may be of another one.
        if run(f"apt-get download -q {package}:amd64 && dpkg-deb -x {package}_*.deb .", APT_SECONDS, aside):
            return False
        found = next((place for name in LIBAIO_FILES for place in aside.rglob(name) if place.is_file()), None)
        if found:
            shutil.copyfile(found, folder / LIBAIO)
        return found is not None
    finally:
        shutil.rmtree(aside)


def make_libnsl(clients: list[elf.Elf], folder: Path) -> str:
    """An empty libnsl.so.1, once it is seen that nobody takes a symbol from it.

    A distribution's own is never copied: it is tied to its glibc (GLIBC_PRIVATE) and cannot load on Amazon Linux.
    """
    for client in clients:
        taken = [name for (library, _), names in client.needs.items() if library == LIBNSL for name in names]
        taken += [name for name in sorted(client.plain) if NIS.fullmatch(name)]
        if taken:
            raise Exit(
                f"layer: {client.name} takes {taken[0]} from {LIBNSL}, so an empty one will not do, and this machine's"
                " cannot load on Amazon Linux; start a Docker engine and build again: it is then taken from the"
                " runtime's own image. Nothing was built."
            )
    (folder / LIBNSL).write_bytes(elf.empty_library(LIBNSL))
    return f"{LIBNSL} empty: no file of the client takes a symbol from it"
