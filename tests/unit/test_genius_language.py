"""The stand-in knows Oracle's language, not our text: another text of handler/genius.py has another effect."""

from __future__ import annotations

import pytest
from support.closing_jobs import PERIOD, ask, await_state, create, evaluated, outcome, submit

from handler import genius
from handler.errors import Refused


def test_another_predicate_of_the_query_sees_other_jobs(stand_in, owner, monkeypatch):
    job, other = submit(owner), submit(f"{owner}x", "2025-02")
    evaluated(job), evaluated(other)
    monkeypatch.setattr(genius, "RUNS_OF_JOB", genius.RUNS_OF_JOB.replace("job_name = :job", "job_name <> :job"))
    create("GNS_202501_FAILS", "BEGIN raise_application_error(-20001, 'no'); END;")
    assert [run["status"] for run in genius.poll_job("GNS_202501_FAILS")["runs"]] == ["SUCCEEDED", "SUCCEEDED"]
    monkeypatch.setattr(genius, "JOB_STATE", genius.JOB_STATE.replace("= :job", "= :job AND enabled = 'TRUE'"))
    assert genius.poll_job(job)["state"] is None


def test_query_without_escapes_sees_too_much(stand_in, handler_settings, monkeypatch):
    create("GNSX202501XNO")
    assert genius.live_jobs(PERIOD, "NONE") == []
    unescaped = {"long_name": "GNS_202501_%", "short_name": "GNS_2501_%"}
    monkeypatch.setattr(genius, "names_of_period", lambda period: unescaped)
    assert genius.live_jobs(PERIOD, "NONE") == ["GNSX202501XNO"]


@pytest.mark.parametrize(
    ("old", "new", "answer", "starts"),
    [
        ("Package_Rpt_Ac_Fi806.get_master_data", "-- get_master_data", "failed", 0),
        ("v_status {failure}", "v_status = '1'", "failed", 1),
        ("v_status IS NULL OR v_status {failure}", "FALSE", "succeeded", 1),
        ("'{year}', '{month}'", "'1999', '{month}'", "failed", 1),
        ("_S'", "_S_of_a_name_that_is_too_long'", "failed", 0),
        ("Package_Rpt_Ac_Fi806", "Package_Rpt_Ac_Fi807", "failed", 0),
    ],
)
def test_another_action_of_the_job_does_something_else(stand_in, owner, monkeypatch, old, new, answer, starts):
    assert genius.JOB_ACTION.count(old)
    monkeypatch.setattr(genius, "JOB_ACTION", genius.JOB_ACTION.replace(old, new, 1))
    assert outcome(submit(owner))[0] == answer
    assert len(stand_in.starts()) == starts


def test_without_its_guard_a_job_runs_beside_another(stand_in, owner, monkeypatch):
    monkeypatch.setattr(genius, "JOB_ACTION", genius.JOB_ACTION.replace("state = 'RUNNING'", "state = 'BROKEN'"))
    create("GNS_202501_OTHER")
    await_state("GNS_202501_OTHER", "RUNNING")
    assert outcome(submit(owner))[0] == "succeeded"
    assert len(stand_in.starts()) == 1


def test_without_its_start_mark_a_job_starts_again_with_the_database(stand_in, owner, monkeypatch):
    monkeypatch.setattr(
        genius, "JOB_ACTION", genius.JOB_ACTION.replace("'{job}_S'", "'S' || TO_CHAR(SYSTIMESTAMP, 'HH24MISSFF')")
    )
    stand_in.faults.inject("procedure_seconds", 0.2)
    stand_in.faults.inject("restart_on_recovery")
    job = submit(owner)
    await_state(job, "RUNNING")
    stand_in.restart()
    assert outcome(job)[0] == "succeeded"
    assert stand_in.starts() == [job, job]


@pytest.mark.parametrize(
    ("old", "new", "state", "starts"),
    [
        ("enabled => TRUE", "enabled => FALSE", "DISABLED", 0),
        ("enabled => TRUE", "start_date => SYSTIMESTAMP + 1, enabled => TRUE", "SCHEDULED", 0),
        ("auto_drop => FALSE", "auto_drop => TRUE", None, 1),
        ("auto_drop => FALSE", "repeat_interval => 'FREQ=DAILY', auto_drop => FALSE", "SCHEDULED", 1),
    ],
)
def test_another_argument_of_create_job_makes_another_job(stand_in, owner, monkeypatch, old, new, state, starts):
    monkeypatch.setattr(genius, "CREATE_JOB", genius.CREATE_JOB.replace(old, new))
    job = submit(owner)
    if starts:
        evaluated(job)
    assert genius.poll_job(job)["state"] == state
    assert len(stand_in.starts()) == starts


def test_a_job_that_drops_itself_lets_a_second_submission_run_again(stand_in, owner, monkeypatch):
    monkeypatch.setattr(genius, "CREATE_JOB", genius.CREATE_JOB.replace("auto_drop => FALSE", "auto_drop => TRUE"))
    job = submit(owner)
    evaluated(job)
    ask("BEGIN DBMS_SCHEDULER.DROP_SCHEDULE(:mark); END;", mark=f"{job}_S")
    submit(owner)
    evaluated(job, until=lambda known: len(genius.poll_job(job)["runs"]) == 2)
    assert stand_in.starts() == [job, job]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("'PLSQL_BLOCK'", "'PLSQL'", "ORA-27465"),
        ("job_name => :job", "job_name => :job || '_and_more_than_30_bytes'", "ORA-27452"),
        ("comments =>", "remarks =>", "ORA-06550"),
        ("enabled => TRUE", "enabled => 'perhaps'", "ORA-06550"),
        ("DBMS_SCHEDULER", "DBMS_SCHEDULE", "ORA-06550"),
    ],
)
def test_arguments_that_oracle_refuses_are_refused(stand_in, owner, monkeypatch, old, new, code):
    monkeypatch.setattr(genius, "CREATE_JOB", genius.CREATE_JOB.replace(old, new))
    with pytest.raises(Refused, match=f"Genius: {code}"):
        submit(owner)
    assert genius.poll_job(genius.job_name(PERIOD, owner))["state"] is None
