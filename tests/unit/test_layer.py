"""The layer, built from ZIPs of Instant Client's shape and really loaded, in a process that has nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from invoke import Exit
from support import instantclient
from support.helpers import ROOT, inv
from support.instantclient import AIO, L12, L19, L21, LAYOUTS, NSL, check_loads, run_with, unzip

from layer import build, client, elf, system_libraries

pytestmark = pytest.mark.skipif(not instantclient.COMPILER, reason="needs a C compiler, to make libraries from")


@pytest.fixture(autouse=True)
def libaio(zips, monkeypatch):
    monkeypatch.setenv("LIBAIO", str(zips["19"].parent / "system" / AIO))


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "build" / "layer.zip"


def make(zipped: Path, target: Path, runtime: str = "python3.13", insist: bool = True) -> dict:
    return build.build(str(zipped), runtime, insist, target)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_layer_loads_from_itself_alone(zips, target, tmp_path, layout):
    make(zips[layout.version], target)
    lib = unzip(target, tmp_path / "opt") / "lib"
    check_loads(lib, "libociicus.so")
    assert not (lib / "libclntsh.so").is_absolute() or (lib / "libclntsh.so").readlink() == Path(layout.soname)


def test_the_driver_starts_in_thick_mode_with_the_layer(zips, target, tmp_path):
    """The unmodified driver, as far as a library that only has OCI's first calls can take it."""
    make(zips["19"], target)
    lib = unzip(target, tmp_path / "opt") / "lib"
    code = "import oracledb; oracledb.init_oracle_client(); print(oracledb.clientversion())"
    done = run_with(lib, code)
    assert (done.stdout.strip(), done.stderr) == ("(19, 28, 0, 0, 0)", "")


LEFT_OUT = {
    "12.1": {"libocci.so.12.1", "libocijdbc12.so"},
    "19": {"libocci.so.19.1", "libocijdbc19.so", "liboramysql19.so", "libipc1.so", "libmql1.so"},
    "21": {"libocijdbc21.so"},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_what_goes_in_follows_from_what_is_needed(zips, target, capsys, layout):
    about = make(zips[layout.version], target)
    wanted = set(layout.needed) - LEFT_OUT[layout.version]
    wanted |= {name for name, to in layout.links.items() if to in wanted} | {"libclntsh.so", AIO}
    wanted |= {NSL} if any(NSL in needed for needed in layout.needed.values()) else set()
    assert set(about["files"]) == wanted
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if "left out" in line)
    assert all(name in line for name in LEFT_OUT[layout.version] | {"ojdbc8.jar", "xstreams.jar", "genezi"})
    saved, before = map(
        lambda text: int(text.replace(",", "")), re.search(r"saved ([\d,]+) of ([\d,]+)", output).groups()
    )
    client_folder = next(zips[layout.version].parent.glob("instantclient_*"))
    sizes = {place.name: place.stat().st_size for place in client_folder.iterdir() if not place.is_symlink()}
    assert before == sum(sizes.values()) + len("Manifest-Version: 1.0\n")
    assert saved >= sum(sizes[name] for name in LEFT_OUT[layout.version])


def test_the_zip_holds_links_modes_the_licence_and_sqlnet_ora(zips, target):
    make(zips["19"], target)
    with zipfile.ZipFile(target) as layer:
        modes = {one.filename: one.external_attr >> 16 for one in layer.infolist()}
        assert layer.read("lib/libclntsh.so") == b"libclntsh.so.19.1"
        assert b"DIAG_ADR_ENABLED = OFF" in layer.read("network/admin/sqlnet.ora")
        assert b"LOG_DIRECTORY_CLIENT = /tmp" in layer.read("network/admin/sqlnet.ora")
    links = {f"lib/{name}" for name in L19.links if name != "libocci.so"}
    assert {name for name, mode in modes.items() if mode == 0o120777} == links
    assert {mode for name, mode in modes.items() if name.startswith("lib/") and name not in links} == {0o100755}
    assert modes["instantclient/BASIC_LITE_LICENSE"] == modes["network/admin/sqlnet.ora"] == 0o100644
    assert not [name for name in modes if name.count("/") > 1 and name.startswith("lib/")]


