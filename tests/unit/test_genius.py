"""handler/genius.py over a socket: what a closing does, and how its job guards itself.

With ORACLE_TEST_CONNECT_STRING, ORACLE_TEST_USER and ORACLE_TEST_PASSWORD that is the database that they name, and what
needs the stand-in is skipped by name.
"""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.closing_jobs import BRANCHES, PERIOD, SEED, ask, await_state, create, evaluated, outcome, submit

from handler import genius
from handler.errors import Refused
from local.oracle import ledger

# A closing that nothing disturbs


def test_submitting_twice_is_one_job_and_one_run(owner):
    job = submit(owner)
    assert submit(owner) == job
    known = evaluated(job)
    assert (known["outcome"], known["message"], known["state"]) == ("succeeded", "", "SUCCEEDED")
    assert submit(owner) == job
    assert len(genius.poll_job(job)["runs"]) == 1


def test_a_job_says_who_owns_it(owner):
    job = submit(owner)
    ((comments, auto_drop, kind),) = ask(
        "SELECT comments, auto_drop, job_type FROM user_scheduler_jobs WHERE job_name = :job", job=job
    )
    assert (comments, auto_drop, kind) == (f"closing of {PERIOD} for {owner}", "FALSE", "PLSQL_BLOCK")
    evaluated(job)


def test_a_name_that_is_taken_by_something_else_is_an_error(owner):
    name = genius.job_name(PERIOD, owner)
    ask("BEGIN DBMS_SCHEDULER.CREATE_SCHEDULE(:name, NULL, 'FREQ=YEARLY'); END;", name=name)
    with pytest.raises(Refused, match="name is taken, yet shows neither the job nor a run"):
        submit(owner)


def test_a_look_at_what_is_not_there(handler_settings):
    seen = genius.poll_job("GNS_202501_NEVER")
    assert (seen["reachable"], seen["state"], seen["runs"]) == (True, None, [])


@pytest.mark.parametrize("user", ["o'neill", "", "x" * 31, "a;b"])
def test_a_user_that_cannot_stand_in_a_block_is_refused_before_anything_is_sent(owner, user):
    with pytest.raises(Refused, match="cannot stand in a closing job"):
        genius.submit(PERIOD, owner, user, "")
    assert genius.poll_job(genius.job_name(PERIOD, owner))["state"] is None


def test_a_job_that_is_forestalled_can_never_be_created(owner):
    job = genius.job_name(PERIOD, owner)
    assert genius.reserve_name(job)
    assert genius.reserve_name(job)
    with pytest.raises(Refused, match="name is taken"):
        submit(owner)


def test_a_job_that_exists_is_not_forestalled(owner):
    job = submit(owner)
    assert not genius.reserve_name(job)
    assert evaluated(job)["outcome"] == "succeeded"
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
    assert found[job]["comments"] == f"closing of {PERIOD} for {owner}"


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
    with genius.open_balances(PERIOD) as (stale, _):
        assert stale["DEBIT_AMOUNT"] < debit
    assert outcome(submit(owner))[0] == "succeeded"
    with genius.open_balances(PERIOD) as (totals, balances):
        found = list(balances())
    assert (totals["DEBIT_AMOUNT"], totals["CREDIT_AMOUNT"]) == (debit, credit)
    assert totals["rows"] == len(found) > 2001
    for column, name in zip(genius.AMOUNTS, genius.Balance._fields[3:]):
        assert totals[column] == sum(getattr(one, name) for one in found)
    endings = ledger.endings(SEED, PERIOD, BRANCHES)
    assert {(one.branch, one.account): one.ending_debit - one.ending_credit for one in found} == {
        (branch, account): Decimal(cents).scaleb(-2)
        for branch, accounts in endings.items()
        for account, cents in accounts.items()
    }


def test_open_balances_are_those_of_one_moment_while_the_procedure_ends(stand_in, owner):
    with genius.open_balances(PERIOD) as (totals, balances):
        reading = balances()
        first = next(reading)
        assert outcome(submit(owner))[0] == "succeeded"
        assert totals["DEBIT_AMOUNT"] == first.debit + sum(one.debit for one in reading)
        assert totals["DEBIT_AMOUNT"] == sum(one.debit for one in balances())
    with genius.open_balances(PERIOD) as (after, _):
        assert after["DEBIT_AMOUNT"] > totals["DEBIT_AMOUNT"]


def test_a_period_without_books_has_no_balances(handler_settings):
    with genius.open_balances("1999-01") as (totals, balances):
        assert totals == {"rows": 0, **dict.fromkeys(genius.AMOUNTS, Decimal(0))}
        assert list(balances()) == []


# How the job guards itself


@pytest.mark.parametrize("other", ["GNS_202501_OTHER", "GNS_2501_OTHER"])
def test_a_job_backs_off_from_one_that_runs(stand_in, owner, other):
    create(other)
    await_state(other, "RUNNING")
    job = submit(owner)
    said, message = outcome(job)
    assert said == "backed-off"
    assert message.startswith(f"ORA-20807: {other} is running; {job} has not called the procedure")
    assert stand_in.starts() == []


def test_a_job_does_not_back_off_from_another_period(stand_in, owner):
    create("GNS_202502_OTHER")
    await_state("GNS_202502_OTHER", "RUNNING")
    assert outcome(submit(owner))[0] == "succeeded"


def test_two_at_once_never_both_run(stand_in, owner):
    stand_in.faults.inject("procedure_seconds", 0.5)
    jobs = [submit(owner), submit(f"{owner}x")]
    said = sorted(outcome(job)[0] for job in jobs)
    assert said in (["backed-off", "succeeded"], ["backed-off", "backed-off"])
    assert len(stand_in.starts()) == said.count("succeeded")


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        ("0", "journal 4711 is out of balance by 0.01", "ORA-20806: journal 4711 is out of balance by 0.01"),
        ("0", None, "ORA-20806: the procedure gave no message"),
        ("NULL", None, "ORA-20806: the procedure gave no message"),
        ("NULL", "no status", "ORA-20806: no status"),
    ],
)
def test_a_procedure_that_says_that_it_failed(stand_in, owner, status, message, said):
    stand_in.faults.inject("procedure_status", status)
    if message:
        stand_in.faults.inject("procedure_message", message)
    answer, told = outcome(submit(owner))
    assert (answer, told.splitlines()[0]) == ("failed", said)


def test_a_message_of_any_length_ends_a_job_as_failed(stand_in, owner):
    stand_in.faults.inject("procedure_status", "0")
    stand_in.faults.inject("procedure_message", "Kas & Bank – é" * 100)
    answer, told = outcome(submit(owner))
    assert answer == "failed" and "Kas & Bank – é" * 100 in told
