"""Clients that a runtime could not load: each is refused with the file, the symbol or the library, and the fix."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from invoke import Exit
from support import instantclient
from support.instantclient import AIO, L19, NSL

from layer import build

pytestmark = pytest.mark.skipif(not instantclient.COMPILER, reason="needs a C compiler, to make libraries from")


@pytest.fixture(autouse=True)
def libaio(zips, monkeypatch):
    monkeypatch.setenv("LIBAIO", str(zips["19"].parent / "system" / AIO))


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "build" / "layer.zip"


def make(zipped: Path, target: Path, runtime: str = "python3.13") -> dict:
    return build.build(str(zipped), runtime, False, target)


@pytest.fixture
def folder(zips, tmp_path) -> Path:
    """Return a copy of the 19 client, to be changed."""
    source = next(zips["19"].parent.glob("instantclient_*"))
    return shutil.copytree(source, tmp_path / "in" / source.name, symlinks=True)


def refused(folder: Path, target: Path, **given) -> str:
    zipped = instantclient.zip_folder(folder, folder.parent / "client.zip")
    with pytest.raises(Exit) as caught:
        make(zipped, target, **given)
    assert not list(target.parent.iterdir()), "something was left behind"
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith("Nothing was built.")
    return line


def rewrite(folder: Path, name: str, source: str, *words: str, needed: tuple[str, ...] = ()) -> None:
    (folder / name).unlink(missing_ok=True)
    instantclient.compile_library(folder / name, source, name, needed, *words)


def test_a_library_for_another_machine_is_named(folder, target):
    raw = bytearray((folder / L19.soname).read_bytes())
    raw[18] = 183
    (folder / L19.soname).write_bytes(raw)
    assert "libclntsh.so.19.1 is built for arm64 and the function runs on x86-64" in refused(folder, target)


def test_a_library_that_is_nowhere_is_named(folder, target):
    (folder / "libnnz19.so").unlink()
    assert "libclntsh.so.19.1 needs libnnz19.so, which is neither in the layer nor in python3.13" in refused(
        folder, target
    )


def test_a_damaged_library_is_named(folder, target):
    raw = (folder / "libnnz19.so").read_bytes()
    (folder / "libnnz19.so").write_bytes(raw[:900])
    assert "libnnz19.so is a damaged ELF file" in refused(folder, target)


def test_a_symbol_newer_than_the_runtimes_glibc_is_named(folder, target):
    """A library that asks for pthread_getattr_np's present version, 2.32, loads on python3.12 and not on 3.11."""
    source = "int pthread_getattr_np(); int f_libnnz19_so() { return pthread_getattr_np(); }"
    rewrite(folder, "libnnz19.so", source)
    zipped = instantclient.zip_folder(folder, folder.parent / "client.zip")
    assert make(zipped, target, "python3.12")["runtimes"] == ["python3.12", "python3.13", "python3.14"]
    target.unlink()
    line = refused(folder, target, runtime="python3.11")
    assert "libnnz19.so needs pthread_getattr_np of GLIBC_2.32" in line
    assert "python3.11 has glibc 2.26" in line


def test_a_symbol_of_glibc_newer_than_any_runtime_is_named(folder, target):
    """This machine's glibc may be too old to link against such a symbol, so the version's name is changed."""
    rewrite(folder, "libnnz19.so", "int pthread_getattr_np(); int f_libnnz19_so() { return pthread_getattr_np(); }")
    raw = (folder / "libnnz19.so").read_bytes()
    (folder / "libnnz19.so").write_bytes(raw.replace(b"GLIBC_2.32", b"GLIBC_2.38"))
    assert "libnnz19.so needs pthread_getattr_np of GLIBC_2.38 in libc.so.6" in refused(folder, target)


