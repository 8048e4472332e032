"""inv bundle: build/lambda.zip with handler/ and the packages of its lock, for the runtime of an environment.

Each file is named by its inputs, build/packages/KEY.zip and build/bundles/KEY.zip, is made in a folder of its own and
then moved. So nothing is made twice, and concurrent builds do not disturb each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from invoke import Exit

from ops import bytecode, ca_file, installer, limits, packages
from ops.config import ENV_HELP
from ops.packages import Platform
from ops.shell import PLAIN, ROOT
from ops.target import Target
from ops.task import NOTHING, task

HANDLER = ROOT / "handler"
BUNDLE = ROOT / "build" / "lambda.zip"
MADE_BY = [Path(__file__), Path(ca_file.__file__), Path(bytecode.__file__), Path(packages.__file__)]
# handler/ is flat and is shipped completely, so it must not have any other file.
SHIPPED = re.compile(r"[a-z_][a-z0-9_]*\.(py|sql)")
KEPT_HERE = {"requirements.in", "requirements.txt"}
# zlib's default, 6, takes nearly twice the time and saves 1 % of the size.
LEVEL = 5
# Each environment and each Python has files of its own; only this many are kept.
REMEMBERED = 6


class Bundle(NamedTuple):
    """digest: of names and contents without .pyc, the same on every host; remark: whether it was made now."""

    path: Path
    digest: str
    sha256: str
    size: int
    unzipped: int
    remark: str
    bytecode: str

    @property
    def file(self) -> str:
        """Return the path in commands; build/lambda.zip can be another environment's bundle by then."""
        return str(self.path.relative_to(ROOT))


@task(group="deploy", changes=NOTHING, uses=("uv",), help=ENV_HELP)
def bundle(c, env):
    """Make build/lambda.zip: handler/ and its dependencies for the environment's runtime."""
    make(Target.load(c, env).cfg)


@task(group="develop", changes=NOTHING, uses=("uv",))
def lock(c):
    """Update handler/requirements.txt, the pins and hashes for handler/requirements.in."""
    environ = installer.environ()
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    with c.cd(str(ROOT)):
        c.run(packages.lock_command(), echo=True, env=environ, **PLAIN)


def make(cfg: dict[str, str]) -> Bundle:
    """Make an environment's bundle unless it is there, and print what it is; raises Exit above Lambda's limits."""
    made = build(cfg)
    size = f"{made.size / 1e6:.1f} MB"
    print(f"bundle    build/lambda.zip  {size}  digest {made.digest[:12]}  {made.remark}, {made.bytecode}")
    limits.check_bundle(made.size, made.unzipped, cfg["DEPLOY_BUCKET"])
    return made


def build(cfg: dict[str, str]) -> Bundle:
    """Make the bundle of an environment's RUNTIME, BUNDLE_PLATFORM and ORACLE_CLIENT; raises Exit."""
    platform = Platform(cfg["RUNTIME"], cfg["BUNDLE_PLATFORM"], cfg["ORACLE_CLIENT"])
    own, ca = sources(), ca_file.find(cfg)
    python = bytecode.find(platform.runtime)
    inputs = [platform.name, python.version if python else ""]
    place = ROOT / "build" / "bundles" / f"{key_of(inputs, [*MADE_BY, packages.LOCK, *own, *filter(None, [ca])])}.zip"
    known, remark = kept(place), "as it was"
    if known is None:
        known, remark = bundled(place, own, ca, python, packaged(platform, python)), "made"
    put_in_place(place)
    origin = f".pyc of {python.path}" if python else f"no .pyc: {platform.runtime} is not on this machine"
    return Bundle(place, known["digest"], known["sha256"], place.stat().st_size, known["unzipped"], remark, origin)


def sources() -> list[Path]:
    """Return the files of handler/ that are shipped; raises Exit with the name of any other file."""
    found = [path for path in sorted(HANDLER.rglob("*")) if "__pycache__" not in path.relative_to(HANDLER).parts]
    files = [path for path in found if path.is_symlink() or not path.is_dir()]
    shipped = [path for path in files if path.parent != HANDLER or path.name not in KEPT_HERE]
    for path in shipped:
        if path.parent != HANDLER or not SHIPPED.fullmatch(path.name) or path.is_symlink():
            raise Exit(
                f"{path.relative_to(ROOT)} does not belong in the function, which only has *.py and *.sql of handler/;"
                " move it out of handler/. Nothing was built."
            )
    return shipped


