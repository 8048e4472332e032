"""handler/genius.py over a socket: what a closing does, and how its job guards itself.

With ORACLE_TEST_CONNECT_STRING, ORACLE_TEST_USER and ORACLE_TEST_PASSWORD that is the database that they name, and what
needs the stand-in is skipped by name.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from decimal import Decimal

import pytest
from support.closing_jobs import BRANCHES, PERIOD, SEED, ask, await_state, create, evaluated, outcome, submit

from handler import genius, settings
from handler.errors import Refused, Unavailable
from local.oracle import ledger

# A closing that nothing disturbs


def test_submitting_twice_is_one_job_and_one_run(owner):
    job = submit(owner)
    assert submit(owner) == job
    known = evaluated(job)
    assert (known["outcome"], known["message"], known["state"]) == ("succeeded", "", "SUCCEEDED")
    assert submit(owner) == job
    assert len(genius.poll_job(job)["runs"]) == 1


def test_comments_of_a_job_name_its_owner(owner):
    job = submit(owner)
    ((comments, auto_drop, kind),) = ask(
        "SELECT comments, auto_drop, job_type FROM user_scheduler_jobs WHERE job_name = :job", job=job
    )
    assert (comments, auto_drop, kind) == (f"finance-closing {PERIOD}-28, by siti, {owner}", "FALSE", "PLSQL_BLOCK")
    evaluated(job)


def test_a_name_that_is_taken_by_something_else_is_an_error(owner):
    name = genius.job_name(PERIOD, owner)
    ask("BEGIN DBMS_SCHEDULER.CREATE_SCHEDULE(:name, NULL, 'FREQ=YEARLY'); END;", name=name)
    with pytest.raises(Refused, match="name is taken, but lists neither the job nor a run"):
        submit(owner)


def test_poll_of_a_missing_job_finds_nothing(handler_settings):
    seen = genius.poll_job("GNS_202501_NEVER")
    assert (seen["reachable"], seen["state"], seen["runs"]) == (True, None, [])


@pytest.mark.parametrize("user", ["o'neill", "", "x" * 31, "a;b"])
def test_unsafe_user_is_refused_before_anything_is_sent(owner, user):
    with pytest.raises(Refused, match="cannot be part of SQL"):
        genius.submit(PERIOD, owner, f"{PERIOD}-28", user)
    assert genius.poll_job(genius.job_name(PERIOD, owner))["state"] is None


def test_a_reserved_name_never_becomes_a_job(owner):
    job = genius.job_name(PERIOD, owner)
    assert genius.reserve_name(job)
    assert genius.reserve_name(job)
    with pytest.raises(Refused, match="name is taken"):
        submit(owner)


def test_the_name_of_a_job_is_not_reserved(owner):
    job = submit(owner)
    assert not genius.reserve_name(job)
    assert evaluated(job)["outcome"] == "succeeded"
    assert not genius.reserve_name(job)


def test_the_name_of_a_job_that_started_and_was_dropped_is_not_reserved(owner):
    """The procedure has run: "never submitted" would run it again."""
    job = submit(owner)
    evaluated(job)
    ask("BEGIN DBMS_SCHEDULER.DROP_JOB(:job); END;", job=job)
    assert not genius.reserve_name(job)
    assert not genius.reserve_name(job)


def test_only_a_running_job_can_be_stopped(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 60)
    job = submit(owner)
    await_state(job, "RUNNING")
    assert genius.stop_job(job)["state"] == "STOPPED"
    assert outcome(job)[0] == "unknown"
    with pytest.raises(Refused, match=f'ORA-27366: job "GENIUS.{job}" is not running'):
        genius.stop_job(job)


def test_the_jobs_of_a_period_are_listed_with_their_runs(stand_in, owner):
    job = submit(owner)
    evaluated(job)
    create("GNS_2501_OLDER")
    create("GNS_202502_NEXT")
    await_state("GNS_2501_OLDER", "RUNNING")
    found = {one["job"]: one for one in genius.period_jobs(PERIOD)}
    assert [(name, one["state"], len(one["runs"])) for name, one in found.items()] == [
        (job, "SUCCEEDED", 1),
        ("GNS_2501_OLDER", "RUNNING", 0),
    ]
    known = {name: found[job][name] for name in ("ours", "date", "userId", "owner", "mark")}
    assert known == {"ours": True, "date": f"{PERIOD}-28", "userId": "siti", "owner": owner, "mark": "started"}
    assert not found["GNS_2501_OLDER"]["ours"]


def test_a_dropped_job_is_known_by_its_start_mark(stand_in, owner):
    job = submit(owner)
    evaluated(job)
    ask("BEGIN DBMS_SCHEDULER.DROP_JOB(:job); END;", job=job)
    (found,) = genius.period_jobs(PERIOD)
    assert (found["job"], found["state"], found["mark"]) == (job, None, "started")
    assert (found["ours"], found["date"], found["owner"]) == (True, f"{PERIOD}-28", owner)


# Giving up a job that has not started


def test_a_given_up_job_never_calls_the_procedure(stand_in, owner):
    stand_in.faults.inject("jobs_never_start")
    job = submit(owner)
    assert genius.give_up(job) == "given up"
    assert genius.give_up(job) == "given up"
    assert genius.poll_job(job)["state"] == "DISABLED"
    assert genius.live_jobs(PERIOD, "NONE") == []
    stand_in.faults.clear("jobs_never_start")
    # Whoever enables it again meets the mark.
    ask("BEGIN DBMS_SCHEDULER.ENABLE(:job); END;", job=job)
    evaluated(job, until=lambda known: genius.poll_job(job)["runs"])
    assert outcome(job)[0] == "never-started"
    assert stand_in.starts() == []


def test_a_job_that_started_cannot_be_given_up(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 0.3)
    job = submit(owner)
    await_state(job, "RUNNING")
    assert genius.give_up(job) == "started"
    assert outcome(job)[0] == "succeeded"
    assert genius.give_up(job) == "started"


def test_lost_reply_of_giving_up_is_decided_by_the_mark(stand_in, owner):
    stand_in.faults.inject("jobs_never_start")
    job = submit(owner)
    stand_in.faults.inject("cut_after", "create_schedule")
    with pytest.raises(Unavailable):
        genius.give_up(job)
    assert genius.give_up(job) == "given up"


def test_a_given_up_job_that_runs_into_its_mark_does_not_hold_up_another(stand_in, owner):
    stand_in.faults.inject("jobs_never_start")
    job = submit(owner)
    genius.give_up(job)
    stand_in.faults.clear("jobs_never_start")
    assert outcome(submit(f"{owner}x"))[0] == "succeeded"


def test_the_live_jobs_of_a_period_are_those_of_both_services(stand_in, owner):
    job = submit(owner)
    evaluated(job)
    names = ("GNS_202501_RUNS", "GNS_2501_OLDER", "GNS_202502_NEXT", "GNS_2502_NEXT", "GNSX202501_NO", "GNS_2501XNO")
    for name in names:
        create(name)
        await_state(name, "RUNNING")
    create("GNS_202501_LATER", start_date="SYSTIMESTAMP + INTERVAL '1' HOUR")
    create("GNS_202501_OFF", enabled="FALSE")
    create("GNS_202501_DONE", "BEGIN NULL; END;", auto_drop="FALSE")
    await_state("GNS_202501_DONE", "SUCCEEDED")
    assert genius.live_jobs(PERIOD, job) == ["GNS_202501_LATER", "GNS_202501_RUNS", "GNS_2501_OLDER"]
    assert genius.live_jobs(PERIOD, "GNS_202501_RUNS") == ["GNS_202501_LATER", "GNS_2501_OLDER"]


def test_open_balances_are_stale_until_the_procedure_has_run(stand_in, owner):
    journal = [(entry.debit, entry.credit) for entry in ledger.journal(SEED, PERIOD, BRANCHES)]
    debit, credit = map(sum, zip(*journal))
    with genius.open_balances(PERIOD) as source:
        assert source.totals()["DEBIT_AMOUNT"] < debit
    assert outcome(submit(owner))[0] == "succeeded"
    with genius.open_balances(PERIOD) as source:
        found, totals = list(source.read()), source.totals()
    assert (totals["DEBIT_AMOUNT"], totals["CREDIT_AMOUNT"]) == (debit, credit)
    assert totals["rows"] == len(found) > 2001
    for column, name in zip(genius.AMOUNTS, genius.Balance._fields[3:]):
        assert totals[column] == sum(Decimal(getattr(one, name)) for one in found)
    endings = ledger.endings(SEED, PERIOD, BRANCHES)
    assert {(one.branch, one.account): Decimal(one.ending_debit) - Decimal(one.ending_credit) for one in found} == {
        (branch, account): Decimal(cents).scaleb(-2)
        for branch, accounts in endings.items()
        for account, cents in accounts.items()
    }


def test_open_balances_are_those_of_one_moment_while_the_procedure_ends(stand_in, owner):
    with genius.open_balances(PERIOD) as source:
        reading = source.read()
        first = next(reading)
        assert outcome(submit(owner))[0] == "succeeded"
        debit = Decimal(first.debit) + sum(Decimal(one.debit) for one in reading)
        assert source.totals()["DEBIT_AMOUNT"] == debit == sum(Decimal(one.debit) for one in source.read())
    with genius.open_balances(PERIOD) as source:
        assert source.totals()["DEBIT_AMOUNT"] > debit


def test_a_period_without_books_has_no_balances(handler_settings):
    with genius.open_balances("1999-01") as source:
        assert list(source.read()) == []
        assert source.totals() == {"rows": 0, **dict.fromkeys(genius.AMOUNTS, Decimal(0))}


# How the job guards itself


@pytest.mark.parametrize("other", ["GNS_202501_OTHER", "GNS_2501_OTHER"])
def test_a_job_backs_off_from_one_that_runs(stand_in, owner, other):
    create(other)
    await_state(other, "RUNNING")
    job = submit(owner)
    answer, message = outcome(job)
    assert answer == "backed-off"
    assert message.startswith(f"ORA-20807: has not called the procedure: {other} is running")
    assert stand_in.starts() == []


def test_a_job_does_not_back_off_from_another_period(stand_in, owner):
    create("GNS_202502_OTHER")
    await_state("GNS_202502_OTHER", "RUNNING")
    assert outcome(submit(owner))[0] == "succeeded"


def test_two_at_once_never_both_run(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 0.5)
    jobs = [submit(owner), submit(f"{owner}x")]
    outcomes = sorted(outcome(job)[0] for job in jobs)
    assert outcomes in (["backed-off", "succeeded"], ["backed-off", "backed-off"])
    assert len(stand_in.starts()) == outcomes.count("succeeded")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("0", "journal 4711 is out of balance by 0.01", "ORA-20806: journal 4711 is out of balance by 0.01"),
        ("0", None, "ORA-20806: the procedure gave no message"),
        ("NULL", None, "ORA-20806: the procedure gave no message"),
        ("NULL", "no status", "ORA-20806: no status"),
    ],
)
def test_procedure_that_reports_failure_fails_the_job(stand_in, owner, status, message, expected):
    stand_in.faults.inject("procedure_status", status)
    if message:
        stand_in.faults.inject("procedure_message", message)
    answer, reported = outcome(submit(owner))
    assert (answer, reported.splitlines()[0]) == ("failed", expected)


def test_a_message_of_any_length_ends_a_job_as_failed(stand_in, owner):
    stand_in.faults.inject("procedure_status", "0")
    stand_in.faults.inject("procedure_message", "Kas & Bank – é" * 100)
    answer, reported = outcome(submit(owner))
    assert answer == "failed" and "Kas & Bank – é" * 100 in reported


# The job's own record of its end


@pytest.mark.parametrize(
    ("injected", "end"),
    [
        ({}, {"outcome": "succeeded", "status": "1"}),
        ({"procedure_status": "OK"}, {"outcome": "succeeded", "status": "OK"}),
        ({"procedure_status": "0"}, {"outcome": "failed", "status": "0"}),
        ({"procedure_status": "NULL"}, {"outcome": "failed", "status": ""}),
        ({"procedure_error": "ORA-01555: snapshot too old"}, {"outcome": "failed", "status": "ORA-1555"}),
    ],
)
def test_a_job_records_its_end_and_the_procedures_status(stand_in, owner, injected, end):
    for name, value in injected.items():
        stand_in.faults.inject(name, value)
    known = evaluated(submit(owner))
    assert (known["outcome"], known["procedureStatus"]) == (end["outcome"], end["status"])
    assert genius.poll_job(genius.job_name(PERIOD, owner))["end"] == end
    # The record changes nothing of how the job itself ends.
    if "procedure_error" in injected:
        assert known["message"].startswith("ORA-01555: snapshot too old")


def test_a_job_whose_record_cannot_be_written_ends_as_without_it(stand_in, owner):
    ask("BEGIN DBMS_SCHEDULER.CREATE_SCHEDULE(:n, NULL, 'FREQ=YEARLY'); END;", n=f"{genius.job_name(PERIOD, owner)}_R")
    assert outcome(submit(owner)) == ("succeeded", "")


def test_a_stopped_job_records_no_end(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 60)
    job = submit(owner)
    await_state(job, "RUNNING")
    assert genius.stop_job(job)["end"] is None
    assert outcome(job)[0] == "unknown"


@pytest.mark.parametrize(
    ("listed", "status", "expected"),
    [
        ("", "7", "succeeded"),
        ("1,OK", "OK", "succeeded"),
        ("1,OK", "7", "failed"),
        ("1", "NULL", "failed"),
        ("1", "0", "failed"),
    ],
)
def test_the_statuses_of_success_can_be_listed(stand_in, owner, monkeypatch, listed, status, expected):
    monkeypatch.setattr(genius.settings.current(), "genius_success_status", settings.statuses(listed))
    stand_in.faults.inject("procedure_status", status)
    found, message = outcome(submit(owner))
    assert found == expected
    if listed and found == "failed":
        assert f"no message and the status {status}, which GENIUS_SUCCESS_STATUS does not list" in message


@pytest.mark.parametrize("listed", ["0", "1,0", "1,", "a b", "'", "x" * 31])
def test_list_of_statuses_that_cannot_be_in_a_job_is_malformed(listed):
    with pytest.raises(ValueError, match=r".*"):
        settings.statuses(listed)


# Genius' values in the form that PostgreSQL needs


@pytest.fixture
def zone(monkeypatch):
    """Yield a function that sets the zone of the stand-in's machine."""
    yield lambda name: (monkeypatch.setenv("TZ", name), time.tzset())
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", ["UTC", "Asia/Singapore", "America/New_York"])
def test_times_of_a_job_are_in_utc_whatever_the_databases_zone(stand_in, owner, zone, name):
    zone(name)
    before = time.time()
    known = evaluated(submit(owner))
    for text in (known["startedAt"], known["endedAt"]):
        assert text.endswith("+00:00")
        assert before - 1 < datetime.fromisoformat(text).timestamp() < time.time() + 1


