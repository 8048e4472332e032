"""closing_runs: every change matches one row, decisions stay, and any text of Genius can be stored."""

from __future__ import annotations

import contextlib

import pytest
from support.rollup_helpers import PERIOD, begin

from handler import ledger, plan, postgres, runs
from handler.errors import LONGEST_MESSAGE, Refused

JOB = "GNS_202501_ABC"
CLOSING = {"owner": "owner", "date": "2025-01-31", "userId": "siti"}


@pytest.fixture
def session(own_schema):
    with postgres.connected() as opened:
        opened.run("TRUNCATE closing_runs, closing_findings, closing_decisions")
        yield opened


def finish(status: str, message: str) -> dict:
    ended = runs.finish(*CLOSING.values(), status, message)
    return {name: ended[name] for name in ("status", "message")}


def resolve(outcome: str, who: str, job: str = JOB, date: str | None = "2025-01-31") -> dict:
    return runs.resolve(job, outcome, who, date, PERIOD)


def row(session, job: str = JOB) -> dict:
    names = "genius, status, detail, owner, user_id, message"
    (found,) = session.run(f"SELECT {names} FROM closing_runs WHERE job = :job", job=job)
    return dict(zip(names.split(", "), found))


def test_an_outcome_for_a_run_that_is_not_there_is_an_error(session):
    with pytest.raises(
        Refused, match=r"closing_runs has 0 rows of id .*, expected one: PostgreSQL may have failed over"
    ):
        runs.record_step("nobody", "ledger", "skipped", {})


def test_the_end_of_a_run_that_a_failover_lost_is_written_even_so(session):
    assert finish("failed", "why")["status"] == "failed"
    assert row_status(session) == "failed"


def test_an_outcome_for_a_job_of_two_runs_is_an_error(session):
    for owner in ("one", "other"):
        begin(session, owner, JOB, genius="pending")
    with pytest.raises(Refused, match="closing_runs has 2 rows of job GNS_202501_ABC"):
        resolve("succeeded", "siti")
    assert row_of(session, "one") == row_of(session, "other") == "pending"


def row_of(session, owner: str) -> str:
    return session.run("SELECT genius FROM closing_runs WHERE owner = :owner", owner=owner)[0][0]


def test_a_run_that_a_failover_lost_is_written_anew_with_its_job(session):
    assert runs.record_job(JOB, "succeeded", {"endedAt": "2025-02-01T00:00:00+00:00"}, CLOSING) == "succeeded"
    found = row(session)
    assert (found["genius"], found["owner"], found["user_id"]) == ("succeeded", "owner", "siti")


def test_the_row_of_a_lost_run_keeps_its_place_before_a_later_run(session):
    """Which procedure ran last decides what is done: here the later one failed."""
    runs.begin("later", CLOSING["date"], "siti", "GNS_later")
    runs.record_job("GNS_later", "failed", {}, {**CLOSING, "owner": "later"})
    runs.record_job(JOB, "succeeded", {"startedAt": "2025-02-01T00:00:00+00:00"}, CLOSING)
    rows = runs.of_date(CLOSING["date"])
    assert [one["owner"] for one in rows] == ["owner", "later"]
    assert plan.done(rows) == []
    # A clock of Genius that is ahead does not move a run into the future.
    runs.record_job("GNS_last", "succeeded", {"startedAt": "2099-02-01T00:00:00+00:00"}, {**CLOSING, "owner": "last"})
    assert runs.of_date(CLOSING["date"])[-1]["started_at"] < "2099"


def test_a_decision_on_a_job_that_never_started_leaves_the_earlier_success(session):
    begin(session, "owner", JOB, genius="pending")
    runs.resolve(JOB, "failed", "siti", "2025-01-31", PERIOD, "never-started")
    assert row(session)["genius"] == "never-started"
    assert session.run("SELECT decision FROM closing_decisions") == [["failed"]]


def test_a_job_of_another_program_needs_no_run(session):
    assert runs.record_job("GNS_2501_OTHER", "succeeded", {}, None) == "succeeded"
    assert session.run("SELECT count(*) FROM closing_runs") == [[0]]


