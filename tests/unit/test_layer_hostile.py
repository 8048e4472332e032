"""Broken and hostile ZIPs: refused by name, in one line, with nothing left behind."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from invoke import Exit
from support.instantclient import add_link

from layer import archive, build


def with_entries(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("instantclient_19_28/BASIC_LITE_README", "x")
        for name in names:
            made.writestr(name, "x")


def with_link(target: str, name: str = "instantclient_19_28/libclntsh.so"):
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as made:
            add_link(made, name, target)

    return make


def through_a_link(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        add_link(made, "instantclient_19_28", "libother")
        made.writestr("instantclient_19_28/libclntsh.so.19.1", "x")


def with_fifo(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        entry = zipfile.ZipInfo("instantclient_19_28/pipe")
        entry.create_system, entry.external_attr = 3, 0o010644 << 16
        made.writestr(entry, "")


def with_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("libociei.so", "w") as file:
        for _ in range(4):
            file.write(bytes(1 << 20))


def with_understated_bomb(path: Path) -> None:
    """Make a file with a too small size in the directory at the end and before its data."""
    with_bomb(path)
    raw = path.read_bytes()
    size = (4 << 20).to_bytes(4, "little")
    assert size in raw
    path.write_bytes(raw.replace(size, (100).to_bytes(4, "little")))


def truncated(path: Path) -> None:
    with_bomb(path)
    path.write_bytes(path.read_bytes()[:-40])


def changed_inside(path: Path) -> None:
    with_entries(path, "instantclient_19_28/libclntsh.so.19.1")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"libclntsh.so.19.1") + len("libclntsh.so.19.1")
    raw[at] ^= 0xFF
    path.write_bytes(raw)


def encrypted(path: Path) -> None:
    with_entries(path, "instantclient_19_28/libclntsh.so.19.1")
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 8] |= 1
    path.write_bytes(raw)


def two_clients(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("instantclient_19_28/libclntsh.so.19.1", "x")
        made.writestr("instantclient_19_27/libclntsh.so.19.1", "y")


def named(*names: str):
    return lambda path: with_entries(path, *names)


FAULTS = {
    "traversal": (named("instantclient_19_28/../../evil.so"), "a path that leads out of its folder"),
    "absolute": (named("/tmp/evil.so"), "'/tmp/evil.so', a path that leads out of its folder"),
    "backslashes": (named("..\\evil.so"), "which no Instant Client has"),
    "drive": (named("C:evil.so"), "which no Instant Client has"),
    "line break": (named("instantclient_19_28/a\nb"), r"'instantclient_19_28/a\\nb', which no Instant Client has"),
    "twice": (named("a/libclntsh.so.19.1", "a/libclntsh.so.19.1"), "twice"),
    "link outside": (with_link("../../../etc/passwd"), "a link to '../../../etc/passwd', which points out"),
    "absolute link": (with_link("/etc/passwd"), "a link to '/etc/passwd', which points out"),
    "link as folder": (through_a_link, "cannot be unpacked"),
    "fifo": (with_fifo, "neither a file nor a folder nor a link"),
    "bomb": (with_bomb, "which no Instant Client does"),
    "understated bomb": (with_understated_bomb, "is not a complete ZIP file"),
    "truncated": (truncated, "is not a complete ZIP file"),
    "changed": (changed_inside, "is not a complete ZIP file"),
    "encrypted": (encrypted, "uses a ZIP feature that Oracle does not use"),
    "no zip": (lambda path: path.write_text("<html>sign in</html>"), "is not a complete ZIP file"),
    "empty": (lambda path: path.write_bytes(b""), "is not a complete ZIP file"),
    "many files": (named(*(f"a/{number}" for number in range(archive.MOST_FILES))), "which no Instant Client does"),
    "no client": (named("instantclient_19_28/libocci.so.19.1"), "has no Instant Client"),
    "two clients": (two_clients, "has two clients"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: name.replace(" ", "_"))
def test_a_hostile_zip_is_refused_by_name_and_leaves_nothing(tmp_path, monkeypatch, fault):
    make, message = FAULTS[fault]
    if "bomb" in fault:
        monkeypatch.setattr(archive, "MOST_BYTES", 3_000_000)
    path = tmp_path / "client.zip"
    make(path)
    target = tmp_path / "build" / "layer.zip"
    target.parent.mkdir()
    # An earlier layer must not be taken for the one that was asked for.
    target.write_text("an earlier layer")
    with pytest.raises(Exit, match=message) as caught:
        build.build(str(path), "python3.13", insist=False, target=target)
    assert "client.zip" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(place.name for place in tmp_path.rglob("*")) == ["build", "client.zip"]
