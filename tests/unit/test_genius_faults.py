"""The outcome of a closing for each fault of Genius and the network: handler/genius.py, then handler/job_status.py."""

from __future__ import annotations

import threading

import pytest
from support.closing_jobs import BOUND, PASSWORD, PERIOD, ask, await_state, evaluated, outcome, submit

from handler import ahead, balances, genius, job_status
from handler.errors import Refused, Unavailable

# Faults of Genius


def test_an_error_inside_the_procedure(stand_in, owner):
    stand_in.faults.inject("procedure_error", "ORA-01555: snapshot too old")
    answer, reported = outcome(submit(owner))
    assert (answer, reported.splitlines()[0]) == ("failed", "ORA-01555: snapshot too old")


def test_a_procedure_that_takes_its_time_is_waited_for(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 60)
    job = submit(owner)
    await_state(job, "RUNNING")
    answer, reported = outcome(job, deadline=0.3)
    assert answer == "unknown" and "the job is RUNNING after" in reported
    assert genius.live_jobs(PERIOD, "NONE") == [job]


def test_a_job_whose_slave_dies(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 60)
    job = submit(owner)
    await_state(job, "RUNNING")
    stand_in.faults.inject("slave_dies")
    answer, reported = outcome(job)
    assert answer == "unknown" and "STOPPED" in reported and "slave process" in reported
    assert submit(owner) == job
    assert stand_in.starts() == [job]


def test_a_job_that_somebody_stops(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 60)
    job = submit(owner)
    await_state(job, "RUNNING")
    ask("BEGIN DBMS_SCHEDULER.STOP_JOB(:job); END;", job=job)
    answer, reported = outcome(job)
    assert answer == "unknown" and "Stop job called by user: 'GENIUS'" in reported


def test_jobs_that_never_start(stand_in, owner):
    stand_in.faults.inject("jobs_never_start")
    job = submit(owner)
    evaluated(job, start_limit=0.2, until=lambda known: known.get("overdue"))
    assert stand_in.starts() == []
    stand_in.faults.clear("jobs_never_start")
    assert outcome(job)[0] == "succeeded"


def test_a_restart_with_a_running_job(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 60)
    job = submit(owner)
    await_state(job, "RUNNING")
    stand_in.restart()
    answer, reported = outcome(job)
    assert answer == "unknown" and "STOPPED" in reported and "shutdown in progress" in reported
    assert submit(owner) == job
    assert stand_in.starts() == [job]


def test_a_restart_that_starts_the_job_again(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 60)
    stand_in.faults.inject("restart_on_recovery")
    job = submit(owner)
    await_state(job, "RUNNING")
    stand_in.restart()
    answer, reported = outcome(job)
    assert answer == "unknown" and "started the job a second time" in reported
    (run,) = genius.poll_job(job)["runs"]
    assert (run["status"], run["error"]) == ("FAILED", 20808)
    assert stand_in.starts() == [job]


def test_a_restart_before_the_job_has_started(stand_in, owner):
    stand_in.faults.inject("jobs_never_start")
    job = submit(owner)
    stand_in.restart()
    assert genius.poll_job(job)["state"] == "SCHEDULED"
    stand_in.faults.clear("jobs_never_start")
    assert outcome(job)[0] == "succeeded"
    assert stand_in.starts() == [job]


@pytest.mark.parametrize(
    ("injected", "answer"),
    [
        ({}, "succeeded"),
        ({"procedure_status": "0"}, "failed"),
        ({"procedure_error": "ORA-01555: snapshot too old"}, "failed"),
        ({"slave_dies": ""}, "unknown"),
    ],
)
def test_a_log_that_was_purged(stand_in, owner, injected, answer):
    """The job's own record of its end decides where there is one."""
    for name, value in {**injected, "log_purged": ""}.items():
        stand_in.faults.inject(name, value)
    found, message = outcome(submit(owner))
    assert found == answer and "log" in message


def test_a_job_that_is_gone_with_its_log(stand_in, owner):
    job = submit(owner)
    evaluated(job)
    ask("BEGIN DBMS_SCHEDULER.DROP_JOB(:job); END;", job=job)
    assert outcome(job)[0] == "succeeded"
    stand_in.faults.inject("log_purged")
    assert outcome(job) == (
        "succeeded",
        "the job recorded succeeded with the status 1; its run log has no such run: it may be purged",
    )
    ask("BEGIN DBMS_SCHEDULER.DROP_SCHEDULE(:mark); END;", mark=f"{job}_R")
    assert outcome(job) == ("unknown", "neither the job nor a run of it is in Genius' dictionary")


# Faults on the way


def test_a_listener_that_is_down(stand_in, owner):
    stand_in.faults.inject("listener_down")
    with pytest.raises(Unavailable, match="DPY-"):
        submit(owner)
    known = evaluated("GNS_ANY", until=lambda known: "unreachableSince" in known)
    assert "outcome" not in known and "DPY-" in known["error"]
    stand_in.faults.clear("listener_down")
    assert outcome(submit(owner))[0] == "succeeded"


