"""build/lambda.zip: handler/ as it stands and the packages of its lock, for the runtime of an environment.

Whatever is made has a name that tells from what, build/packages/KEY.zip and build/bundles/KEY.zip, and is made aside
and moved there whole. So nothing is made twice, and builds that run at once cannot harm each other.
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

from ops import bytecode, limits, packages
from ops.config import ENV_HELP
from ops.packages import Platform
from ops.shell import ROOT
from ops.target import Target
from ops.task import NOTHING, task

HANDLER = ROOT / "handler"
BUNDLE = ROOT / "build" / "lambda.zip"
MADE_BY = [Path(__file__), Path(bytecode.__file__), Path(packages.__file__)]
# handler/ is flat and shipped as it stands, so what does not belong there must not be there.
SHIPPED = re.compile(r"[a-z_][a-z0-9_]*\.(py|sql)")
KEPT_HERE = {"requirements.in", "requirements.txt"}
# zlib's own 6 takes nearly twice the time and saves a hundredth of the size.
LEVEL = 5
# Each environment and each Python has files of its own; older ones than so many go.
REMEMBERED = 6


class Bundle(NamedTuple):
    """digest: over names and contents without .pyc, the same on every host; remark: whether it was made now."""

    path: Path
    digest: str
    sha256: str
    size: int
    unzipped: int
    remark: str
    bytecode: str

    @property
    def file(self) -> str:
        """For a command; build/lambda.zip may by then be the bundle of another environment."""
        return str(self.path.relative_to(ROOT))


@task(group="deploy", changes=NOTHING, help=ENV_HELP)
def bundle(c, env):
    """Make build/lambda.zip: handler/ and its dependencies for the environment's runtime."""
    make(Target.load(c, env).cfg)


@task(group="develop", changes=NOTHING)
def lock(c):
    """Renew handler/requirements.txt, the pins and hashes of what handler/requirements.in asks for."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with c.cd(str(ROOT)):
        c.run(packages.lock_command(), echo=True, env={"PATH": path})


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
    own = sources()
    python = bytecode.find(platform.runtime)
    inputs = [platform.name, python.version if python else ""]
    place = ROOT / "build" / "bundles" / f"{key_of(inputs, [*MADE_BY, packages.LOCK, *own])}.zip"
    known, remark = kept(place), "as it was"
    if known is None:
        known, remark = bundled(place, own, python, packaged(platform, python)), "made"
    put_in_place(place)
    said = f".pyc of {python.path}" if python else f"no .pyc: {platform.runtime} is not on this machine"
    return Bundle(place, known["digest"], known["sha256"], place.stat().st_size, known["unzipped"], remark, said)


def sources() -> list[Path]:
    """The files of handler/ that are shipped; one that does not belong there stops the build by name."""
    found = [path for path in sorted(HANDLER.rglob("*")) if "__pycache__" not in path.relative_to(HANDLER).parts]
    files = [path for path in found if path.is_symlink() or not path.is_dir()]
    shipped = [path for path in files if path.parent != HANDLER or path.name not in KEPT_HERE]
    for path in shipped:
        if path.parent != HANDLER or not SHIPPED.fullmatch(path.name) or path.is_symlink():
            raise Exit(
                f"{path.relative_to(ROOT)} does not belong into the function, which gets *.py and *.sql of handler/"
                " alone; move it out of handler/. Nothing was built."
            )
    return shipped


def key_of(words: list[str], inputs: Iterable[Path]) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def packaged(platform: Platform, python: bytecode.Interpreter | None) -> Path:
    """The zip of the lock's packages for a target, to which a bundle adds handler/."""
    inputs = [platform.name, python.version if python else ""]
    place = ROOT / "build" / "packages" / f"{key_of(inputs, [*MADE_BY, packages.LOCK])}.zip"
    if kept(place) is None:
        with aside(place) as (tree, new):
            packages.install(platform, tree)
            keep(new, place, *write_zip(new, tree, python, "w"))
    return place


def bundled(place: Path, own: list[Path], python: bytecode.Interpreter | None, base: Path) -> dict:
    """Make a bundle from the packages' zip, whose compressed entries are taken over as they are."""
    with aside(place) as (tree, new):
        (tree / "handler").mkdir(parents=True)
        for path in own:
            shutil.copyfile(path, tree / "handler" / path.name)
        shutil.copyfile(base, new)
        digest, unzipped = write_zip(new, tree, python, "a", strict=True)
        return keep(new, place, hashlib.sha256((kept(base)["digest"] + digest).encode()).hexdigest(), unzipped)


def write_zip(
    new: Path, tree: Path, python: bytecode.Interpreter | None, mode: str, strict: bool = False
) -> tuple[str, int]:
    """Add a tree and its bytecode to a zip whose bytes depend on names and contents alone.

    Returns the digest of what was added without bytecode, and the bytes of all that is in the zip, unzipped.
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
    """(a folder for files, a path for the zip), both of this build alone and gone when this process ends.

    A thousand files take a busy disk as long as their packing; so they go while what comes next is under way.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=place.parent))
    try:
        yield folder / "tree", folder / place.name
    finally:
        threading.Thread(target=shutil.rmtree, args=(folder, True)).start()


def kept(place: Path) -> dict | None:
    """What is known of a zip made before; None where it is not there or no longer what it was."""
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
    """Keep the newest zips, and nothing of a build that was killed a day ago."""
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
    """Make build/lambda.zip this bundle, in one move."""
    if BUNDLE.exists() and BUNDLE.samefile(place):
        return
    with tempfile.TemporaryDirectory(prefix="making-", dir=BUNDLE.parent) as folder:
        new = Path(folder) / BUNDLE.name
        try:
            os.link(place, new)
        except OSError:
            shutil.copyfile(place, new)
        new.replace(BUNDLE)
