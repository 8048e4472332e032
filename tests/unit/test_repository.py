"""Rules of the repository: which module may know what, and complete lists."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from support.helpers import COMPLETE, ROOT

from handler.settings import SETTINGS, SettingsError, parse
from ops import config, names
from ops.config import ALL_SETTINGS

MODULES = sorted((ROOT / "handler").glob("*.py"))
ALLOWED = {
    "oracledb": {"oracle.py"},
    "pg8000": {"postgres.py"},
    "restate": {"app.py", "closing.py", "entry.py", "period.py", "procedure.py", "scheduler.py", "step.py"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_driver_is_imported_by_its_own_module_alone(module):
    for package, modules in ALLOWED.items():
        assert package not in imported(module) or module.name in modules


@pytest.mark.parametrize("path", sorted((ROOT / "handler").glob("*.*")), ids=lambda path: path.name)
def test_handler_does_not_name_the_local_cloud(path):
    assert not re.search(r"ministack|stand-?in|127\.0\.0\.1|localhost|local cloud", path.read_text(), re.IGNORECASE)


def test_make_help_lists_every_verb():
    text = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE)
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == phony


def test_policy_statement_has_its_reason_as_sid():
    for path in (ROOT / "policies").glob("*.json"):
        for statement in json.loads(path.read_text())["Statement"]:
            assert re.fullmatch(r"[A-Z][A-Za-z]{9,}", statement["Sid"]), (path.name, statement)


def test_unknown_name_is_reported_with_the_most_similar_name(tmp_path):
    for folder in ("env", "policies", "alarms", ".github"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=lambda _, found: {"__pycache__"} & {*found})
    slips = {
        "env/example.env": ("MEMORY=", "MEMROY="),
        "policies/deploy.json": ("${ROLE_NAME}", "${ROLENAME}"),
        "alarms/errors.json": ("${TOPIC_ARN}", "${TOPIC}"),
        names.WORKFLOW: ("      RESTATE_ADMIN_URL:", "      RESTATE_ADMIN:"),
    }
    for file, (right, wrong) in slips.items():
        text = (tmp_path / file).read_text()
        assert right in text
        (tmp_path / file).write_text(text.replace(right, wrong))
    found = list(names.unknown_names(tmp_path))
    assert [one.partition(":")[0] for one in found] == list(slips)
    assert found[0] == "env/example.env: unknown key MEMROY: MEMORY?"


@pytest.mark.parametrize("name", ["example", "local"])
def test_environments_have_all_keys_in_one_order(name):
    assert list(dotenv_values(ROOT / "env" / f"{name}.env", interpolate=False)) == [one.name for one in ALL_SETTINGS]


def test_example_has_the_defaults():
    example = dotenv_values(ROOT / "env" / "example.env", interpolate=False)
    for setting in ALL_SETTINGS:
        if setting.default:
            assert example[setting.name] == setting.default


def test_settings_have_their_defaults():
    values = parse(COMPLETE)
    assert values.oracle_client == "thick"
    assert values.pg_port == 5432
    assert values.daily_closing_schedule_time == (20, 0)
    assert str(values.schedule_zone) == "Asia/Jakarta"


@pytest.mark.parametrize("name", sorted(COMPLETE))
def test_missing_setting_is_named(name):
    with pytest.raises(SettingsError, match=f"{name} is missing: expected"):
        parse({key: value for key, value in COMPLETE.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PG_PORT", "70000"),
        ("PG_PORT", "5432x"),
        ("PG_SCHEMA", 'a"b'),
        ("PG_SSLMODE", "prefer"),
        ("ORACLE_CLIENT", "thicc"),
        ("DAILY_CLOSING_SCHEDULE_TIME", "24:00"),
        ("SCHEDULE_ZONE", "Asia/Nowhere"),
        ("POLL_INITIAL_SECONDS", "0"),
        ("POLL_INITIAL_SECONDS", "nan"),
        ("POLL_FACTOR", "0.9"),
        ("DEADLINE_SECONDS", "soon"),
        ("RETENTION_DAYS", "1.5"),
        ("PG_HOST", " "),
    ],
)
def test_malformed_setting_is_named_with_its_expected_form(name, value):
    with pytest.raises(SettingsError, match=f"{name} .*is malformed: expected"):
        parse({**COMPLETE, name: value})


def test_malformed_secret_is_not_printed():
    with pytest.raises(SettingsError) as caught:
        parse({**COMPLETE, "PG_PASSWORD": "   "})
    assert "   " not in str(caught.value)


def test_all_faults_of_settings_are_named_at_once():
    with pytest.raises(SettingsError) as caught:
        parse({"PG_PORT": "x"})
    assert all(one.name in str(caught.value) for one in SETTINGS if one.default is None)
    assert "PG_PORT" in str(caught.value)


@pytest.mark.parametrize(("abort", "faults"), [("929", 1), ("930", 0), ("soon", 0)])
def test_restate_must_wait_longer_than_the_function(abort, faults):
    found = config.time_out_conflicts({"TIMEOUT": "900", "ABORT_TIMEOUT_SECONDS": abort})
    assert len(found) == faults and all("would run twice at once" in one for one in found)