def test_the_same_input_gives_the_same_bytes(zips, target, tmp_path):
    about = make(zips["19"], target)
    first = target.read_bytes()
    moved = tmp_path / "another name.zip"
    shutil.copyfile(zips["19"], moved)
    old = os.umask(0o077)
    try:
        assert make(moved, target) == about
    finally:
        os.umask(old)
    assert target.read_bytes() == first


def test_build_prints_its_sources(zips, target, capsys):
    about = make(zips["19"], target)
    assert (about["client"], about["kind"]) == ("19.28.0.0.0", "Basic Lite")
    assert about["zip"] == subprocess.run(["sha256sum", zips["19"]], capture_output=True, text=True).stdout.split()[0]
    assert about["zip"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "reason"), [("12.1", "needs a client of 18.1 or later (DPI-1050)"), ("21", "cannot reach Oracle 11.2")]
)
def test_a_version_that_cannot_work_is_refused_unless_one_insists(zips, target, version, reason):
    with pytest.raises(Exit, match=re.escape(reason)):
        make(zips[version], target, insist=False)
    assert list(target.parent.iterdir()) == []
    make(zips[version], target, insist=True)


# --- libaio and libnsl --------------------------------------------------------------------------------------------


def test_libaio_is_found_under_either_name_and_copied_under_the_old_one(tmp_path, monkeypatch, zips):
    monkeypatch.delenv("LIBAIO")
    monkeypatch.setattr(system_libraries, "docker_works", lambda: False)
    system, lib = tmp_path / "system", tmp_path / "lib"
    system.mkdir()
    lib.mkdir()
    shutil.copy(zips["19"].parent / "system" / AIO, system / "libaio.so.1.0.2")
    (system / "libaio.so.1t64").symlink_to("libaio.so.1.0.2")
    monkeypatch.setattr(system_libraries, "FOLDERS", (str(system),))
    (line,) = system_libraries.add({AIO}, [], lib, "python3.13")
    assert "libaio.so.1t64" in line
    assert (lib / AIO).is_file()
    assert not (lib / AIO).is_symlink()


def test_no_libaio_anywhere_names_the_package(tmp_path, monkeypatch):
    monkeypatch.delenv("LIBAIO")
    monkeypatch.setattr(system_libraries, "docker_works", lambda: False)
    monkeypatch.setattr(system_libraries, "FOLDERS", ())
    monkeypatch.setattr(system_libraries, "LIBAIO_PACKAGES", ())
    with pytest.raises(Exit, match="apt-get install libaio1t64; older ones: libaio1"):
        system_libraries.add({AIO}, [], tmp_path, "python3.13")


def stub_docker(folder: Path, libraries: Path, log: Path) -> None:
    """Write a docker that answers `info`, and for `run` copies from a folder to the one that is mounted."""
    script = folder / "docker"
    script.write_text(
        f'#!/bin/sh\necho "$*" >> {log}\n[ "$1" = run ] || exit 0\n'
        f'for word; do case "$word" in *:/out) cp {libraries}/{AIO} {libraries}/{NSL} "${{word%:/out}}";; esac; done\n'
    )
    script.chmod(0o755)


