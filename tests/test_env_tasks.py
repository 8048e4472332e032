"""The tasks on an environment's file."""

from __future__ import annotations

import json

from kit import ROOT, inv

OTHER = ROOT / "env" / "testenv.env"


def test_the_json_is_the_functions_part(deployed):
    variables = json.loads(inv("env.json", "--env", "local").stdout)["Variables"]
    assert variables["PG_PASSWORD"] == deployed["PG_PASSWORD"]
    assert "RESTATE_ADMIN_URL" not in variables


def test_a_file_is_checked_and_compared_with_the_function(deployed):
    assert "env/local.env is in order" in inv("env.check", "--env", "local").stdout
    assert "nothing differs" in inv("env.diff", "--env", "local").stdout
    text = (ROOT / "env" / "local.env").read_text()
    changes = {"MEMORY=1024": "MEMORY=2048", "RETENTION_DAYS=90": "RETENTION_DAYS=91"}
    secret = {"PG_PASSWORD=${LOCAL_PG_PASSWORD}": "PG_PASSWORD=other${LOCAL_PG_PASSWORD}"}
    for old, new in {**changes, **secret}.items():
        text = text.replace(old, new)
    OTHER.write_text(text)
    try:
        shown = inv("env.diff", "--env", "testenv").stdout
    finally:
        OTHER.unlink()
    assert "MemorySize: the function has 1024, the file 2048" in shown
    assert "RETENTION_DAYS: the function has '90', the file '91'" in shown
    assert "PG_PASSWORD: differs\n" in shown
    assert deployed["PG_PASSWORD"] not in shown
    assert "3 differ" in shown