def key_of(words: list[str], inputs: Iterable[Path]) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def packaged(platform: Platform, python: bytecode.Interpreter | None) -> Path:
    """Return the ZIP of the lock's packages for a platform, to which a bundle adds handler/."""
    inputs = [platform.name, python.version if python else ""]
    place = ROOT / "build" / "packages" / f"{key_of(inputs, [*MADE_BY, packages.LOCK])}.zip"
    if kept(place) is None:
        with aside(place) as (tree, new):
            packages.install(platform, tree)
            keep(new, place, *write_zip(new, tree, python, "w"))
    return place


def bundled(place: Path, own: list[Path], ca: Path | None, python: bytecode.Interpreter | None, base: Path) -> dict:
    """Make a bundle from the packages' ZIP, whose compressed entries are copied."""
    with aside(place) as (tree, new):
        (tree / "handler").mkdir(parents=True)
        for path in own:
            shutil.copyfile(path, tree / "handler" / path.name)
        if ca:
            shutil.copyfile(ca, tree / ca_file.SHIPPED_AS)
        shutil.copyfile(base, new)
        digest, unzipped = write_zip(new, tree, python, "a", strict=True)
        return keep(new, place, hashlib.sha256((kept(base)["digest"] + digest).encode()).hexdigest(), unzipped)


def write_zip(
    new: Path, tree: Path, python: bytecode.Interpreter | None, mode: str, strict: bool = False
) -> tuple[str, int]:
    """Add a tree and its bytecode to a ZIP whose bytes only depend on names and contents.

    Returns the digest of the added files without bytecode, and the unzipped bytes of the whole ZIP.
    """
    digest, names = hashlib.sha256(), packages.files_of(tree)
    with zipfile.ZipFile(new, mode) as archive:
        with bytecode.compiling(python, tree, strict):
            for name in names:
                content = add(archive, tree, name)
                digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        for name in packages.files_of(tree):
            if name.endswith(".pyc"):
                add(archive, tree, name)
        return digest.hexdigest(), sum(entry.file_size for entry in archive.infolist())


def add(archive: zipfile.ZipFile, tree: Path, name: str) -> bytes:
    content = (tree / name).read_bytes()
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=LEVEL)
    return content


@contextmanager
def aside(place: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (a folder for files, a path for the ZIP) of this build alone, removed when this process ends.

    The removal of a thousand files can take as long as their packing, so it runs in the background.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=place.parent))
    try:
        yield folder / "tree", folder / place.name
    finally:
        threading.Thread(target=shutil.rmtree, args=(folder, True)).start()


def kept(place: Path) -> dict | None:
    """Return the record of a ZIP made before, None if it is missing or has changed."""
    with suppress(OSError, ValueError):
        known = json.loads(place.with_suffix(".json").read_text())
        if known["sha256"] == hashlib.sha256(place.read_bytes()).hexdigest():
            return known
    return None


def keep(new: Path, place: Path, digest: str, unzipped: int) -> dict:
    known = {"digest": digest, "sha256": hashlib.sha256(new.read_bytes()).hexdigest(), "unzipped": unzipped}
    note = new.with_suffix(".json")
    note.write_text(json.dumps(known))
    new.replace(place)
    note.replace(place.with_suffix(".json"))
    forget_old(place.parent)
    return known


def forget_old(folder: Path) -> None:
    """Remove all but the newest ZIPs, and the folders of builds that were killed a day ago."""
    for path in folder.glob("making-*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 86400:
                shutil.rmtree(path, ignore_errors=True)
    for pattern in ("*.zip", "*.json"):
        # Another build may remove the same ones.
        with suppress(FileNotFoundError):
            for path in sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)[:-REMEMBERED]:
                path.unlink()


def put_in_place(place: Path) -> None:
    """Replace build/lambda.zip by this bundle, atomically."""
    if BUNDLE.exists() and BUNDLE.samefile(place):
        return
    with tempfile.TemporaryDirectory(prefix="making-", dir=BUNDLE.parent) as folder:
        new = Path(folder) / BUNDLE.name
        try:
            os.link(place, new)
        except OSError:
            shutil.copyfile(place, new)
        new.replace(BUNDLE)
