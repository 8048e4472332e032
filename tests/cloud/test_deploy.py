"""The deploy to the local cloud, by the operator's own commands."""

from __future__ import annotations

import json
import subprocess
import zipfile

import pytest
from invoke import Context
from support import checkout
from support.helpers import ROOT, environment_file, inv, output_of

from ops import deploy, limits, shell
from ops.alias import get_alias
from ops.config import function_environment

CHANGING = ("create-", "update-", "put-", "publish-", "tag-", "register", "rm -f", "umask")


def changes(output: str) -> list[str]:
    return [line for line in output.splitlines() if any(f" {word}" in f" {line.replace('(', '')}" for word in CHANGING)]


def version(deployed) -> str:
    return shell.query_json(Context(), deployed, get_alias(deployed))["FunctionVersion"]


def secrets(cfg: dict) -> list[str]:
    return [cfg["PG_PASSWORD"], cfg["ORACLE_PASSWORD"]]


def test_a_deploy_with_nothing_changed_changes_nothing(deployed, recorder):
    before = version(deployed)
    heard = len(recorder.calls())
    done = inv("deploy", "--env", "local")
    # Each call of the CLI is half a second of the five that this may take.
    assert sorted(call.action for call in recorder.calls()[heard:]) == [
        "iam:GetRole",
        "iam:GetRolePolicy",
        "lambda:GetAlias",
        "lambda:GetFunction",
        "lambda:ListVersionsByFunction",
    ]
    assert "nothing changed" in done.stdout
    assert changes(done.stdout) == []
    assert version(deployed) == before


def test_one_screen_shows_what_is_live_and_how_it_goes(deployed):
    shown = inv("status", "--env", "local").stdout
    first, *rest = shown.splitlines()
    assert first.startswith("local:") and "registered as dp_" in first
    assert (
        f"live is version {version(deployed)}" in shown and f"starts closings on version {version(deployed)}" in shown
    )
    assert "layer none; in no VPC" in shown and "the schedule" in shown
    assert {"function", "alias", "Restate", "schedule", "closings"} <= {line.split()[0] for line in rest}
    assert "cannot be read" not in shown


def test_the_function_gets_its_settings_and_no_other(deployed):
    configuration = json.loads(output_of(deployed, deploy.get_function(deployed)))["Configuration"]
    assert configuration["Environment"]["Variables"] == function_environment(deployed)
    assert not {"RESTATE_AUTH_TOKEN", "RESTATE_ADMIN_URL"} & set(configuration["Environment"]["Variables"])
    assert (configuration["Timeout"], configuration["MemorySize"]) == (900, 1024)


def test_too_large_a_layer_is_refused_in_one_line_and_not_published(deployed, tmp_path):
    zipped = tmp_path / "layer.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("lib/large", bytes(limits.UNZIPPED_BYTES - 1_000_000))
    publish = f"lambda publish-layer-version --layer-name too-large --zip-file fileb://{zipped}"
    arn = json.loads(output_of(deployed, shell.aws(deployed, publish)))
    with environment_file("testlayer", LAYER_VERSION_ARN=arn["LayerVersionArn"]) as env:
        refused = inv("deploy", "--env", env, check=False)
    assert refused.returncode == 1
    assert "Unzipped size must be smaller than 262144000 bytes; remove packages" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1 and "publish-version" not in refused.stdout
    assert "nothing changed" in inv("deploy", "--env", "local").stdout


def test_no_such_environment(deployed):
    refused = inv("deploy", "--env", "prd", check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("No environment 'prd'. Known: local")


def test_a_key_with_a_slip_is_named_with_its_neighbour():
    other = ROOT / "env" / "testslip.env"
    other.write_text((ROOT / "env" / "local.env").read_text().replace("MEMORY=", "MEMROY="))
    try:
        refused = inv("deploy", "--env", "testslip", check=False)
    finally:
        other.unlink()
    assert refused.returncode == 1
    assert "unknown key MEMROY: MEMORY?" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_foreign_file_in_handler_stops_the_bundle_by_name(deployed):
    foreign = ROOT / "handler" / "notes.ipynb"
    foreign.write_text("{}")
    try:
        refused = inv("deploy", "--env", "local", check=False)
    finally:
        foreign.unlink()
    assert refused.returncode == 1
    assert "handler/notes.ipynb" in refused.stderr


@pytest.mark.slow
def test_requirements_txt_is_enough_to_deploy_ping_and_check(deployed, tmp_path):
    """An operator's machine has no packages of the local cloud, the tests or the function."""
    folder = checkout.copy(tmp_path / "finance-closing")
    (folder / ".venv").unlink()

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    made = run("make", "deploy", "ENV=local")
    assert "requirements-dev.txt" not in made
    assert "is live" in made
    assert run("make", "-s", "ping", "ENV=local", "DEEP=1") == ""
    for words in (["status"], ["history"], ["versions"], ["env.check"], ["env.diff"], ["keep-warm", "off"]):
        run(folder / ".venv/bin/inv", *words, "--env", "local")
