"""What of a client goes into the layer, and whether the runtime can load it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from invoke import Exit

from layer import borrowed, elf, runtimes
from layer.client import PAGE, Client

LINK_STEPS = 8
CURES = f"take Basic Lite or Basic for Linux x86-64 as Oracle gives it, from {PAGE}"


class Chosen(NamedTuple):
    """libraries: those that go in, by file name; remarks: why others that are named in them do not."""

    libraries: dict[str, elf.Elf]
    remarks: list[str]


def target_of(place: Path) -> Path | None:
    """The file that a link leads to, in steps within its folder; None where it leads to nothing."""
    for _ in range(LINK_STEPS):
        if not place.is_symlink():
            return place if place.is_file() else None
        place = place.with_name(place.readlink().name)
    return None


def choose(client: Client) -> Chosen:
    """Follow DT_NEEDED, and the names that stand in a library's data, from libclntsh and the data library.

    Both kinds must be followed: what the loader needs is in DT_NEEDED, what OCI opens by name is not. A library that
    is only named is no fault where it cannot load: the client works without it until that feature is used.
    """
    chosen: dict[str, elf.Elf] = {}
    follow_needed(client, client.library, chosen)
    follow_needed(client, client.data, chosen)
    remarks = []
    looked: set[str] = {client.data}
    while left := sorted(set(chosen) - looked):
        looked.add(left[0])
        for name in sorted(elf.named_in(client.folder / left[0])):
            named = target_of(client.folder / name)
            if not named or named.name in chosen or not elf.is_elf(named):
                continue
            trial = dict(chosen)
            follow_needed(client, named.name, trial)
            lacking = unmet(client, {key: trial[key] for key in trial.keys() - chosen.keys()})
            if lacking:
                remarks.append(f"{name} stands in {left[0]} but needs {', '.join(lacking)}: left out")
            else:
                chosen = trial
    return Chosen(chosen, sorted(set(remarks)))


def follow_needed(client: Client, name: str, into: dict[str, elf.Elf]) -> None:
    place = target_of(client.folder / name)
    if not place or place.name in into:
        return
    into[place.name] = elf.read(place)
    for needed in into[place.name].needed:
        if "/" not in needed:
            follow_needed(client, needed, into)


def unmet(client: Client, libraries: dict[str, elf.Elf]) -> list[str]:
    """What libraries need that neither the client nor the runtime has, and that cannot be borrowed."""
    known = runtimes.SYSTEM | {borrowed.LIBAIO, borrowed.LIBNSL}
    needed = {name for one in libraries.values() for name in one.needed}
    return sorted(name for name in needed - known if "/" in name or not target_of(client.folder / name))


def missing(libraries: dict[str, elf.Elf], folder: Path) -> set[str]:
    needed = {name for one in libraries.values() for name in one.needed}
    return {name for name in needed - runtimes.SYSTEM if "/" in name or not target_of(folder / name)}


def move_in(client: Client, chosen: Chosen, lib: Path) -> None:
    """Move what was chosen into lib/, with every link that leads to it, and have both names of libclntsh there."""
    links = [place for place in client.folder.iterdir() if place.is_symlink()]
    kept = {place.name: target_of(place) for place in links}
    for name, target in sorted(kept.items()):
        if target and target.name in chosen.libraries:
            (lib / name).symlink_to(target.name)
    for name in chosen.libraries:
        shutil.move(client.folder / name, lib / name)
    if "libclntsh.so" not in chosen.libraries and not (lib / "libclntsh.so").is_symlink():
        # Before 18.3 Oracle left it to the reader to make this link; python-oracledb looks for no other name.
        (lib / "libclntsh.so").symlink_to(client.library)


def check(lib: Path, runtime: str, from_image: set[str]) -> tuple[int, ...]:
    """Read every file in lib/ and raise Exit by name for what the runtime cannot load.

    Returns the newest glibc that is asked for. from_image: libraries of the runtime's own image, which may be tied
    to its glibc.
    """
    libraries = {place.name: elf.read(place) for place in sorted(lib.iterdir()) if not place.is_symlink()}
    faults = [fault for one in libraries.values() for fault in faults_of(one, lib, libraries, runtime, from_image)]
    if faults:
        more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
        raise Exit(f"layer: {faults[0]}{more}. Nothing was built.")
    versions = {version for one in libraries.values() for library, version in one.needs if library in runtimes.SYSTEM}
    return max(filter(None, map(runtimes.glibc_version, versions)), default=(2, 2))


def faults_of(one: elf.Elf, lib: Path, libraries: dict[str, elf.Elf], runtime: str, from_image: set[str]):
    if one.machine != elf.MACHINE:
        yield f"{one.name} is built for {one.machine} and the function runs on {elf.MACHINE}; {CURES}"
        return
    if not one.loadable:
        yield f"{one.name} is a program and not a shared library; {CURES}"
    for name in one.needed:
        if name not in runtimes.SYSTEM and ("/" in name or not target_of(lib / name)):
            yield f"{one.name} needs {name}, which is neither in the layer nor in {runtime}; {CURES}"
    limit = runtimes.glibc_of(runtime)
    for (library, version), symbols in one.needs.items():
        wanted = f"{one.name} needs {symbols[0] if symbols else 'a symbol'} of {version} in {library}"
        if library in runtimes.SYSTEM and version.startswith("GLIBC_"):
            known = runtimes.glibc_version(version)
            if known is None and one.name not in from_image:
                yield f"{wanted}, which ties it to the glibc it was built with; {cure_of(one.name)}"
            elif known and known > limit:
                has = ".".join(map(str, limit))
                yield f"{wanted} and {runtime} has glibc {has}; {cure_of(one.name)}"
        elif target := target_of(lib / library):
            given = libraries[target.name].provides
            # Without any version of its own a library is taken as it is, with a warning.
            if given and version not in given:
                yield f"{wanted}, which the one in the layer does not have; {cure_of(library)}"


def cure_of(name: str) -> str:
    if name in (borrowed.LIBAIO, borrowed.LIBNSL):
        return "build with a Docker engine, or with an older one: make layer LIBAIO=path"
    return CURES
