"""libaio.so.1 and libnsl.so.1: the client needs them, and neither Oracle's ZIP nor the runtime has them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from shlex import quote as q

from invoke import Exit

from layer import elf, runtimes
from ops import environment

LIBAIO, LIBNSL = "libaio.so.1", "libnsl.so.1"
# Ubuntu 24.04 and Debian 13 renamed the file; programs still need the old name.
LIBAIO_FILES = (LIBAIO, "libaio.so.1t64")
LIBAIO_PACKAGES = ("libaio1t64", "libaio1")
FOLDERS = ("/usr/lib64", "/lib64", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu")
# The exports of libnsl.so.1 of any glibc: NIS and NIS+.
NIS = re.compile(r"_*(yp|nis|xdr_yp|xdr_nis|xdr_(domainname|keydat|mapname|peername|valdat|obj_p)|nss_.*nis)\w*")
DOCKER_SECONDS, APT_SECONDS = 300, 60


def add(missing: set[str], clients: list[elf.Elf], folder: Path, runtime: str) -> list[str]:
    """Add the missing libraries to a folder; returns a line on the origin of each."""
    wanted = [name for name in (LIBAIO, LIBNSL) if name in missing]
    if not wanted:
        return []
    named = os.environ.get("LIBAIO", "")
    if not named and docker_works():
        return from_image(wanted, folder, runtime)
    lines = []
    if LIBAIO in wanted:
        lines.append(f"{LIBAIO} from {copy_libaio(named, folder)}")
    if LIBNSL in wanted:
        lines.append(make_libnsl(clients, folder))
    return lines


def docker_works() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        command = ["docker", "info"]
        return not subprocess.run(command, env=environment.clean(), capture_output=True, timeout=15).returncode
    except (subprocess.TimeoutExpired, OSError):
        return False


def image_command(wanted: list[str], folder: Path, runtime: str) -> str:
    """Return the command that installs the libraries in the runtime's image and copies them out."""
    # Amazon Linux 2023 has dnf and a package libnsl; in Amazon Linux 2 libnsl is part of glibc.
    packages = "if command -v dnf; then dnf install -y libaio libnsl; else yum install -y libaio; fi >&2"
    copies = " && ".join(f"cp -L /lib64/{name} /out/{name}" for name in wanted)
    script = f"{packages} && {copies} && chown {os.getuid()}:{os.getgid()} /out/*"
    return (
        f"docker run --rm --platform linux/amd64 --volume {q(str(folder))}:/out --entrypoint /bin/sh"
        f" {runtimes.image_of(runtime)} -c {q(script)}"
    )


def from_image(wanted: list[str], folder: Path, runtime: str) -> list[str]:
    command = image_command(wanted, folder, runtime)
    error = run(command, DOCKER_SECONDS)
    absent = [name for name in wanted if not (folder / name).is_file()]
    if error is not None or absent:
        raise Exit(
            f"layer: {' and '.join(wanted)} could not be copied from {runtimes.image_of(runtime)}"
            f" ({error or 'nothing was copied'}); check it with `{command}`, or name your own libaio, then Docker is"
            " not used: make layer LIBAIO=path. Nothing was built."
        )
    return [f"{name} from {runtimes.image_of(runtime)}" for name in wanted]


def run(command: str, seconds: float, folder: Path | None = None) -> str | None:
    """Run a command; returns None on success, else the last line of its errors."""
    try:
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=environment.clean(),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed nothing"]
    return lines[-1].strip() if done.returncode else None


def copy_libaio(named: str, folder: Path) -> str:
    """Copy libaio under the name that the client needs; returns its origin."""
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
    """Copy libaio from its Debian package, without root and without an installation; returns whether it worked."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return False
    aside = folder / "package"
    aside.mkdir(exist_ok=True)
    try:
        # The operator's machine may have another architecture.
        if run(f"apt-get download -q {package}:amd64 && dpkg-deb -x {package}_*.deb .", APT_SECONDS, aside):
            return False
        found = next((place for name in LIBAIO_FILES for place in aside.rglob(name) if place.is_file()), None)
        if found:
            shutil.copyfile(found, folder / LIBAIO)
        return found is not None
    finally:
        shutil.rmtree(aside)


def make_libnsl(clients: list[elf.Elf], folder: Path) -> str:
    """Write an empty libnsl.so.1; raises Exit if the client uses a symbol of it.

    A distribution's libnsl is never copied: it is tied to its glibc (GLIBC_PRIVATE) and cannot load on Amazon Linux.
    """
    for client in clients:
        used = [name for (library, _), names in client.needs.items() if library == LIBNSL for name in names]
        used += [name for name in sorted(client.plain) if NIS.fullmatch(name)]
        if used:
            raise Exit(
                f"layer: {client.name} uses {used[0]} of {LIBNSL}, so an empty one is not enough, and this machine's"
                " cannot load on Amazon Linux; start a Docker engine and build again: it is then copied from the"
                " runtime's image. Nothing was built."
            )
    (folder / LIBNSL).write_bytes(elf.empty_library(LIBNSL))
    return f"{LIBNSL} empty: no file of the client uses a symbol of it"
