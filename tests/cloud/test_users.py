"""PostgreSQL of the local cloud for each kind of user: root, whose server runs as somebody else, and others."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.helpers import ROOT

from local import postgres
from local.cloud import Cloud
from local.errors import LocalError

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root")
USE = """
import os, sys
from pathlib import Path
from local.cloud import Cloud
cloud = Cloud(Path(sys.argv[1]), report=lambda line: None)
cloud.start("postgres")
print(os.getuid(), cloud.status()["postgres"]["up"])
cloud.reset()
"""


@pytest.fixture
def hidden(tmp_path, monkeypatch) -> Path:
    """Copy the server's programs as in a checkout below /root that was made with umask 077; returns their package."""
    installed = postgres._package()
    package = tmp_path / "site" / installed.name
    names = shutil.ignore_patterns("*.[ah]")
    shutil.copytree(installed / postgres.SERVER, package / postgres.SERVER, ignore=names)
    shutil.copytree(installed.with_name(f"{installed.name}.libs"), package.with_name(f"{installed.name}.libs"))
    tmp_path.chmod(0o700)
    for path in package.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.setattr(postgres, "_package", lambda: package)
    return package


@pytest.fixture
def copies(monkeypatch):
    """Return a folder for the copies of the programs that all users can enter."""
    with tempfile.TemporaryDirectory(prefix="finance-closing-test-") as folder:
        monkeypatch.setattr(postgres, "COPIES", Path(folder) / "copies")
        Path(folder).chmod(0o755)
        yield Path(folder) / "copies"


@AS_ROOT
def test_root_runs_the_server_from_a_folder_that_nobody_else_can_enter(hidden, copies, tmp_path):
    umask = os.umask(0o077)
    cloud = Cloud(tmp_path / "state", report=lambda line: None)
    try:
        for _ in range(2):
            cloud.start("postgres")
            assert cloud.status()["postgres"]["up"]
            cloud.stop("postgres")
    finally:
        os.umask(umask)
        cloud.reset()
    (made,) = copies.iterdir()
    assert made.name.startswith("postgres-")


@AS_ROOT
def test_without_a_place_for_the_copy_root_gets_one_line(hidden, monkeypatch, tmp_path):
    monkeypatch.setattr(postgres, "COPIES", Path("/proc/no-such"))
    cloud = Cloud(tmp_path / "state", report=lambda line: None)
    with pytest.raises(LocalError, match=r"runs it as pgserver.*Move the checkout") as caught:
        cloud.start("postgres")
    assert "\n" not in str(caught.value) and not caught.value.detail


@pytest.fixture
def user():
    """Make a user without any right of root; returns the command that runs a program as this user."""
    if os.getuid() != 0:
        yield pwd.getpwuid(os.getuid()), []
        return
    name = f"closing-test-{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", name], check=True)
    try:
        made = pwd.getpwnam(name)
        # The Python of this run may be in a folder of root: it can be read, so the user need not be root.
        capability = "+dac_read_search"
        ids = [f"--reuid={made.pw_uid}", f"--regid={made.pw_gid}", "--clear-groups"]
        yield made, ["setpriv", *ids, f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]
    finally:
        subprocess.run(["userdel", name], check=True)


def test_another_user_runs_the_server_as_itself(user):
    entry, prefix = user
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        done = subprocess.run(
            [*prefix, sys.executable, "-c", USE, str(Path(folder) / "state")],
            cwd=ROOT,
            env={**os.environ, "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (0, f"{entry.pw_uid} True\n"), done.stderr
