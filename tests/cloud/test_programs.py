"""A first deployment installs the programs that it needs before it changes anything."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.helpers import INV, ROOT, UNUSED

from local import processes


@pytest.fixture
def bare_machine(tmp_path) -> dict[str, str]:
    """Return a shell without the restate CLI and without a way to a registry of packages."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "mkdir", "cat", "rm", "git", "env", "sed", "printf", "curl", "touch"):
        found = next(path for path in (f"/usr/bin/{name}", f"/bin/{name}") if os.path.exists(path))
        (folder / name).symlink_to(found)
    shell = {name: value for name, value in os.environ.items() if name not in UNUSED}
    return shell | {
        "PATH": str(folder),
        "FINANCE_CLOSING_TOOLS": str(tmp_path / "tools"),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_NO_CACHE": "1",
        "UV_HTTP_RETRIES": "0",
    }


def test_without_the_restate_cli_nothing_is_changed(deployed, bare_machine):
    done = subprocess.run(
        [INV, "deploy", "--env", "local"], cwd=ROOT, env=bare_machine, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "`inv local.tools …` failed" in done.stderr and "package index does not answer" in done.stderr
    assert done.stdout == "inv local.tools\n", "nothing else has begun"


@pytest.mark.parametrize(
    "changes",
    [
        {"LC_ALL": "C", "HOME": None, "TMPDIR": "/no/such"},
        {"LC_ALL": "POSIX", "LANG": "", "TMPDIR": "a folder "},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LANGUAGE": "tr"},
    ],
)
def test_tasks_work_in_any_locale_and_without_home(deployed, changes):
    shell = {name: value for name, value in os.environ.items() if name not in {*UNUSED, *changes}}
    shell |= {name: value for name, value in changes.items() if value is not None}
    done = subprocess.run(
        [INV, "versions", "--env", "local"], cwd=ROOT, env=shell, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_child_that_runs_and_ends_is_known_without_proc(tmp_path, monkeypatch):
    """`inv local.tools` runs on macOS, too."""
    monkeypatch.setattr(processes, "PROC", tmp_path / "no-such")
    child = processes.spawn(["sleep", "30"], {"PATH": os.defpath}, tmp_path / "log")
    assert processes.alive(child)
    assert not processes.wait(child, 0.1)
    processes.end([child])
    assert processes.wait(child, 5) and processes.exit_code(child) == -15


def test_child_whose_first_thread_ends_early_runs_until_its_exit_code_is_known(tmp_path):
    """As uv can end: a failed installation was taken for one that succeeded."""
    program = (
        "import ctypes, os, threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), os._exit(3))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    child = processes.spawn([sys.executable, "-c", program], os.environ, tmp_path / "log")
    assert processes.wait(child, 10) and processes.exit_code(child) == 3
