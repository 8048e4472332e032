"""The bundle: what is in it, that it starts from itself alone, and that it is the same everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import invoke
import pytest
from support import checkout
from support.bundle_helpers import HOST, bare, made_for_this_host, unzip_to
from support.helpers import ROOT

from ops import bundle, bytecode, packages

TARGET = {"RUNTIME": "python3.13", "BUNDLE_PLATFORM": "x86_64-manylinux_2_34", "ORACLE_CLIENT": "thick"}
# The content of the bundle. A new name here is a new dependency, and so a decision.
TOP = {"asn1crypto", "dateutil", "handler", "oracledb", "pg8000", "restate", "scramp", "six.py"}
TOP |= {"typing_extensions.py", "tzdata"}
ENCRYPTION = {"cffi", "cryptography", "pycparser", "_cffi_backend"}
DATABASES = {"oracledb", "pg8000"}
HEAVY = {"boto3", "botocore", "pydantic", "hypercorn", "httpx"}


@pytest.fixture(scope="module", params=["thick", "thin"])
def unzipped(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, unzip_to(tmp_path_factory.mktemp(request.param), request.param)


def test_nothing_else_is_in_it(unzipped):
    client, folder = unzipped
    found = {path.name.partition(".cpython-")[0] for path in folder.iterdir()}
    found -= {"__pycache__", *(path.name for path in folder.glob("*.dist-info"))}
    assert found == TOP | (ENCRYPTION if client == "thin" else set())
    own = {path.name for path in (folder / "handler").iterdir()} - {"__pycache__"}
    assert own == {path.name for path in (ROOT / "handler").glob("*.*") if path.suffix in (".py", ".sql")}


def test_what_nobody_imports_stays_behind(unzipped):
    _, folder = unzipped
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert [name for name in names if name.suffix in (".pyi", ".c", ".h", ".pyx", ".pxd")] == []
    assert [name for name in names if {"tests", "test", "bin"} & set(name.parts)] == []
    assert {name.name for name in names if name.parts[0].endswith(".dist-info")} == {"METADATA"}
    assert (folder / "tzdata" / "zoneinfo" / "Asia" / "Jakarta").exists()


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("bin/tool", True),
        ("pkg/tests/test_a.py", True),
        ("pkg/test/a.py", True),
        ("pkg/test.py", False),
        ("pkg/a.pyi", True),
        ("pkg/a.c", True),
        ("pkg-1.dist-info/RECORD", True),
        ("pkg-1.dist-info/licenses/METADATA", True),
        ("pkg-1.dist-info/METADATA", False),
        ("pkg/bin/a.py", False),
        (".lock", True),
        ("oracledb/plugins/oci_tokens.py", True),
        ("restate/ext/openai/__init__.py", True),
        ("restate/extensions.py", False),
        ("pkg/a.so", False),
    ],
)
def test_what_is_left_out(name, out):
    assert packages.is_left_out(name) == out


def test_a_ping_is_answered_and_loads_no_database(unzipped, tmp_path):
    script = "from handler.app import handler; print(handler({'ping': True}, None)['ok'], *sys.modules)"
    answer, *loaded = bare(unzipped[1], script, tmp_path).split()
    assert answer == "True"
    assert {name.partition(".")[0] for name in loaded} & (DATABASES | HEAVY | ENCRYPTION) == set()


def test_each_module_and_each_driver_imports(unzipped, tmp_path):
    names = [f"handler.{path.stem}" for path in (ROOT / "handler").glob("*.py")] + sorted(DATABASES)
    script = f"import importlib\nfor name in {names}: importlib.import_module(name)\nprint(*sys.modules)"
    loaded = {name.partition(".")[0] for name in bare(unzipped[1], script, tmp_path).split()}
    assert loaded & HEAVY == set()
    assert ("cryptography" in loaded) == (unzipped[0] == "thin")


def test_time_zones_come_from_the_bundle(unzipped, tmp_path):
    script = "import zoneinfo; zoneinfo.reset_tzpath(()); print(zoneinfo.ZoneInfo('Asia/Jakarta').key)"
    assert bare(unzipped[1], script, tmp_path) == "Asia/Jakarta"


def test_bytecode_is_never_checked_against_its_source(unzipped):
    _, folder = unzipped
    made = list(folder.rglob("*.pyc"))
    assert len(made) > 150
    # PEP 552: flags 1 is a hash that is not checked.
    assert {int.from_bytes(path.read_bytes()[4:8], "little") for path in made} == {1}
    assert b"/var/task/handler/app.py" in (folder / "handler" / "__pycache__").glob("app.*").__next__().read_bytes()


def test_the_identity_leaves_bytecode_out(monkeypatch):
    with_bytecode = made_for_this_host("thick")
    monkeypatch.setattr(bytecode, "find", lambda runtime: None)
    without = made_for_this_host("thick")
    assert without.digest == with_bytecode.digest
    assert without.sha256 != with_bytecode.sha256
    assert without.bytecode == f"no .pyc: {HOST} is not on this machine"
    assert not [name for name in zipfile.ZipFile(without.path).namelist() if name.endswith(".pyc")]


def test_nothing_is_made_twice_and_a_zip_that_was_changed_is_made_anew():
    before = made_for_this_host("thick")
    assert made_for_this_host("thick").remark == "as it was"
    assert bundle.BUNDLE.read_bytes() == before.path.read_bytes()
    with zipfile.ZipFile(bundle.BUNDLE, "a") as archive:
        archive.writestr("foreign.py", "")
    again = made_for_this_host("thick")
    assert (again.remark, again.sha256) == ("made", before.sha256)
    assert bundle.BUNDLE.read_bytes() == again.path.read_bytes()


def start_build(folder: Path, python: str = sys.executable, **more) -> subprocess.Popen:
    """Build in a checkout with a Python that has nothing of ours but invoke and dotenv."""
    lend = folder / "lent"
    lend.mkdir(exist_ok=True)
    site = Path(invoke.__file__).parents[1]
    for path in (*site.glob("invoke*"), site / "dotenv"):
        if not (lend / path.name).exists():
            (lend / path.name).symlink_to(path)
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more.pop("environ", {})}
    script = (
        f"import sys; sys.path[:0] = [{str(folder)!r}, {str(lend)!r}]\nfrom ops import bundle\n"
        f"made = bundle.build({TARGET})\nprint(made.digest, made.sha256, bundle.BUNDLE)"
    )
    return subprocess.Popen([python, "-s", "-c", script], env=environ, stdout=subprocess.PIPE, text=True, **more)


def built(process: subprocess.Popen) -> list[str]:
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    return output.split()


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> list[str]:
    """Return [digest, sha256 of the zip, its path] of a first build, from a plain checkout."""
    return built(start_build(checkout.copy(tmp_path_factory.mktemp("here"))))


@pytest.mark.long
def test_two_builds_at_once_elsewhere_give_the_same_bytes(here, tmp_path):
    """In another folder, of another depth, under another umask and time zone, twice at the same time."""
    folder = checkout.copy(tmp_path / "somewhere else" / "deeper")
    strange = {"umask": 0o077, "environ": {"TZ": "Asia/Jakarta", "PYTHONOPTIMIZE": "2"}}
    for process in [start_build(folder, **strange), start_build(folder, **strange)]:
        assert built(process)[:2] == here[:2]
    assert (folder / "build" / "lambda.zip").read_bytes() == Path(here[2]).read_bytes()
    assert [path.name for path in (folder / "build").rglob("making-*")] == []


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["python3.10", "python3.11", "python3.12", "python3.13"])
def test_every_host_python_gives_the_same_digest(runtime, here, tmp_path):
    other = bytecode.find(runtime)
    if runtime == HOST or other is None:
        pytest.skip(f"{runtime} is {'what made the first one' if runtime == HOST else 'not on this machine'}")
    assert built(start_build(checkout.copy(tmp_path), other.path))[0] == here[0]


@pytest.fixture
def folder_with(tmp_path, monkeypatch):
    """Return a copy of handler/ to put something into."""
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    monkeypatch.setattr(bundle, "HANDLER", tmp_path / "handler")
    return Path(shutil.copytree(ROOT / "handler", tmp_path / "handler", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        "prod.env",
        "id_rsa",
        "key.pem",
        "notes.ipynb",
        "app.py.orig",
        ".hidden.py",
        "sub/.env",
        "sub/module.py",
        "sub/requirements.txt",
        "app.pyc",
    ],
)
def test_what_does_not_belong_into_handler_stops_the_build_by_name(name, folder_with):
    (folder_with / name).parent.mkdir(exist_ok=True)
    (folder_with / name).write_text("")
    with pytest.raises(invoke.Exit, match=f"^handler/{re.escape(name)} does not belong"):
        bundle.build(TARGET)
    assert not (folder_with.parent / "build").exists()


def test_a_link_out_of_handler_stops_the_build(folder_with):
    (folder_with / "hostname.py").symlink_to("/etc/hostname")
    with pytest.raises(invoke.Exit, match=r"handler/hostname\.py"):
        bundle.build(TARGET)


def test_a_module_that_the_target_cannot_compile_stops_the_build(folder_with, monkeypatch):
    (folder_with / "broken.py").write_text("def broken(:\n")
    monkeypatch.setattr(packages, "install", lambda target, tree: tree.mkdir())
    with pytest.raises(invoke.Exit, match=r"handler/ does not compile .*broken\.py"):
        bundle.build({**TARGET, "RUNTIME": HOST})
    assert not (folder_with.parent / "build" / "lambda.zip").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RUNTIME": "python3.19"}, "oracledb .* has no wheel for python3.19"),
        ({"BUNDLE_PLATFORM": "riscv64-unknown-linux"}, "has no wheel for python3.13 on riscv64"),
        ({"BUNDLE_PLATFORM": "x86_64-plan9"}, "BUNDLE_PLATFORM 'x86_64-plan9' is not a platform"),
    ],
)
def test_a_target_without_wheels_is_named_in_one_line(change, words, folder_with):
    with pytest.raises(invoke.Exit, match=words) as caught:
        bundle.build({**TARGET, **change})
    assert len(str(caught.value).splitlines()) == 1
    assert not list((folder_with.parent / "build").glob("*/*.zip"))


def test_the_lock_pins_with_hashes_all_that_is_asked_for():
    lock = packages.LOCK.read_text()
    blocks = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert all(re.match(r"[a-z0-9-]+==\S+", block) and "--hash=sha256:" in block for block in blocks)
    asked = re.findall(r"^[a-z0-9-]+", (ROOT / "handler" / "requirements.in").read_text(), re.MULTILINE)
    assert set(asked) <= {block.partition("==")[0] for block in blocks}
    thick = packages.locked_for("thick", lock)
    assert not re.search(r"^(cryptography|cffi|pycparser)==", thick, re.MULTILINE)
    assert thick.count("==") == lock.count("==") - sum(
        block.count("==") for block in blocks if block.partition("==")[0] in packages.THIN_ONLY
    )


def test_uv_copies_and_does_not_link():
    """A file that is linked from uv's cache and edited in place damages every later installation."""
    command = packages.install_command(packages.Platform("python3.13", "", "thin"), Path("r"), Path("t"))
    assert "--link-mode copy" in command
