"""The ledger step interrupted, repeated and late: the period has all of its old rows or all of its new ones."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from support.helpers import inv
from support.rollup_helpers import (
    PERIOD,
    SCHEMA,
    balanced,
    begin,
    expected,
    reading,
    set_branches,
    set_chart,
    written,
)

from handler import app, balances, deadline, ledger, oracle, postgres
from handler.errors import Refused, Unavailable

CHART = {"1": None, "11": "1", "1101": "11", "1102": "11", "9": None}
OLD = balanced([("1101", "001", 500, 0, 300, 100, 700, 0), ("1102", "002", 1, 0, 0, 0, 1, 0)])
NEW = balanced([("1101", f"{branch:03}", 7, 0, 3, 1, 9, 0) for branch in range(40)])


@pytest.fixture(scope="module")
def session(own_schema):
    with ledger.connected() as opened:
        set_chart(opened, CHART)
        set_branches(opened, [f"{branch:03}" for branch in range(40)])
        begin(opened, "owner")
        yield opened


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Check that the thread which reads Genius has ended, whatever the test has broken."""
    yield
    assert "ahead" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def old(session):
    """Restore the period, and record nothing of later jobs."""
    session.run("DELETE FROM closing_runs WHERE owner <> 'owner'")
    session.run("UPDATE closing_runs SET job = NULL, ledger_job = NULL, ledger_job_ended_at = NULL, ledger_at = NULL")
    replace(OLD)


@pytest.fixture
def chunks(monkeypatch):
    monkeypatch.setattr(balances, "CHUNK_LINES", 10)


def replace(rows, owner="owner", **meddling) -> dict:
    return ledger.replace_trial_balance(owner, PERIOD, reading(rows, **meddling))


@contextlib.contextmanager
def hook(monkeypatch, before):
    """Return a function: before(session, number, sql) is then called before each statement of a step is sent."""
    run, numbers = postgres.Session.run, iter(range(10**6))

    def hooked(self, sql, **parameters):
        before(self, next(numbers), sql)
        return run(self, sql, **parameters)

    with monkeypatch.context() as patch:
        patch.setattr(postgres.Session, "run", hooked)
        yield


def end_server_side(admin, session) -> None:
    ((pid,),) = session.connection.run("SELECT pg_backend_pid()")
    admin.run(f"SELECT pg_terminate_backend({pid}, 5000)")


def test_killed_at_any_statement_the_period_is_the_old_one(session, old, admin, monkeypatch):
    killed = True
    number = 0
    while killed:
        killed = False

        def kill(there, current, sql, at=number):
            nonlocal killed
            if current == at:
                killed = True
                end_server_side(admin, there)

        with hook(monkeypatch, kill), contextlib.suppress(Unavailable):
            replace(NEW)
            assert not killed
        if killed:
            assert written(session) == expected(CHART, OLD), number
            number += 1
    assert number > 20
    assert written(session) == expected(CHART, NEW)


def test_a_lost_reply_to_the_commit_is_harmless(session, old, monkeypatch):
    run = postgres.Session.run

    def lost(self, sql, **parameters):
        answer = run(self, sql, **parameters)
        if sql == "COMMIT":
            raise Unavailable("the line died")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(postgres.Session, "run", lost)
        with pytest.raises(Unavailable):
            replace(NEW)
    assert written(session) == expected(CHART, NEW)
    replace(NEW)
    assert written(session) == expected(CHART, NEW)


@pytest.mark.parametrize("how", ["error", "end"])
def test_cut_at_any_chunk_the_period_is_the_old_one(session, old, chunks, how):
    for place in range(0, len(NEW), 9):

        def cut(rows, place=place):
            yield from rows[:place]
            if how == "error":
                raise RuntimeError("ORA-03113")

        with pytest.raises((RuntimeError, Refused)):
            replace(NEW, served=cut)
        assert written(session) == expected(CHART, OLD)


