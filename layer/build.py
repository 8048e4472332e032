"""Make build/oracle-instantclient-layer.zip from an Instant Client ZIP.

In: INSTANT_CLIENT, or the pinned Basic Lite, downloaded once. Needs: only Python; libaio comes from a Docker engine,
the system or its package. Out: lib/ (only what libclntsh needs), network/admin/sqlnet.ora, instantclient/ (Oracle's
licence and README, and layer.json, which describes this layer).
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

from invoke import Exit

from layer import archive, client, contents, elf, runtimes, system_libraries

ROOT = Path(__file__).resolve().parents[1]
LAYER = ROOT / "build" / "oracle-instantclient-layer.zip"
ABOUT = "instantclient/layer.json"
# AWS counts the function and all its layers, unzipped.
UNZIPPED_LIMIT = 262_144_000
# Lambda unpacks a layer to /opt, so this is the folder that TNS_ADMIN=/opt/network/admin names.
SQLNET_ORA = "network/admin/sqlnet.ora"
SQLNET = """# The function's file system is read-only but for /tmp, so the client keeps no diagnostic files of its own.
DIAG_ADR_ENABLED = OFF
LOG_DIRECTORY_CLIENT = /tmp
TRACE_DIRECTORY_CLIENT = /tmp
"""


def build(given: str, runtime: str, insist: bool = False, target: Path = LAYER) -> dict:
    """Make the layer and return its layer.json; raises Exit, and then leaves no file at target."""
    runtimes.check(runtime)
    target.parent.mkdir(exist_ok=True)
    # After a failed build no layer of an earlier one must remain.
    target.unlink(missing_ok=True)
    source = client.find_zip(given)
    with tempfile.TemporaryDirectory(prefix=".layer-", dir=target.parent) as work:
        unpacked, layer, fresh = Path(work, "in"), Path(work, "out"), Path(work, "layer.zip")
        unpacked.mkdir()
        about = compose(source, unpacked, layer, runtime, insist)
        archive.pack(layer, fresh)
        fresh.replace(target)
    print(f"layer     build/{target.name}  {target.stat().st_size / 1e6:.1f} MB  content {about['content'][:12]}")
    return about


def compose(source: Path, unpacked: Path, layer: Path, runtime: str, insist: bool) -> dict:
    """Write the layer's files into a folder; returns the content of layer.json."""
    digest = archive.digest_of(source)
    archive.unpack(source, unpacked)
    found = client.find_client(source, unpacked)
    print(f"layer     Instant Client {found.version} {found.kind} from {source.name}\nlayer     sha256 {digest}")
    client.check_version(found, insist)
    unpacked_bytes = size_of(unpacked)
    chosen = contents.choose(found)
    lib = layer / "lib"
    lib.mkdir(parents=True)
    refuse_other_machine(chosen)
    contents.move_in(found, chosen, lib)
    lines = system_libraries.add(contents.missing(chosen.libraries, lib), list(chosen.libraries.values()), lib, runtime)
    from_image = {line.split()[0] for line in lines if runtimes.image_of(runtime) in line}
    newest = contents.check(lib, runtime, from_image)
    texts = add_texts(found, layer)
    report(unpacked, unpacked_bytes, chosen, lines, texts)
    check_size(layer)
    about = {
        "client": found.version,
        "kind": found.kind,
        "zip": digest,
        "content": archive.content_digest(layer, leave_out=ABOUT),
        "glibc": ".".join(map(str, newest)),
        "runtimes": runtimes.compatible(newest),
        "files": [name for name, _ in archive.files_of(lib)],
    }
    (layer / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    return about


def refuse_other_machine(chosen: contents.Chosen) -> None:
    """Raise Exit if a library is built for another machine, before system libraries for it are searched."""
    for one in chosen.libraries.values():
        if one.machine != elf.MACHINE:
            raise Exit(
                f"layer: {one.name} is built for {one.machine} and the function runs on {elf.MACHINE};"
                f" {contents.FIX}. Nothing was built."
            )


def add_texts(found: client.Client, layer: Path) -> list[str]:
    """Add sqlnet.ora and Oracle's licence files, which its terms require; returns the names of the latter."""
    (layer / SQLNET_ORA).parent.mkdir(parents=True)
    (layer / SQLNET_ORA).write_text(SQLNET)
    folder = layer / Path(ABOUT).parent
    folder.mkdir()
    texts = [place for place in sorted(found.folder.iterdir()) if place.name.endswith(("LICENSE", "README"))]
    for place in texts:
        if place.is_file() and not place.is_symlink():
            shutil.move(place, folder / place.name)
    return [place.name for place in texts]


def size_of(folder: Path) -> int:
    return sum(place.stat().st_size for _, place in archive.files_of(folder) if not place.is_symlink())


def report(unpacked: Path, before: int, chosen: contents.Chosen, lines: list[str], texts: list[str]) -> None:
    """Print what was left out, what came from elsewhere, and what is missing."""
    left_out = [place.name for _, place in archive.files_of(unpacked) if not place.is_symlink()]
    saved = size_of(unpacked)
    print(f"layer     left out, since libclntsh does not need them: {' '.join(left_out) or 'nothing'}")
    print(f"layer     saved {saved:,} of {before:,} bytes")
    for line in [*chosen.remarks, *lines]:
        print(f"layer     {line}")
    if not any(name.endswith("LICENSE") for name in texts):
        print("layer     the ZIP has no licence file; releases before 18 have none")


def check_size(layer: Path) -> None:
    size = size_of(layer)
    if size >= UNZIPPED_LIMIT:
        raise Exit(
            f"layer: it would unzip to {size:,} bytes, and AWS accepts {UNZIPPED_LIMIT:,} for the function and all its"
            " layers; build it from Basic Lite. Nothing was built."
        )
    print(f"layer     {size:,} bytes unzipped; leaves {UNZIPPED_LIMIT - size:,} for the function and other layers")


def about_layer() -> dict:
    """Return layer.json of the layer at build/; raises Exit if there is no layer."""
    try:
        with zipfile.ZipFile(LAYER) as made:
            return json.loads(made.read(ABOUT))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise Exit(f"No layer at {LAYER.relative_to(ROOT)}; make it with `inv layer.build`.") from None
