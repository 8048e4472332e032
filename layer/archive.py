"""ZIP files: unpack one that may be malicious, and write one whose bytes depend only on its contents."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from invoke import Exit

# The largest Instant Client, Basic 23, has some 30 files and 290 MB.
MOST_FILES = 1000
MOST_BYTES = 700_000_000
CHUNK = 1 << 20


def refuse(path: Path, fault: str) -> Exit:
    return Exit(f"layer: {path.name}: {fault}. Nothing was built.")


def unpack(path: Path, folder: Path) -> None:
    """Unpack a ZIP, links as links, into an empty folder; raises Exit for anything that could reach out of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = checked(path, archive)
            left = MOST_BYTES
            for entry in entries:
                left = extract(path, archive, entry, folder, left)
            # Links come last, so that nothing is ever written through one.
            for entry in entries:
                if is_link(entry):
                    link(path, archive, entry, folder)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise refuse(path, f"is not a complete ZIP file ({error}); download it from Oracle again") from error
    except (NotImplementedError, RuntimeError) as error:
        raise refuse(path, f"uses a ZIP feature that Oracle does not use ({error}); download it from Oracle") from error
    except OSError as error:
        raise refuse(path, f"cannot be unpacked ({error.strerror or error})") from error


def is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def checked(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the entries that are files or links; raises Exit if a name leads out of the folder."""
    entries = archive.infolist()
    if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise refuse(
            path,
            f"would unpack to {len(entries)} files of {sum(one.file_size for one in entries) / 1e6:,.0f} MB,"
            " which no Instant Client does",
        )
    seen: set[str] = set()
    for entry in entries:
        # zipfile cuts a name at NUL; orig_filename is the whole name.
        name = entry.orig_filename
        parts = name.rstrip("/").split("/")
        if "\0" in name or "\\" in name or ":" in name or not name.isprintable():
            raise refuse(path, f"holds the name {name!r}, which no Instant Client has")
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise refuse(path, f"holds {name!r}, a path that leads out of its folder")
        if name.rstrip("/") in seen:
            raise refuse(path, f"holds {name!r} twice")
        seen.add(name.rstrip("/"))
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise refuse(path, f"{name!r} is neither a file nor a folder nor a link")
    return [entry for entry in entries if not entry.is_dir()]


def extract(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one file and return how many bytes may follow; the size in the entry is not trusted."""
    if is_link(entry):
        return left
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("xb") as file:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise refuse(path, f"unpacks to more than {MOST_BYTES / 1e6:,.0f} MB, which no Instant Client does")
            file.write(chunk)
    return left


def link(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Create one link; its target must be a name in the same folder, as in Oracle's ZIPs."""
    target = archive.read(entry)[:256].decode(errors="replace")
    if "/" in target or target in ("", ".", "..") or not target.isprintable():
        raise refuse(path, f"{entry.filename!r} is a link to {target!r}, which points out of its folder")
    place = folder / entry.filename
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def content_digest(folder: Path, leave_out: str) -> str:
    """Return a digest of names, modes, links and contents, the same on every host; one name is left out."""
    digest = hashlib.sha256()
    for name, place in files_of(folder):
        if name != leave_out:
            what = place.readlink().as_posix() if place.is_symlink() else digest_of(place)
            digest.update(f"{name}\0{mode_of(place):o}\0{what}\n".encode())
    return digest.hexdigest()


def files_of(folder: Path) -> list[tuple[str, Path]]:
    places = [place for place in folder.rglob("*") if place.is_symlink() or place.is_file()]
    return sorted((place.relative_to(folder).as_posix(), place) for place in places)


def mode_of(place: Path) -> int:
    """Return a file's mode in the ZIP: libraries are executable. It does not depend on the builder's umask."""
    if place.is_symlink():
        return stat.S_IFLNK | 0o777
    return stat.S_IFREG | (0o755 if ".so" in place.name else 0o644)


def pack(folder: Path, target: Path) -> None:
    """Write a folder as a ZIP whose bytes depend on names and contents alone."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, place in files_of(folder):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = mode_of(place) << 16
            entry.compress_type = zipfile.ZIP_STORED if place.is_symlink() else zipfile.ZIP_DEFLATED
            if place.is_symlink():
                archive.writestr(entry, place.readlink().as_posix())
                continue
            entry.file_size = place.stat().st_size
            with place.open("rb") as source, archive.open(entry, "w") as into:
                shutil.copyfileobj(source, into, CHUNK)
