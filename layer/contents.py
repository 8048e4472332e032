"""Choose the files of a client for the layer, and check that the runtime can load them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from invoke import Exit

from layer import elf, runtimes, system_libraries
from layer.client import PAGE, Client

LINK_STEPS = 8
FIX = f"use Basic Lite or Basic for Linux x86-64 in Oracle's own ZIP, from {PAGE}"


class Chosen(NamedTuple):
    """libraries: by file name; remarks: why others that are named in them are left out."""

    libraries: dict[str, elf.Elf]
    remarks: list[str]


def target_of(place: Path) -> Path | None:
    """Return the file that a link leads to within its folder, None if there is none."""
    for _ in range(LINK_STEPS):
        if not place.is_symlink():
            return place if place.is_file() else None
        place = place.with_name(place.readlink().name)
    return None


def choose(client: Client) -> Chosen:
    """Return the libraries that libclntsh and the data library need, by DT_NEEDED and by names in their data.

    The loader needs those of DT_NEEDED; OCI opens others by name. A library that is only named and cannot load is left
    out: the client works without it until that feature is used.
    """
    chosen: dict[str, elf.Elf] = {}
    follow_needed(client, client.library, chosen)
    follow_needed(client, client.data, chosen)
    remarks = []
    searched: set[str] = {client.data}
    while left := sorted(set(chosen) - searched):
        searched.add(left[0])
        for name in sorted(elf.named_in(client.folder / left[0])):
            named = target_of(client.folder / name)
            if not named or named.name in chosen or not elf.is_elf(named):
                continue
            trial = dict(chosen)
            follow_needed(client, named.name, trial)
            lacking = unmet(client, {key: trial[key] for key in trial.keys() - chosen.keys()})
            if lacking:
                remarks.append(f"{left[0]} names {name}, which needs {', '.join(lacking)}: left out")
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
    """Return what libraries need and neither the client nor the runtime has, except the system libraries."""
    known = runtimes.SYSTEM | {system_libraries.LIBAIO, system_libraries.LIBNSL}
    needed = {name for one in libraries.values() for name in one.needed}
    return sorted(name for name in needed - known if "/" in name or not target_of(client.folder / name))


def missing(libraries: dict[str, elf.Elf], folder: Path) -> set[str]:
    needed = {name for one in libraries.values() for name in one.needed}
    return {name for name in needed - runtimes.SYSTEM if "/" in name or not target_of(folder / name)}


def move_in(client: Client, chosen: Chosen, lib: Path) -> None:
    """Move the chosen libraries into lib/ with every link to them, and make sure that libclntsh.so is there."""
    links = [place for place in client.folder.iterdir() if place.is_symlink()]
    kept = {place.name: target_of(place) for place in links}
    for name, target in sorted(kept.items()):
        if target and target.name in chosen.libraries:
            (lib / name).symlink_to(target.name)
    for name in chosen.libraries:
        shutil.move(client.folder / name, lib / name)
    if "libclntsh.so" not in chosen.libraries and not (lib / "libclntsh.so").is_symlink():
        # ZIPs before 18.3 lack this link; python-oracledb opens no other name.
        (lib / "libclntsh.so").symlink_to(client.library)


def check(lib: Path, runtime: str, from_image: set[str]) -> tuple[int, ...]:
    """Return the newest glibc that a file in lib/ needs; raises Exit if the runtime cannot load a file.

    from_image: libraries of the runtime's own image, which may be tied to its glibc.
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
        yield f"{one.name} is built for {one.machine} and the function runs on {elf.MACHINE}; {FIX}"
        return
    if not one.loadable:
        yield f"{one.name} is a program and not a shared library; {FIX}"
    for name in one.needed:
        if name not in runtimes.SYSTEM and ("/" in name or not target_of(lib / name)):
            yield f"{one.name} needs {name}, which is neither in the layer nor in {runtime}; {FIX}"
    limit = runtimes.glibc_of(runtime)
    for (library, version), symbols in one.needs.items():
        wanted = f"{one.name} needs {symbols[0] if symbols else 'a symbol'} of {version} in {library}"
        if library in runtimes.SYSTEM and version.startswith("GLIBC_"):
            known = runtimes.glibc_version(version)
            if known is None and one.name not in from_image:
                yield f"{wanted}, which ties it to the glibc it was built with; {fix_of(one.name)}"
            elif known and known > limit:
                has = ".".join(map(str, limit))
                yield f"{wanted} and {runtime} has glibc {has}; {fix_of(one.name)}"
        elif target := target_of(lib / library):
            given = libraries[target.name].provides
            # The loader accepts a library without versions of its own, with a warning.
            if given and version not in given:
                yield f"{wanted}, which the one in the layer does not have; {fix_of(library)}"


def fix_of(name: str) -> str:
    if name in (system_libraries.LIBAIO, system_libraries.LIBNSL):
        return "build with a Docker engine, or with an older one: make layer LIBAIO=path"
    return FIX