def test_blanks_behind_account_and_branch_are_trimmed_where_they_are_summed(stand_in, handler_settings):
    """A CHAR column pads; a padded and a bare row of one account are one balance."""
    amounts = ["1", "0", "0", "0", "1", "0"]
    rows = [[PERIOD, code, "Kas", branch, *amounts] for code, branch in (("X1", "7"), ("X1   ", "7  "), ("X2 ", "7"))]
    rows.append([PERIOD, "   ", "Kas", "7", *amounts])
    stand_in.faults.inject("open_balances", json.dumps(rows))
    with genius.open_balances(PERIOD) as source:
        found, totals = list(source.read()), source.totals()
    ours = {(one.account, one.branch): one.beginning_debit for one in found if one.branch == "7"}
    assert ours == {("X1", "7"): "2", ("X2", "7"): "1", (None, "7"): "1"}
    assert totals["rows"] == len(found)


def test_text_that_is_not_valid_utf8_arrives_so_that_its_account_can_be_named(stand_in, handler_settings):
    row = [PERIOD, "X1", "Kas \udcff", "7", "1", "0", "0", "0", "1", "0"]
    stand_in.faults.inject("open_balances", json.dumps([row]))
    with genius.open_balances(PERIOD) as source:
        assert [one.description for one in source.read() if one.account == "X1"] == ["Kas \udcff"]


@pytest.mark.parametrize(("message", "cleaned"), [("journal\0 4711", "journal? 4711"), ("Kas \udcff", "Kas ?")])
def test_a_message_with_bytes_that_no_store_takes_is_cleaned(stand_in, owner, message, cleaned):
    stand_in.faults.inject("procedure_status", "0")
    stand_in.faults.inject("procedure_message", message)
    found, text = outcome(submit(owner))
    assert (found, text.splitlines()[0]) == ("failed", f"ORA-20806: {cleaned}")


@pytest.mark.parametrize("period", ["2025-01%' OR '1'='1", "2025-13", "202501", "2025-01\n", "", None])
def test_no_sql_text_is_made_of_a_period_that_is_none(period):
    for make in (
        lambda: genius.job_name(period, "inv_1"),
        lambda: genius.names_of_period(period),
        lambda: genius.job_action(period, "GNS_202501_A", "2025-01-28", "siti", "inv_1"),
    ):
        with pytest.raises(Refused, match="cannot be part of SQL"):
            make()
