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
# Both events of the doctor that log in, in one process: (the deep ping's answer, that of the references' check).
BOTH = "import json; from handler import health; print(json.dumps([health.deep(6.0), health.secrets()]))"
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


def deep_ping(lib: Path, path: str = str(ROOT), code: str = DEEP, **changed: str):
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "ORACLE_CLIENT": "thick", **UNUSED}
    environ |= {"LD_LIBRARY_PATH": str(lib), "PG_HOST": "127.0.0.1", "PG_PORT": "1", **changed}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
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

    def deep(body: str, *more: str, **given: str):
        head = "import os, signal\nimport oracledb\nfrom oracledb import errors\n"
        hook = f"{head}def connect(**given):\n    {body}\noracledb.connect = connect\n"
        (tmp_path / "sitecustomize.py").write_text("\n".join([hook, *more]))
        return deep_ping(lib, f"{tmp_path}:{ROOT}", **given)

    return deep


def test_client_that_crashes_at_connect_is_one_finding(connecting):
    answer = connecting("os.kill(os.getpid(), signal.SIGSEGV)")
    assert "crashed with SIGSEGV while it was being connected" in answer["client"]["error"]
    assert answer["oracle"]["error"] == answer["client"]["error"]


def refuse(tries: Path) -> str:
    """Return a connect that appends the password to a file and is refused."""
    refusal = "errors._Error('ORA-01017: invalid username/password', code=1017)"
    return f"open({str(tries)!r}, 'a').write(given['password'] + ' '); raise oracledb.DatabaseError({refusal})"


def test_refused_login_is_not_tried_a_second_time(connecting, tmp_path):
    """A second try with the same password brings the account nearer to its lock."""
    answer = connecting(refuse(tmp_path / "tries"), ORACLE_PASSWORD="plain")
    assert "ORA-01017" in answer["oracle"]["error"] and answer["client"]["version"] == "19.28.0.0.0"
    assert (tmp_path / "tries").read_text() == "plain "


def test_refused_reference_is_known_to_the_process_of_the_child(connecting, tmp_path):
    """The child's own memory ends with it, so the check of the references would use the refused value again."""
    stored = "from handler import secret\nsecret.fetch = lambda *_: secret.Stored('stored', '1', 0)\n"
    given = {"ORACLE_PASSWORD": "ssm:/genius", "code": BOTH}
    deep, secrets = connecting(refuse(tmp_path / "tries"), stored, **given)
    assert deep["oracle"]["kind"] == secrets["oracle"]["kind"] == "refused"
    assert "ssm:/genius resolved" in deep["oracle"]["error"] and "ORACLE_PASSWORD and deploy" not in str(deep)
    assert (tmp_path / "tries").read_text() == "stored " and "stored'" not in str(deep) + str(secrets)


def test_reference_that_does_not_resolve_has_its_kind_in_thick_mode(connecting):
    missing = "from handler import secret\ndef fetch(source, *_):\n    raise secret.SecretError(source, 'missing')\n"
    deep = connecting("pass", f"{missing}secret.fetch = fetch\n", ORACLE_PASSWORD="ssm:/genius")
    assert deep["oracle"]["kind"] == "missing" and deep["client"]["error"] is None
