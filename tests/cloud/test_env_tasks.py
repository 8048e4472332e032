"""The tasks on an environment's file."""

from __future__ import annotations

import json

from support.helpers import ROOT, environment_file, inv

OTHER = ROOT / "env" / "testenv.env"


def test_the_json_is_the_functions_part(deployed):
    variables = json.loads(inv("env.json", "--env", "local").stdout)["Variables"]
    assert variables["PG_PASSWORD"] == deployed["PG_PASSWORD"]
    assert "RESTATE_ADMIN_URL" not in variables


def test_a_file_is_checked_and_compared_with_the_function(deployed):
    assert "env/local.env is valid" in inv("env.check", "--env", "local").stdout
    assert "nothing differs" in inv("env.diff", "--env", "local").stdout
    changes = {"MEMORY": "2048", "RETENTION_DAYS": "91", "PG_PASSWORD": "other${LOCAL_PG_PASSWORD}"}
    with environment_file("testenv", **changes) as env:
        shown = inv("env.diff", "--env", env).stdout
    assert "MemorySize: the function has 1024, the file 2048" in shown
    assert "RETENTION_DAYS: the function has '90', the file '91'" in shown
    assert "PG_PASSWORD: differs\n" in shown
    assert deployed["PG_PASSWORD"] not in shown
    assert "3 differ" in shown


def without_databases(**changes: str) -> str:
    """Write env/local.env as CI may have it: no value for either database, some keys left out, some empty."""
    given = [line.partition("=")[::2] for line in (ROOT / "env" / "local.env").read_text().splitlines() if "=" in line]
    kept = [(name, "" if name.startswith("ORACLE_") else value) for name, value in given if not name.startswith("PG_")]
    return "\n".join(f"{name}={changes.get(name, value)}" for name, value in kept)


def test_what_the_file_leaves_out_the_function_keeps(deployed):
    OTHER.write_text(without_databases())
    try:
        assert "and keeps its own PG_HOST, PG_PORT," in inv("env.check", "--env", "testenv").stdout
        assert "nothing differs" in inv("env.diff", "--env", "testenv").stdout
        assert json.loads(inv("env.json", "--env", "testenv").stdout) == json.loads(
            inv("env.json", "--env", "local").stdout
        )
        done = inv("deploy", "--env", "testenv")
    finally:
        OTHER.unlink()
    assert "nothing changed" in done.stdout
    assert not any(deployed[key] in done.stdout + done.stderr for key in ("PG_PASSWORD", "ORACLE_PASSWORD"))


def test_a_first_deploy_has_nothing_to_keep(cfg):
    OTHER.write_text(without_databases(FUNCTION_NAME="test-of-none"))
    try:
        refused = inv("deploy", "--env", "testenv", check=False)
    finally:
        OTHER.unlink()
    assert refused.returncode == 1
    assert "has no value of PG_HOST, PG_DATABASE, PG_USER, PG_PASSWORD, ORACLE_USER," in refused.stderr
    assert "there is no test-of-none yet" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
