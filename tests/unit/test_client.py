"""Why thick mode does not start: the messages of the unmodified driver for damaged layers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from oracledb import errors
from support import instantclient
from support.instantclient import AIO, check_client

from handler import client
from layer import build

ATTACHED = {"libclntsh.so": "x86_64", "libclntsh.so.19.1": "x86_64", "libnnz19.so": "x86_64"}


def dpi_1047(reported: str) -> str:
    return (
        f'DPI-1047: Cannot locate a 64-bit Oracle Client library: "{reported}". See https://python-oracledb…\nHelp: x'
    )


@pytest.mark.parametrize(
    ("reported", "found", "cause"),
    [
        (
            dpi_1047("libclntsh.so: cannot open shared object file: No such file or directory"),
            {},
            "the Instant Client layer is not attached",
        ),
        (
            dpi_1047("libclntsh.so: cannot open shared object file: No such file or directory"),
            ATTACHED | {"libclntsh.so": "aarch64"},
            "libclntsh.so in the layer is of the wrong architecture, aarch64 and not x86_64",
        ),
        (
            dpi_1047("libclntsh.so: cannot open shared object file: No such file or directory"),
            {"libclntsh.so.19.1": "x86_64"},
            "not the name libclntsh.so, a link to it",
        ),
        (
            dpi_1047("libaio.so.1: cannot open shared object file: No such file or directory"),
            ATTACHED,
            "the layer lacks the library libaio.so.1",
        ),
        (dpi_1047("/opt/lib/libclntsh.so: wrong ELF class: ELFCLASS32"), ATTACHED, "of the wrong architecture"),
        (dpi_1047("/opt/lib/libclntsh.so: file too short"), ATTACHED, "a link in the layer has become a text"),
        (
            dpi_1047("/lib64/libc.so.6: version `GLIBC_2.38' not found (required by /opt/lib/libaio.so.1)"),
            ATTACHED,
            "libaio.so.1 needs GLIBC_2.38, which this runtime does not have",
        ),
        (dpi_1047("/opt/lib/libclntsh.so: undefined symbol: nnz_a"), ATTACHED, "nnz_a is in none of them"),
        (
            "DPI-1050: Oracle Client library is at version 12.1.0 but version 19.1.0 or higher is needed",
            ATTACHED,
            "is too old for this driver",
        ),
        ("DPI-1072: the Oracle Client library version is unsupported", ATTACHED, "is too old for this driver"),
        ("ORA-01804: failure to initialize timezone information", ATTACHED, "does not find its own data"),
        ("DPI-9999: something new", ATTACHED, "unknown cause"),
        ("", {}, "unknown cause"),
    ],
)
def test_message_has_cause_and_fixing_command(reported, found, cause):
    line = client.cause(reported, found, "x86_64")
    assert cause in line
    assert "\n" not in line
    assert "make layer publish ENV=E" in line
    assert reported.splitlines()[:1] == [] or reported.splitlines()[0] in line


# As the driver and the database write them; the driver's own text where this machine has it.
TEXTS = {
    "DPI-1047": dpi_1047("libclntsh.so: cannot open shared object file: No such file or directory"),
    "DPI-1050": "DPI-1050: Oracle Client library is at version 12.1 but version 19.1 or higher is needed",
    "DPY-3010": errors._get_error_text(errors.ERR_SERVER_VERSION_NOT_SUPPORTED),
    "DPY-4027": errors._get_error_text(errors.ERR_NO_CONFIG_DIR),
    "ORA-12170": "ORA-12170: TNS:Connect timeout occurred",
    "ORA-12541": "ORA-12541: TNS:no listener",
    "ORA-12737": "ORA-12737: Instant Client Light: unsupported server character set TH8TISASCII",
    "ORA-01017": "ORA-01017: invalid username/password; logon denied",
    "ORA-28000": "ORA-28000: the account is locked",
}


def test_each_known_error_is_explained_with_cause_and_fix():
    assert TEXTS.keys() == client.ERRORS.keys()
    for code, text in TEXTS.items():
        cause, fix = client.ERRORS[code]
        assert client.explain(text) == f"{text}: {cause}; {fix}"


def test_unknown_error_is_not_explained():
    assert client.explain("ORA-00600: internal error code") == "ORA-00600: internal error code"


@pytest.fixture(scope="module")
def layers(zips, tmp_path_factory) -> dict[str, Path]:
    """Return the lib/ folders of layers made from the 12.1 and the 19 layout."""
    made = {}
    for version in ("12.1", "19"):
        base = tmp_path_factory.mktemp(version)
        os.environ["LIBAIO"] = str(zips[version].parent / "system" / AIO)
        try:
            build.build(str(zips[version]), "python3.13", True, base / "layer.zip")
        finally:
            del os.environ["LIBAIO"]
        made[version] = instantclient.unzip(base / "layer.zip", base / "opt") / "lib"
    return made


def test_the_version_is_in_the_log_and_in_the_deep_ping(layers):
    seen, log = check_client(layers["19"])
    assert (seen["mode"], seen["version"], seen["error"]) == ("thick", "19.28.0.0.0", None)
    assert "libclntsh.so.19.1" in seen["libraries"]
    assert log == "Oracle client 19.28.0.0.0, thick mode\n"


def test_no_layer(tmp_path):
    seen, _ = check_client(None)
    assert "the Instant Client layer is not attached" in seen["error"]
    assert seen["version"] is None


def test_a_client_that_is_too_old(layers):
    seen, _ = check_client(layers["12.1"])
    assert "Instant Client 12.1.0.2.0 is too old" in seen["error"]
    assert "call_timeout) needs 18.1 or later" in seen["error"]


def without(name: str):
    return lambda lib: (lib / name).unlink()


def as_text(lib: Path) -> None:
    (lib / "libclntsh.so").unlink()
    (lib / "libclntsh.so").write_text("libclntsh.so.19.1")


def for_arm(lib: Path) -> None:
    raw = bytearray((lib / "libclntsh.so.19.1").read_bytes())
    raw[18] = 183
    (lib / "libclntsh.so.19.1").write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (without("libnnz19.so"), "the layer lacks the library libnnz19.so"),
        (without(AIO), "the layer lacks the library libaio.so.1"),
        (without("libociicus.so"), "does not find its own data"),
        (without("libclntsh.so.19.1"), "libclntsh.so in the layer is a link to nothing"),
        (for_arm, "of the wrong architecture, aarch64 and not x86_64"),
    ],
    ids=["no_library", "no_libaio", "no_data", "no_target", "arm"],
)
def test_each_damage_of_a_layer_has_its_message(layers, tmp_path, damage, cause):
    lib = shutil.copytree(layers["19"], tmp_path / "lib", symlinks=True)
    damage(lib)
    seen, log = check_client(lib)
    assert cause in seen["error"]
    assert seen["version"] is None
    assert log == ""


@pytest.mark.parametrize("damage", [without("libclntsh.so"), as_text], ids=["no_link", "text"])
def test_pinned_driver_also_finds_the_client_by_its_versioned_name(layers, tmp_path, damage):
    """Later drivers do not; the layer's build and the doctor still insist on the link."""
    lib = shutil.copytree(layers["19"], tmp_path / "lib", symlinks=True)
    damage(lib)
    seen, _ = check_client(lib)
    assert (seen["error"], seen["version"]) == (None, "19.28.0.0.0")