def test_twice_at_once_one_reads_after_the_other_has_committed(session, old):
    events = []

    @contextlib.contextmanager
    def slow(rows, name, period):
        events.append(name)
        with reading(rows)(period) as source:
            time.sleep(0.3)
            yield source
        events.append(f"{name} read")

    def work(name, rows):
        ledger.replace_trial_balance("owner", PERIOD, lambda period: slow(rows, name, period))

    both = {"a": NEW, "b": OLD}
    threads = [threading.Thread(target=work, args=one) for one in both.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    first, second = events[0], events[2]
    assert events == [first, f"{first} read", second, f"{second} read"]
    assert written(session) == expected(CHART, both[second])


def test_the_lock_is_held_before_genius_is_read(session, old, admin):
    class Read(Exception):
        pass

    @contextlib.contextmanager
    def reading_once(period):
        taken = admin.run("SELECT pg_try_advisory_xact_lock(806, 202501)")
        raise Read(taken)
        yield

    with pytest.raises(Read, match=r"\[\[False\]\]"):
        ledger.replace_trial_balance("owner", PERIOD, reading_once)


def test_an_earlier_job_does_not_replace_a_later_one(session, old):
    late = begin(session, "late", "GNS_202501_B", "2025-02-01T10:00:00.5")
    early = begin(session, "early", "GNS_202501_A", "2025-02-01T09:59:59")
    detail = replace(NEW, owner=late)
    assert (detail["job"], detail["jobEndedAt"]) == ("GNS_202501_B", "2025-02-01T10:00:00.5")
    with pytest.raises(Refused, match=r"holds the result of GNS_202501_B, .*; GNS_202501_A ended before that"):
        replace(OLD, owner=early)
    assert written(session) == expected(CHART, NEW)
    replace(OLD, owner=late)
    assert written(session) == expected(CHART, OLD)


def test_closing_without_a_job_copies_the_balances_and_still_refuses_earlier_jobs(session, old):
    late = begin(session, "late", "GNS_202501_B", "2025-02-01T10:00:00")
    early = begin(session, "early", "GNS_202501_A", "2025-02-01T09:00:00")
    skipped = begin(session, "skipped", genius="skipped")
    replace(OLD, owner=late)
    assert replace(NEW, owner=skipped)["job"] is None
    assert written(session) == expected(CHART, NEW)
    with pytest.raises(Refused, match="GNS_202501_B"):
        replace(OLD, owner=early)


def test_rerun_counts_as_the_job_of_the_earlier_run_of_its_date(session, old):
    begin(session, "first", "GNS_202501_A", "2025-02-01T09:00:00")
    again = begin(session, "again", genius="reused")
    assert replace(NEW, owner=again)["job"] == "GNS_202501_A"


def test_a_run_that_the_log_does_not_know_replaces_nothing(session, old):
    with pytest.raises(Refused, match="closing_runs has no row"):
        replace(NEW, owner="nobody")


def test_metrics_are_computed_once_whatever_is_lost(session, old, admin, monkeypatch):
    session.run("TRUNCATE calls")

    def kill(there, number, sql):
        if "calculation_runs" in sql and number > 5:
            end_server_side(admin, there)

    with hook(monkeypatch, kill), pytest.raises(Unavailable):
        ledger.compute_metrics("owner", PERIOD)
    assert session.run("SELECT count(*) FROM calls") == [[0]]
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ledger.compute_metrics("owner", PERIOD))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert session.run("SELECT count(*) FROM calls") == [[1]]
    assert len(answers) == 3
    assert answers[0] == answers[1] == answers[2]


@pytest.fixture
def two_seconds():
    deadline.begin(SimpleNamespace(get_remaining_time_in_millis=lambda: 3000))
    yield
    deadline.begin(None)


def test_waiting_statement_is_an_error_before_the_invocation_ends(session, old, admin, two_seconds):
    admin.run("SELECT pg_advisory_lock(806, 202501)")
    begun = time.monotonic()
    try:
        with pytest.raises(Unavailable, match="the time that the invocation had left was over"):
            replace(NEW)
    finally:
        admin.run("SELECT pg_advisory_unlock_all()")
    assert time.monotonic() - begun < 2.9


def test_silent_server_is_an_error_before_the_invocation_ends(session, monkeypatch, two_seconds):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(ledger.settings.current(), "pg_port", silent.getsockname()[1])
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="timed out"):
            replace(NEW)
    assert time.monotonic() - begun < 2.9


def test_genius_gets_no_more_time_than_the_invocation_has(two_seconds):
    assert 1000 < oracle.call_milliseconds(300) <= 2000


def test_slow_rows_are_an_error_before_the_invocation_ends(session, old, chunks, two_seconds):
    def slow(rows):
        for row in rows:
            time.sleep(0.1)
            yield row

    with pytest.raises(Unavailable, match="time"):
        replace(NEW, served=slow)
    assert written(session) == expected(CHART, OLD)


def test_what_the_tables_cannot_hold_is_no_matter_for_a_retry(session, old):
    session.run("ALTER TABLE legacy_trial_balances ADD CONSTRAINT small CHECK (end_debit < 5) NOT VALID")
    try:
        with pytest.raises(Refused, match="violates check constraint"):
            replace(NEW + balanced([("1101", "900", 0, 0, 900, 0, 900, 0)], branch="901"))
    finally:
        session.run("ALTER TABLE legacy_trial_balances DROP CONSTRAINT small")


def test_grants_that_are_missing_are_named(own_schema, admin):
    admin.run(f"ALTER TABLE {SCHEMA}.legacy_trial_balances OWNER TO postgres")
    admin.run(f"GRANT SELECT, INSERT ON {SCHEMA}.legacy_trial_balances TO finance")
    try:
        with pytest.raises(Refused, match=f"GRANT DELETE ON {SCHEMA}.legacy_trial_balances TO finance; then"):
            app.schema.apply()
    finally:
        admin.run(f"ALTER TABLE {SCHEMA}.legacy_trial_balances OWNER TO finance")


def test_schema_without_the_reports_tables_is_reported(own_schema, monkeypatch):
    monkeypatch.setattr(ledger.settings.current(), "pg_schema", "no_such")
    with pytest.raises(Refused, match="no schema no_such in database finance; correct PG_SCHEMA"):
        app.schema.apply()


def test_the_schema_is_made_by_the_operator_again_and_again(deployed):
    for _ in range(2):
        assert "closing_runs is in schema financial_report" in inv("schema", "--env", "local").stdout
    printed = inv("schema", "--env", "local", "--dry").stdout
    assert "lambda invoke" in printed
    assert "dry run" in printed
