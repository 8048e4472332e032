"""The first connect: a client that crashes or hangs is one finding, and the function lives on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import instantclient
from support.helpers import ROOT, UNUSED

from layer import build
from ops import ping, readiness

# A deep ping in a fresh process, as the function's first event.
DEEP = "import json; from handler import health; print(json.dumps(health.deep(6.0)))"
CRASH = "#include <signal.h>\n#include <unistd.h>\n"
AT_LOAD = CRASH + "__attribute__((constructor)) static void begin(void) {{ {0} }}\n"


def layer_with(zips, folder: Path, source: str) -> Path:
    """Return the lib/ folder of a layer whose data library, which OCI loads at its start, runs some C."""
    target = folder / "layer.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIBAIO", str(zips["19"].parent / "system" / instantclient.AIO))
        build.build(str(zips["19"]), "python3.13", True, target)
    lib = instantclient.unzip(target, folder / "opt") / "lib"
    (lib / "libociicus.so").unlink()
    instantclient.compile_library(lib / "libociicus.so", source, "libociicus.so")
    return lib


def deep_ping(lib: Path, path: str = str(ROOT)) -> dict:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "ORACLE_CLIENT": "thick", **UNUSED}
    environ |= {"LD_LIBRARY_PATH": str(lib), "PG_HOST": "127.0.0.1", "PG_PORT": "1"}
    done = subprocess.run([sys.executable, "-c", DEEP], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"the function itself ended with {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("action", "how"),
    [
        ("kill(getpid(), SIGSEGV);", "crashed with SIGSEGV"),
        ("*(volatile int *)0 = 1;", "crashed with SIGSEGV"),
        ("_exit(3);", "ended with exit 3"),
        ("pause();", "gave no answer within 6 s"),
    ],
    ids=["signal", "null", "exit", "hang"],
)
def test_client_that_ends_its_process_at_load_is_one_finding(zips, tmp_path, action, how):
    answer = deep_ping(layer_with(zips, tmp_path, AT_LOAD.format(action)))
    line = f"the Oracle client library {how}"
    assert not answer["ok"] and answer["client"]["error"].startswith(line)
    assert "while it was being loaded" in answer["client"]["error"]
    assert "make layer publish ENV=E" in answer["client"]["error"]
    found = readiness.evaluate_client(answer["client"], "prod")
    assert (found.passed, found.message) == (False, answer["client"]["error"])
    assert ping.find_fault(answer).count(line) == 1 and "\n" not in ping.find_fault(answer)
    assert "Connection refused" in answer["postgres"]["error"]


@pytest.fixture
def connecting(zips, tmp_path):
    """Return a function for a deep ping whose driver runs some Python to connect: the made client cannot connect."""
    lib = layer_with(zips, tmp_path, "int data;\n")

    def deep(body: str) -> dict:
        head = "import os, signal\nimport oracledb\nfrom oracledb import errors\n"
        hook = f"{head}def connect(**given):\n    {body}\noracledb.connect = connect\n"
        (tmp_path / "sitecustomize.py").write_text(hook)
        return deep_ping(lib, f"{tmp_path}:{ROOT}")

    return deep


def test_client_that_crashes_at_connect_is_one_finding(connecting):
    answer = connecting("os.kill(os.getpid(), signal.SIGSEGV)")
    assert "crashed with SIGSEGV while it was being connected" in answer["client"]["error"]
    assert answer["oracle"]["error"] == answer["client"]["error"]


def test_refused_login_is_not_tried_a_second_time(connecting, tmp_path):
    """A second try with the same password brings the account nearer to its lock."""
    count = f"open({str(tmp_path / 'tries')!r}, 'a').write('x')"
    refusal = "errors._Error('ORA-01017: invalid username/password', code=1017)"
    answer = connecting(f"{count}; raise oracledb.DatabaseError({refusal})")
    assert "ORA-01017" in answer["oracle"]["error"] and answer["client"]["version"] == "19.28.0.0.0"
    assert (tmp_path / "tries").read_text() == "x"
