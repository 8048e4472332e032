"""The readiness check of the doctor: each finding provoked once, through the deployed function."""

from __future__ import annotations

import json
import re
import time
from datetime import date, timedelta

import pytest
from invoke import Config, Context
from support.helpers import STATE, inv

from local.oracle.faults import Faults
from ops import readiness
from ops.findings import Finding, line
from ops.target import Target


def check(cfg: dict) -> dict[str, Finding]:
    return {one.name: one for one in readiness.check(Target(Context(), cfg, "local"))}


@pytest.fixture
def faults(deployed):
    """Inject faults of Genius that end with the test."""
    there = Faults(STATE / "genius")
    before = set(there.injected())
    yield there
    for name in set(there.injected()) - before:
        there.clear(name)


def grant(what: str) -> None:
    inv("genius.sql", f"GRANT {what} TO genius")


def revoke(what: str) -> None:
    inv("genius.sql", f"REVOKE {what} FROM genius")


def test_ready_environment_passes_each_check(deployed, faults):
    found = check(deployed)
    assert [one for one in found.values() if not one.passed] == []
    assert set(readiness.FACTS) <= set(found)
    assert "python-oracledb 3.4.2 in thin mode, Oracle 11.2.0.4.0" in found["versions"].message
    assert "CREATE JOB, EXECUTE, SELECT" in found["rights"].message
    assert "the password never expires" in found["login"].message
    assert "kept for 30 days" in found["scheduler"].message
    # An ordinary user has no right to V$PARAMETER, and that is not a failure.
    assert found["job queue"].message.startswith("not readable: ORA-00942") and not found["job queue"].warning


@pytest.mark.parametrize(
    ("fault", "value", "name", "message", "fix"),
    [
        ("scheduler_attributes", '{"SCHEDULER_DISABLED": "TRUE"}', "scheduler", "is disabled", "SCHEDULER_DISABLED"),
        ("scheduler_attributes", '{"LOG_HISTORY": "0"}', "scheduler", "kept for 0 days", "'LOG_HISTORY', '30'"),
        ("procedure_arguments", "5", "arguments", "sees VARCHAR2 IN, VARCHAR2 IN", "check the package"),
    ],
)
def test_fault_of_genius_is_a_finding(deployed, faults, fault, value, name, message, fix):
    faults.inject(fault, value)
    one = check(deployed)[name]
    assert not one.passed and message in one.message and fix in one.fix


def test_job_queue_of_zero_is_a_finding_where_it_can_be_read(deployed, faults):
    grant("SELECT ANY DICTIONARY")
    try:
        assert check(deployed)["job queue"].message == "JOB_QUEUE_PROCESSES is 1000"
        faults.inject("jobs_never_start")
        one = check(deployed)["job queue"]
    finally:
        revoke("SELECT ANY DICTIONARY")
    assert not one.passed and "ALTER SYSTEM SET JOB_QUEUE_PROCESSES" in one.fix


def test_password_that_expires_is_a_warning_with_its_date_and_balances_are_read(deployed, faults):
    faults.inject("password_expires_days", "3")
    last = f"{date.today().replace(day=1) - timedelta(days=1):%Y-%m}"
    faults.inject("open_balances", json.dumps([[last, f"1-{number}", "Cash", "000", *"100010"] for number in range(3)]))
    found = check(deployed)
    assert re.match(rf"{last} has 3 open balances; reading 3 of them took [0-9.]+ s$", found["balances"].message)
    one = found["login"]
    assert one.passed and one.warning and line(one).startswith("warn   login")
    assert "ORA-28002: the password will expire within 3 days" in one.message
    expires = date.fromisoformat(one.message.partition("expires on ")[2][:10])
    assert 2 <= (expires - date.today()).days <= 4
    assert "correct ORACLE_PASSWORD, then inv deploy" in one.fix
    target = Target(Context(), {**deployed, "ORACLE_PASSWORD": "ssm:/genius"}, "local")
    login = {"warning": None, "account": "OPEN", "expires": expires.isoformat()}
    assert "in ssm:/genius, then inv secrets.check" in readiness.evaluate_login(login, target).fix


@pytest.mark.parametrize(
    ("right", "fix"),
    [
        ("SELECT ON acpdb.ac_glopenbalance", "GRANT SELECT ON ACPDB.AC_GLOPENBALANCE TO GENIUS"),
        ("EXECUTE ON acpdb.package_rpt_ac_fi806", "GRANT EXECUTE ON Package_Rpt_Ac_Fi806 TO GENIUS"),
    ],
)
def test_missing_grant_is_a_finding(deployed, faults, right, fix):
    revoke(right)
    try:
        one = check(deployed)["rights"]
    finally:
        grant(right)
    assert not one.passed and fix in one.fix


