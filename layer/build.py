"""Make build/oracle-instantclient-layer.zip from an Instant Client ZIP.

In: INSTANT_CLIENT, or the pinned Basic Lite, downloaded once. Needs: nothing but Python; libaio comes from a Docker
engine, the system or its package. Out: lib/ (what libclntsh needs, and nothing else), network/admin/sqlnet.ora,
instantclient/ (Oracle's licence and README, and layer.json, which says what this layer is).
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

from invoke import Exit

from layer import archive, borrowed, client, contents, elf, runtimes

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
    """Make the layer and return what layer.json says of it; raises Exit and leaves nothing at target otherwise."""
    runtimes.check(runtime)
    target.parent.mkdir(exist_ok=True)
    # A layer of an earlier build must not be taken for the one that was asked for now.
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
    """Lay out the layer in a folder of its own."""
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
    lines = borrowed.borrow(contents.missing(chosen.libraries, lib), list(chosen.libraries.values()), lib, runtime)
    from_image = {line.split()[0] for line in lines if runtimes.image_of(runtime) in line}
    newest = contents.check(lib, runtime, from_image)
    papers = add_papers(found, layer)
    report(unpacked, unpacked_bytes, chosen, lines, papers)
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
    """Told before anything is borrowed: a library for another machine has other needs."""
    for one in chosen.libraries.values():
        if one.machine != elf.MACHINE:
            raise Exit(
                f"layer: {one.name} is built for {one.machine} and the function runs on {elf.MACHINE};"
                f" {contents.CURES}. Nothing was built."
            )


def add_papers(found: client.Client, layer: Path) -> list[str]:
    """sqlnet.ora, and Oracle's own texts: its terms let files be passed on unmodified, and with the licence."""
    (layer / SQLNET_ORA).parent.mkdir(parents=True)
    (layer / SQLNET_ORA).write_text(SQLNET)
    papers = layer / Path(ABOUT).parent
    papers.mkdir()
    texts = [place for place in sorted(found.folder.iterdir()) if place.name.endswith(("LICENSE", "README"))]
    for place in texts:
        if place.is_file() and not place.is_symlink():
            shutil.move(place, papers / place.name)
    return [place.name for place in texts]


def size_of(folder: Path) -> int:
    return sum(place.stat().st_size for _, place in archive.files_of(folder) if not place.is_symlink())


def report(unpacked: Path, before: int, chosen: contents.Chosen, lines: list[str], papers: list[str]) -> None:
    """What stayed behind, what came from elsewhere, and what is not as it should be."""
    behind = [place.name for _, place in archive.files_of(unpacked) if not place.is_symlink()]
    saved = size_of(unpacked)
    print(f"layer     left out, since libclntsh does not need them: {' '.join(behind) or 'nothing'}")
    print(f"layer     saved {saved:,} of {before:,} bytes")
    for line in [*chosen.remarks, *lines]:
        print(f"layer     {line}")
    if not any(name.endswith("LICENSE") for name in papers):
        print("layer     the ZIP holds no licence file; releases before 18 have none")


def check_size(layer: Path) -> None:
    size = size_of(layer)
    if size >= UNZIPPED_LIMIT:
        raise Exit(
            f"layer: it would unzip to {size:,} bytes, and AWS takes {UNZIPPED_LIMIT:,} for the function and all its"
            " layers; build it from Basic Lite. Nothing was built."
        )
    print(f"layer     {size:,} bytes unzipped; leaves {UNZIPPED_LIMIT - size:,} for the function and other layers")


def about_layer() -> dict:
    """What the layer at build/ says of itself; raises Exit where there is none."""
    try:
        with zipfile.ZipFile(LAYER) as made:
            return json.loads(made.read(ABOUT))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise Exit(f"No layer at {LAYER.relative_to(ROOT)}; make it with `inv layer.build`.") from None
