"""Each line of inv doctor turned red on purpose, on the local cloud where that can produce it."""

from __future__ import annotations

import json
import shlex

import pytest
from invoke import Context
from kit import inv
from pg8000 import native

from env import doctor, environment
from env.doors import request

C = Context()


def lines(check, cfg: dict) -> list[doctor.Finding]:
    return list(check(C, cfg, "local"))


def configuration(cfg: dict, **changed) -> dict:
    shape = {"Runtime": cfg["RUNTIME"], "Timeout": 900, "MemorySize": 1024, "LastUpdateStatus": "Successful"}
    return {**shape, "Environment": {"Variables": environment.function_environment(cfg)}, **changed}


@pytest.mark.slow
def test_what_it_says_of_a_cloud_without_schedule_and_warmth_and_that_its_commands_mend_it(deployed):
    first = inv("doctor", "--env", "local", "--json", check=False)
    found = {one["name"]: one for one in json.loads(first.stdout)}
    assert first.returncode == 1
    assert [
        name for name in found if name not in ("scheduler", "warmth", "periods", "paused") and not found[name]["ok"]
    ] == []
    assert set(found) == {*doctor.CHECKS, "postgres", "oracle", "schema"} - {"databases"}
    try:
        for name in ("scheduler", "warmth"):
            if not found[name]["ok"]:
                inv(*shlex.split(found[name]["mend"])[1:])
        assert all(one.ok for check in (doctor.scheduler, doctor.warmth) for one in lines(check, deployed))
    finally:
        inv("schedule", "stop", "--env", "local")
        inv("warm", "off", "--env", "local")
    assert not any(secret in first.stdout for secret in (deployed["PG_PASSWORD"], deployed["ORACLE_PASSWORD"]))


def test_a_missing_schema_is_named_with_its_command(deployed):
    connection = native.Connection(
        deployed["PG_USER"],
        deployed["PG_HOST"],
        deployed["PG_DATABASE"],
        int(deployed["PG_PORT"]),
        deployed["PG_PASSWORD"],
    )
    table = f'"{deployed["PG_SCHEMA"]}"'
    connection.run(f"ALTER TABLE {table}.closing_runs RENAME TO closing_runs_aside")
    try:
        found = doctor.schema(C, deployed, "local")
    finally:
        connection.run(f"ALTER TABLE {table}.closing_runs_aside RENAME TO closing_runs")
        connection.close()
    assert not found.ok and "closing_runs" in found.said and found.mend == "inv schema --env local"


def test_a_blocked_period_is_named_with_its_way_out(deployed):
    url = f"{deployed['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state"
    blocked = {"date": "2025-12-09", "job": "GNS_202512_X", "message": "STOPPED", "at": 1.0}
    state = {"blocked": list(json.dumps(blocked).encode())}
    try:
        assert request(deployed, "POST", url, {"object_key": "2019-12", "new_state": state})[0] < 300
        for _ in range(50):
            found = [one for one in lines(doctor.periods, deployed) if "2019-12" in one.said]
            if found:
                break
        (one,) = found
    finally:
        request(deployed, "POST", url, {"object_key": "2019-12", "new_state": {}})
    assert not one.ok and "GNS_202512_X" in one.said and "inv resolve --env local --period 2019-12" in one.mend


@pytest.mark.parametrize(
    ("changed", "said", "mend"),
    [
        ({"MemorySize": 512}, "at least 1024", "MEMORY=1024"),
        ({"Timeout": 60}, "Timeout is 60", "inv deploy --env local"),
        ({"LastUpdateStatus": "Failed"}, "last update is Failed", "inv deploy --env local"),
        ({"Environment": {"Variables": {}}}, "differs from env/local.env in", "inv deploy --env local"),
    ],
)
def test_a_function_that_is_not_as_the_file_says(cfg, changed, said, mend):
    found = list(doctor.judge_function(configuration(cfg, **changed), cfg, "local"))
    assert any(said in one.said and mend in one.mend for one in found)
    assert not any(one.ok for one in found)
    assert list(doctor.judge_function(configuration(cfg), cfg, "local")) == []


def test_thick_mode_without_a_layer(cfg):
    thick = {**cfg, "ORACLE_CLIENT": "thick"}
    (one,) = doctor.judge_function(configuration(thick), thick, "local")
    assert "no layer is attached" in one.said and "make layer publish deploy ENV=local" in one.mend


@pytest.mark.parametrize("code", sorted(doctor.ORACLE))
def test_each_error_of_oracle_is_explained(code):
    said, mend = doctor.explained("oracle", f"Genius at h:1521/s: {code}: in the driver's words", "prod")
    assert said.startswith(doctor.ORACLE[code][0]) and f"{code}: in the driver's words" in said
    assert mend and "{" not in mend


def test_a_restate_that_is_away_and_a_version_it_does_not_know(deployed, monkeypatch):
    asking = ("restate", "scheduler", "periods", "paused")
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in asking})
    away = {**deployed, "RESTATE_ADMIN_URL": "http://127.0.0.1:1"}
    found = list(doctor.examine(C, away, "local"))
    silent = [one.name for one in found if not one.ok and "does not answer" in one.said]
    assert silent == list(asking)
    other = {**deployed, "RESTATE_INVOKE_ROLE_ARN": "arn:aws:iam::1:role/other"}
    (one,) = lines(doctor.restate, other)
    assert not one.ok and "is registered with no role" in one.said


def test_a_paused_invocation_is_named_with_its_last_failure(cfg, monkeypatch):
    rows = [{"id": "inv_1", "target": "ClosingPeriod/2025-01/close"}]
    events = [{"event_json": json.dumps({"last_failure": "ORA-01017: no"})}]
    monkeypatch.setattr(doctor, "sql", lambda cfg, query: events if "sys_journal_events" in query else rows)
    (one,) = lines(doctor.paused, cfg)
    assert (
        not one.ok and "is paused: ORA-01017: no" in one.said and one.mend.endswith("restate invocations resume inv_1")
    )