def test_living_job_of_the_current_period_is_a_warning(deployed, faults):
    faults.inject("jobs_never_start")
    job = f"GNS_{date.today():%Y%m}_0123456789AB"
    create = f"DBMS_SCHEDULER.CREATE_JOB('{job}', 'PLSQL_BLOCK', 'BEGIN NULL; END;', enabled => TRUE)"
    inv("genius.sql", f"BEGIN {create}; END;")
    try:
        found = check(deployed)
    finally:
        inv("genius.sql", f"BEGIN DBMS_SCHEDULER.DROP_JOB('{job}'); END;")
    assert found["jobs"].warning and job in found["jobs"].message
    # The books of the local cloud end before the last month.
    assert found["balances"].warning and "has no open balances" in found["balances"].message


def names_of_test_jobs() -> str:
    return inv(
        "genius.sql",
        "SELECT job_name FROM user_scheduler_jobs WHERE job_name LIKE 'GNS!_TEST!_%' ESCAPE '!' UNION ALL "
        "SELECT schedule_name FROM user_scheduler_schedules WHERE schedule_name LIKE 'GNS!_TEST!_%' ESCAPE '!'",
    ).stdout


def starts() -> int:
    return (STATE / "genius" / "procedure.log").read_text().count('"event": "start"')


def test_test_job_takes_the_whole_path_without_the_procedure_and_leaves_nothing(deployed, faults):
    before = starts()
    (one,) = readiness.test_job(Target(Context(), deployed, "local"))
    assert one.passed, one
    assert "marks and run details were read, all is dropped" in one.message
    assert starts() == before and "GNS_TEST" not in names_of_test_jobs()


def test_test_job_finds_a_right_that_is_missing_inside_a_job(deployed, faults):
    revoke("EXECUTE ON acpdb.package_rpt_ac_fi806")
    try:
        (one,) = readiness.test_job(Target(Context(), deployed, "local"))
    finally:
        grant("EXECUTE ON acpdb.package_rpt_ac_fi806")
    assert not one.passed and "PLS-00201" in one.message and "a role does not count in a job" in one.fix
    assert "GNS_TEST" not in names_of_test_jobs()


def test_test_job_that_never_starts_is_dropped_and_named(deployed, faults):
    faults.inject("jobs_never_start")
    (one,) = readiness.test_job(Target(Context(), deployed, "local"))
    assert not one.passed and "was SCHEDULED after" in one.message and "JOB_QUEUE_PROCESSES" in one.fix
    faults.clear("jobs_never_start")
    time.sleep(1)
    assert "GNS_TEST" not in names_of_test_jobs()


def test_doctor_runs_the_test_job_only_on_request_and_not_in_a_dry_run(deployed, faults):
    for words, message in ((), None), (("--test-job",), "ran and ended"):
        done = inv("doctor", "--env", "local", "--json", *words, check=False)
        found = {one["name"]: one["message"] for one in json.loads(done.stdout)}
        assert message in found["test job"] if message else "test job" not in found
    dry = Context(Config(overrides={"run": {"dry": True}}))
    (one,) = readiness.test_job(Target(dry, deployed, "local"))
    assert one.message == "dry run, no test job was submitted"


@pytest.mark.parametrize(
    ("driver", "client", "database", "warns"),
    [
        ("3.4.2", "19.28.0.0.0", "11.2.0.4.0", ""),
        ("4.0.0", "19.28.0.0.0", "11.2.0.4.0", "a database from 19 on"),
        ("26.1.0", "18.3.0.0.0", "11.2.0.4.0", "a client and database from 19 on"),
        ("4.0.0", "19.28.0.0.0", "19.20.0.0.0", ""),
    ],
)
def test_combination_outside_of_the_tested_table_is_a_warning(driver, client, database, warns):
    one = readiness.evaluate_versions({"mode": "thick", "driver": driver, "version": client}, database)
    assert one.passed and one.warning == bool(warns) and warns in one.message
    assert all(version in one.message for version in (driver, client, database))


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("19.28.0.0.0", "of July 2025, 16 months old"),
        ("19.3.0.0.0", "of April 2019, 91 months old"),
        ("18.5.0.0.0", ""),
    ],
)
def test_age_of_a_client_follows_from_its_version(version, words):
    assert words in readiness.age(version, date(2026, 11, 26)) and bool(readiness.age(version)) == bool(words)