def test_with_a_docker_engine_both_come_from_the_runtimes_image(zips, target, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LIBAIO")
    (tmp_path / "bin").mkdir()
    stub_docker(tmp_path / "bin", zips["19"].parent / "system", tmp_path / "log")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    make(zips["19"], target, "python3.12")
    output = capsys.readouterr().out
    assert "libaio.so.1 from public.ecr.aws/lambda/python:3.12" in output
    assert "libnsl.so.1 from public.ecr.aws/lambda/python:3.12" in output
    assert "--platform linux/amd64" in (tmp_path / "log").read_text()


def test_an_empty_library_is_one_that_the_loader_takes(tmp_path):
    (tmp_path / NSL).write_bytes(elf.empty_library(NSL))
    assert elf.read(tmp_path / NSL).soname == NSL
    done = run_with(tmp_path, f"import ctypes; ctypes.CDLL('{NSL}')")
    assert done.returncode == 0, done.stderr


# --- the download -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(content: bytes, length: int | None = None):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(length or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/client.zip"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def checksum(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(client, "CHECKSUM", tmp_path / "client.sha256")
    return tmp_path / "client.sha256"


def test_the_first_download_is_recorded_and_later_ones_must_match(zips, tmp_path, checksum):
    content, place = zips["19"].read_bytes(), tmp_path / "client.zip"
    with serving(content) as address:
        client.download(address, place)
        assert checksum.read_text().split() == [build.archive.digest_of(place), "client.zip"]
        place.unlink()
        client.download(address, place)
    assert client.find_zip(str(place)) == place
    place.unlink()
    with serving(content + b"\0") as address, pytest.raises(Exit, match=r"layer/client.sha256 another one"):
        client.download(address, place)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["client.sha256"]
    place.write_bytes(content + b"\0")
    with pytest.raises(Exit, match="not the file that was downloaded first"):
        client.find_zip(str(place))


@pytest.mark.parametrize("text", ["", "a" * 64, f"{'a' * 63}  client.zip", f"{'a' * 64}  client.zip\nmore"])
def test_malformed_record_is_one_line(tmp_path, checksum, text):
    checksum.write_text(text)
    for action in (lambda: client.check_recorded(tmp_path), lambda: client.download("http://127.0.0.1:1", tmp_path)):
        with pytest.raises(Exit, match=r"^layer: layer/client.sha256 is not one line .*Nothing was built\.$"):
            action()


def test_ci_accepts_only_the_zip_whose_checksum_is_committed(tmp_path, checksum, monkeypatch):
    monkeypatch.setattr(client, "ROOT", tmp_path)
    for words in (["init", "-q"], ["config", "user.email", "a@b.c"], ["config", "user.name", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    client.check_committed("a" * 64)
    monkeypatch.setenv("CI", "true")
    refused = pytest.raises(Exit, match=f"sha256 {'a' * 64}, which no committed.*Nothing was published")
    with refused:
        client.check_committed("a" * 64)
    checksum.write_text(f"{'a' * 64}  {client.PINNED}\n")
    with refused:
        client.check_committed("a" * 64)
    for words in (["add", checksum.name], ["commit", "-qm", "pin"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    client.check_committed("a" * 64)
    with pytest.raises(Exit, match="which no committed"):
        client.check_committed("b" * 64)
    monkeypatch.setenv("PATH", str(tmp_path / "no-git"))
    with pytest.raises(Exit, match="which no committed"):
        client.check_committed("a" * 64)


@pytest.mark.parametrize("answer", ["<html>sign in", "cut short"])
def test_a_download_that_is_no_whole_zip_leaves_nothing(tmp_path, checksum, answer):
    content = answer.encode() if answer.startswith("<") else b"PK\x03\x04cut"
    length = None if answer.startswith("<") else 5000
    with serving(content, length) as address, pytest.raises(Exit, match=r"put it into layer/"):
        client.download(address, tmp_path / "client.zip")
    assert list(tmp_path.iterdir()) == []


def test_offline_one_line_names_the_page_and_the_folder(tmp_path, checksum):
    with pytest.raises(Exit) as caught:
        client.download("http://127.0.0.1:9/client.zip", tmp_path / "client.zip")
    assert "https://www.oracle.com/" in str(caught.value)
    assert "put it into layer/" in str(caught.value)
    assert not checksum.exists()


# --- manual -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_make_builds_once(zips):
    """The verb is a real target: a second call makes nothing, another ZIP makes another layer."""
    words = ["make", "layer", f"INSTANT_CLIENT={zips['19']}"]
    first = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert "Instant Client 19.28" in first.stdout, first.stderr
    assert "Instant Client" not in subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout
    other = subprocess.run(
        ["make", "layer", f"INSTANT_CLIENT={zips['21']}", "INSTANT_CLIENT_ANY=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Instant Client 21.13" in other.stdout
    assert json.loads(zipfile.ZipFile(build.LAYER).read(build.ABOUT))["client"] == "21.13.0.0.0"


def test_publish_without_an_environment_is_one_line():
    """The copy of the tests has none beside local."""
    done = subprocess.run(["make", "publish"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode
    (line,) = done.stderr.splitlines()
    assert "No environment beside local: copy env/example.env" in line


def test_no_such_zip_is_one_line(zips):
    done = inv("layer.build", check=False, INSTANT_CLIENT="/nowhere/client.zip")
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "layer: INSTANT_CLIENT names /nowhere/client.zip, and there is no such file. Nothing was built."
    )


@pytest.mark.parametrize("layout", [L12, L21], ids=["12.1", "21"])
def test_the_task_refuses_a_version_without_insisting(zips, layout):
    done = inv("layer.build", check=False, INSTANT_CLIENT=str(zips[layout.version]))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert not build.LAYER.exists()