def test_a_libaio_that_is_tied_to_its_glibc_is_named(folder, target, tmp_path, monkeypatch):
    instantclient.compile_library(
        tmp_path / AIO, "int pthread_getattr_np(); int io_setup() { return pthread_getattr_np(); }", AIO
    )
    raw = (tmp_path / AIO).read_bytes()
    (tmp_path / AIO).write_bytes(raw.replace(b"GLIBC_2.32\0", b"GLIBC_PRIV\0"))
    monkeypatch.setenv("LIBAIO", str(tmp_path / AIO))
    line = refused(folder, target)
    assert "libaio.so.1 needs pthread_getattr_np of GLIBC_PRIV" in line
    assert "make layer LIBAIO=path" in line


def test_a_version_that_the_layers_own_library_lacks_is_named(folder, target, tmp_path):
    script = tmp_path / "versions"
    script.write_text("NNZ_2 { global: *; };")
    rewrite(folder, "libnnz19.so", instantclient.source_of(L19, "libnnz19.so"), f"-Wl,--version-script={script}")
    needed = tuple(name for name in L19.needed[L19.soname])
    for name in (AIO, NSL):
        shutil.copy(next(iter([Path(os.environ["LIBAIO"]).parent / name])), folder / name)
    rewrite(folder, L19.soname, instantclient.source_of(L19, L19.soname), needed=needed)
    script.write_text("NNZ_1 { global: *; };")
    rewrite(folder, "libnnz19.so", instantclient.source_of(L19, "libnnz19.so"), f"-Wl,--version-script={script}")
    (folder / AIO).unlink()
    (folder / NSL).unlink()
    assert "libclntsh.so.19.1 needs f_libnnz19_so of NNZ_2 in libnnz19.so" in refused(folder, target)


def test_a_client_that_uses_libnsl_gets_no_empty_one(folder, target):
    shutil.copy(Path(os.environ["LIBAIO"]).parent / NSL, folder / NSL)
    source = (
        instantclient.source_of(L19, "libnnz19.so")
        + "int yp_get_default_domain(); int g() { return yp_get_default_domain(); }"
    )
    rewrite(folder, "libnnz19.so", source, needed=(NSL,))
    (folder / NSL).unlink()
    line = refused(folder, target)
    assert "libnnz19.so uses yp_get_default_domain of libnsl.so.1" in line
    assert "Docker" in line


def test_a_program_in_a_librarys_place_is_named(folder, target):
    shutil.copy(folder / "genezi", folder / "libnnz19.so")
    assert "libnnz19.so is a program and not a shared library" in refused(folder, target)


def test_no_data_library(folder, target):
    (folder / "libociicus.so").unlink()
    line = refused(folder, target)
    assert "ORA-01804" in line
    assert "libociei.so" in line


def test_a_library_that_oci_opens_by_name_goes_in(folder, target):
    text = 'const char *opened = "libmql1.so"; const char *not_loadable = "libocci.so.19.1";'
    rewrite(folder, "libnnz19.so", instantclient.source_of(L19, "libnnz19.so") + text)
    about = make(instantclient.zip_folder(folder, folder.parent / "client.zip"), target)
    assert "libmql1.so" in about["files"]
    assert "libocci.so.19.1" not in about["files"]


def test_copies_where_links_were_become_links_again(folder, target):
    for name in L19.links:
        (folder / name).unlink()
        if name.startswith("libclntsh.so"):
            shutil.copy(folder / L19.soname, folder / name)
    make(instantclient.zip_folder(folder, folder.parent / "client.zip"), target)
    with zipfile.ZipFile(target) as layer:
        assert layer.read("lib/libclntsh.so") == layer.read("lib/libclntsh.so.18.1") == b"libclntsh.so.19.1"


def test_a_link_that_became_a_text_is_refused(folder, target):
    (folder / "libclntsh.so").unlink()
    (folder / "libclntsh.so").write_text("libclntsh.so.19.1")
    assert "libclntsh.so is a text file instead of a link" in refused(folder, target)
