"""`make demo` checks the machine before it downloads or starts anything."""

from __future__ import annotations

import platform
import shutil
from collections import namedtuple

import pytest
from invoke import Exit

from local import preflight, tools
from local.cloud import Cloud
from local.errors import LocalError
from local.service import Service
from local.state import State
from ops import bundle
from ops.local_tasks import one_line_on_failure

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def machine(tmp_path, monkeypatch) -> State:
    """Return a machine with enough of everything, without the programs of the local cloud."""
    monkeypatch.setenv("FINANCE_CLOSING_TOOLS", str(tmp_path / "tools"))
    monkeypatch.setattr(preflight, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:  4000000 kB\n")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 3_000_000_000))
    return State(tmp_path / "state")


def fault(state: State) -> str:
    with pytest.raises(LocalError) as caught:
        preflight.check(state)
    (line,) = str(caught.value).splitlines()
    return line


def test_machine_with_enough_passes(machine):
    preflight.check(machine)


def test_small_disk_is_one_line(machine, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 1_300_000_000))
    assert "1.3 GB of free disk, and 2.0 GB are needed" in fault(machine)


def test_disk_for_the_services_alone_is_less(machine, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 1_300_000_000))
    for program in (tools.restate_server(), tools.ministack_python()):
        program.parent.mkdir(parents=True)
        program.touch()
    preflight.check(machine)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 90_000_000))
    assert "0.1 GB of free disk, and 0.5 GB are needed" in fault(machine)


def test_little_memory_is_one_line(machine):
    preflight.MEMINFO.write_text("MemAvailable: 300000 kB\n")
    assert fault(machine) == "0.3 GB of memory are free, and 0.7 GB are needed; end other programs."


def test_folder_that_cannot_be_written_is_one_line(machine):
    machine.path.write_text("a file in the place of the folder")
    assert f"{machine.path} cannot be written" in fault(machine)


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_get_one_line_that_names_linux(system, machine, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: system)
    assert "Run it in a Linux container or, on Windows, in WSL" in fault(machine)
    if system == "Darwin":
        assert "restate-darwin-" in str(tools._restate_binary("restate"))


def test_packages_that_cannot_be_downloaded_are_one_line_and_those_of_build_need_no_network(tmp_path, monkeypatch):
    """No index and an empty cache: a machine without network."""
    for name, value in (
        ("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple"),
        ("UV_NO_CACHE", "1"),
        ("UV_HTTP_RETRIES", "0"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    with pytest.raises(LocalError) as caught:
        preflight.fetch_packages()
    (line,) = str(caught.value).splitlines()
    assert "the package index does not answer" in line
    assert line.endswith(". Then run `make demo` again; nothing was started.")
    monkeypatch.setattr(bundle, "kept", lambda place: {})
    preflight.fetch_packages()


def test_without_one_program_no_service_is_started(machine):
    """The other service has its program, and would be up long before the download fails."""
    started = []

    def fail(abandon) -> None:
        raise LocalError("The installation of aws failed: the package index does not answer.")

    services = [
        Service("aws", [], {}, {}, "", probe=lambda: None, install=fail),
        Service("postgres", [], {}, {}, "", probe=lambda: None, prepare=lambda: started.append("postgres")),
    ]
    with pytest.raises(LocalError, match="package index does not answer"):
        Cloud(machine.path, report=lambda line: None)._start_together(services, {})
    assert started == []


def test_missing_program_is_named_and_a_missing_file_is_not_called_one():
    for name, words in (("setpriv", "This needs the program setpriv, which PATH"), ("/no/such", "No such file")):
        with pytest.raises(Exit, match=words), one_line_on_failure():
            raise FileNotFoundError(2, "No such file or directory", name)