def test_a_host_that_nobody_listens_on(stand_in, owner):
    job = submit(owner)
    evaluated(job)
    stand_in.stop()
    try:
        seen = genius.poll_job(job)
    finally:
        stand_in.start()
    assert (seen["reachable"], "runs" in seen) == (False, False)
    assert outcome(job)[0] == "succeeded"


def test_a_password_that_was_changed(stand_in, owner):
    stand_in.faults.inject("password", "GENIUS:another")
    with pytest.raises(Refused, match=r"ORA-01017.*correct ORACLE_USER and ORACLE_PASSWORD"):
        submit(owner)
    seen = genius.poll_job("GNS_ANY")
    assert seen["reachable"] and "ORA-01017" in seen["refused"]
    assert PASSWORD not in seen["refused"] and "another" not in seen["refused"]
    assert outcome("GNS_ANY")[0] == "unobserved"


@pytest.mark.parametrize("number", [20806, 20807, 20808])
def test_an_error_of_the_procedure_with_a_number_of_our_guard(stand_in, owner, number):
    stand_in.faults.inject("procedure_error", f"ORA-{number}: the books are locked")
    answer, message = outcome(submit(owner))
    assert (answer, message.splitlines()[0]) == ("failed", f"ORA-{number}: the books are locked")


def test_an_answer_that_is_an_error_ends_the_wait(stand_in, owner, monkeypatch):
    """An error inside the dictionary's query would come again at each poll."""
    job = submit(owner)
    evaluated(job)
    monkeypatch.setattr(genius, "RUNS_OF_JOB", genius.RUNS_OF_JOB.replace("log_date", "no_such_column"))
    answer, message = outcome(job)
    assert answer == "unobserved" and "ORA-00904" in message


def test_a_line_so_slow_that_calls_time_out(stand_in, owner, impatient):
    stand_in.faults.inject("latency_ms", 5000)
    with pytest.raises(Unavailable, match="DPY-4024"):
        submit(owner)
    seen = genius.poll_job(genius.job_name(PERIOD, owner))
    assert not seen["reachable"] and "DPY-4024" in seen["error"]
    stand_in.faults.inject("latency_ms", 10)
    assert genius.poll_job(genius.job_name(PERIOD, owner))["state"] is None
    assert outcome(submit(owner))[0] == "succeeded"
    assert len(stand_in.starts()) == 1


@pytest.mark.parametrize(("fault", "there"), [("cut_before", False), ("cut_during", True), ("cut_after", True)])
def test_a_submission_whose_line_is_cut(stand_in, owner, fault, there):
    stand_in.faults.inject(fault, "create_job")
    with pytest.raises(Unavailable, match="DPY-4011"):
        submit(owner)
    job = genius.job_name(PERIOD, owner)
    if there:
        evaluated(job, until=lambda known: known["state"] is not None)
    else:
        assert genius.poll_job(job)["state"] is None
    assert submit(owner) == job
    assert outcome(job)[0] == "succeeded"
    assert stand_in.starts() == [job]


@pytest.mark.parametrize("fault", ["cut_before", "cut_during", "cut_after"])
def test_poll_whose_connection_is_cut_is_unreachable(stand_in, owner, fault):
    job = submit(owner)
    evaluated(job)
    stand_in.faults.inject(fault, "user_scheduler_job_run_details")
    known = job_status.evaluate({}, genius.poll_job(job), BOUND, BOUND)
    assert "outcome" not in known and "DPY-4011" in known["error"]
    known = job_status.evaluate(known, genius.poll_job(job), BOUND, BOUND)
    assert known["outcome"] == "succeeded" and "unreachableSince" not in known


def test_balances_whose_line_is_cut_are_not_taken_for_all(stand_in, handler_settings):
    stand_in.faults.inject("cut_before", "^FETCH .*coacode")
    with pytest.raises(Unavailable, match="DPY-4011"), genius.open_balances(PERIOD) as source:
        list(source.read())


def test_fetch_of_a_thread_ends_when_the_other_side_fails(stand_in, handler_settings, monkeypatch):
    """The call is cancelled, or ends with its reply; no thread is left, and the connection closes."""
    monkeypatch.setattr(balances, "CHUNK_LINES", 100)

    def fails():
        with genius.open_balances(PERIOD) as source, ahead.ahead(*source) as reading:
            next(reading.rows())
            stand_in.faults.inject("latency_ms", "1500")
            raise RuntimeError("PostgreSQL died")

    try:
        with pytest.raises(RuntimeError, match="PostgreSQL died"):
            fails()
    finally:
        stand_in.faults.clear("latency_ms")
    assert "ahead" not in [thread.name for thread in threading.enumerate()]