def test_a_recorded_decision_is_not_overwritten(session):
    begin(session, "owner", JOB, genius="unknown")
    decided = resolve("failed", "siti")
    assert (decided["as"], decided["who"], decided["rows"]) == ("failed", "siti", 1)
    # The same again is a repeated request; it keeps who and when.
    assert resolve("failed", "budi") == decided
    with pytest.raises(Refused, match="was decided as failed by siti; a recorded decision is not overwritten"):
        resolve("succeeded", "budi")
    assert runs.record_job(JOB, "succeeded", {"state": "SUCCEEDED"}, CLOSING) == "failed"
    found = row(session)
    assert found["genius"] == "failed"
    assert found["detail"]["resolved"]["who"] == "siti"


def test_a_decision_on_a_job_of_another_program_is_recorded(session):
    assert resolve("succeeded", "siti", "GNS_2501_OTHER", None)["rows"] == 0
    assert session.run("SELECT decision, who FROM closing_decisions") == [["succeeded", "siti"]]
    assert runs.record_job("GNS_2501_OTHER", "unknown", {}, None) == "succeeded"


def test_run_succeeds_only_if_each_step_of_its_row_has(session):
    """A copy of the database without the last seconds: the row is there, its ledger is not."""
    begin(session, "owner")
    with pytest.raises(Refused, match=r"closing_runs has ledger pending, metrics pending for run .* failed over"):
        finish("succeeded", "")
    assert row_status(session) == "running"
    runs.record_step("owner", "ledger", "reused", {})
    runs.record_step("owner", "metrics", "skipped", {})
    assert finish("succeeded", "") == {"status": "succeeded", "message": ""}


def row_status(session) -> str:
    return session.run("SELECT status FROM closing_runs WHERE owner = 'owner'")[0][0]


def test_first_end_of_a_run_stays(session):
    begin(session, "owner")
    assert finish("cancelled", "by siti")["status"] == "cancelled"
    assert finish("failed", "late") == {"status": "cancelled", "message": "by siti"}


@pytest.mark.parametrize("message", ["journal\0 4711", "out of balance \udcff\udcfe", "x" * 2 * LONGEST_MESSAGE, "Rp€"])
def test_any_message_can_be_stored_and_reported(session, message):
    """A NUL was once refused for ever, also by rerun, by --adopt and for each other date of the month."""
    known = {"outcome": "failed", "message": message, "endedAt": None}
    runs.record_job(JOB, known["outcome"], known, CLOSING)
    finish("failed", message)
    stored = row(session)
    assert stored["genius"] == "failed"
    for text in (stored["message"], stored["detail"]["genius"]["message"]):
        assert text[:4] == message[:4] and len(text) <= LONGEST_MESSAGE
    assert str(Refused(message)).encode()


@pytest.mark.parametrize(
    ("early", "late"),
    [
        # The database's offset changed from +08 to +07, so the later end has the earlier wall-clock time.
        ("2025-02-01T10:00:00+08:00", "2025-02-01T09:30:00+07:00"),
        ("2025-02-01T02:00:00.25+00:00", "2025-02-01T02:00:00.5+00:00"),
    ],
)
def test_ends_of_jobs_are_compared_with_their_zones(session, early, late):
    for owner, ended_at in (("early", early), ("late", late)):
        begin(session, owner, f"GNS_{owner}", ended_at)

    def held(owner: str) -> None:
        with postgres.transaction(session):
            job, ended_at = ledger.job_of(session, owner, PERIOD)
            runs.update(session, ledger.REPLACED, job=job, ended_at=ended_at, id=runs.run_id(owner))

    held("early")
    held("late")
    with pytest.raises(Refused, match="holds the result of GNS_late"):
        held("early")


def test_what_is_left_of_a_killed_run_is_ended_by_the_next_of_its_period(session):
    begin(session, "killed", JOB)
    runs.begin("owner", "2025-01-31", "siti", None)
    assert row(session)["status"] == "cancelled"
    assert row_status(session) == "running"


def test_a_wrong_row_count_rolls_the_whole_step_back(session):
    begin(session, "owner")
    with contextlib.suppress(Refused), postgres.transaction(session):
        runs.record(session, "owner", "ledger", "succeeded", {})
        runs.record(session, "nobody", "metrics", "succeeded", {})
    assert session.run("SELECT ledger FROM closing_runs") == [["pending"]]
