"""build/lambda.zip: handler/ as it stands and the packages of its lock, for the runtime of an environment."""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from invoke import Exit

ROOT = Path(__file__).resolve().parents[1]
HANDLER = ROOT / "handler"
LOCK = HANDLER / "requirements.txt"
PACKAGES = ROOT / "build" / "packages"
BUNDLE = ROOT / "build" / "lambda.zip"
# handler/ is shipped as it stands, so what does not belong there must not be there.
SHIPPED = {".py", ".sql"}
KEPT_HERE = {"requirements.in", "requirements.txt"}


class Bundle(NamedTuple):
    """digest: over names and contents, the same on every host; remark: whether it was made now."""

    digest: str
    megabytes: float
    remark: str


def make(c, runtime: str, platform: str) -> Bundle:
    """Make the bundle unless the one that is there was made from the same inputs; raises Exit."""
    stamp = Path(f"{BUNDLE}.stamp")
    inputs = input_digest(f"{runtime} {platform}", [*sources(), LOCK, Path(__file__)])
    if BUNDLE.exists() and stamp.exists():
        made_from, digest = stamp.read_text().split()
        if made_from == inputs:
            return Bundle(digest, BUNDLE.stat().st_size / 1e6, "as it was")
    install(c, runtime, platform)
    contents = {f"handler/{path.name}": path for path in sources()} | packages()
    digest = content_digest(contents)
    write_zip(contents, BUNDLE)
    stamp.write_text(f"{inputs} {digest}")
    return Bundle(digest, BUNDLE.stat().st_size / 1e6, "made")


def sources() -> list[Path]:
    """The files of handler/ that are shipped; one that does not belong there stops the build by name."""
    found = [path for path in sorted(HANDLER.iterdir()) if path.name not in KEPT_HERE | {"__pycache__"}]
    strange = [path.name for path in found if path.suffix not in SHIPPED or path.is_dir()]
    if strange:
        raise Exit(
            f"handler/{strange[0]} would be shipped with the function; move it out of handler/. Nothing was built."
        )
    return found


def input_digest(target: str, inputs: list[Path]) -> str:
    digest = hashlib.sha256(target.encode())
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def install_command(runtime: str, platform: str) -> str:
    on = f" --python-platform {platform}" if platform else ""
    return (
        f"uv pip install --quiet --target {PACKAGES.relative_to(ROOT)}"
        f" --python-version {runtime.removeprefix('python')}{on}"
        " --only-binary :all: --require-hashes --no-compile-bytecode --link-mode copy -r handler/requirements.txt"
    )


def install(c, runtime: str, platform: str) -> None:
    """Have the lock's packages for that runtime in build/packages, whole; raises Exit."""
    stamp = PACKAGES.with_suffix(".stamp")
    inputs = input_digest(f"{runtime} {platform}", [LOCK, Path(__file__)])
    if stamp.exists() and stamp.read_text() == inputs:
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(PACKAGES, ignore_errors=True)
    with c.cd(str(ROOT)):
        command = f"{Path(sys.executable).parent}/{install_command(runtime, platform)}"
        done = c.run(command, hide=True, warn=True, dry=False, in_stream=False)
    if not done.ok:
        raise Exit(f"the bundle's packages could not be installed: {' '.join(done.stderr.split())}")
    stamp.write_text(inputs)


def packages() -> dict[str, Path]:
    """Name in the bundle -> file of a package; what nobody imports stays behind."""
    found = sorted(path for path in PACKAGES.rglob("*") if path.is_file())
    named = {path.relative_to(PACKAGES).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if not is_left_out(name)}


def is_left_out(name: str) -> bool:
    """Programs, stubs, another interpreter's bytecode, and uv's own marks."""
    return name.startswith(("bin/", ".", "CACHEDIR.TAG")) or name.endswith((".pyc", ".pyi"))


def content_digest(contents: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(contents.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def write_zip(contents: dict[str, Path], target: Path) -> None:
    """A zip whose bytes depend on names and contents alone; whole at its place or not there."""
    aside = target.with_suffix(".new")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, path in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    aside.replace(target)
