"""A daily closing on the local cloud, from the operator's command to the rows in PostgreSQL."""

from __future__ import annotations

import time

import oracledb
import pytest
from support import books
from support.helpers import STATE, close, connect, inv, run_rows, starts

from local.oracle.faults import Faults
from ops import closings
from ops.restate import request

FAULTS = Faults(STATE / "genius")


@pytest.fixture(scope="module")
def database(deployed):
    connection = connect(deployed)
    connection.run(f'SET search_path = "{deployed["PG_SCHEMA"]}"')
    yield connection
    connection.close()


def run_row(cfg: dict, date: str) -> dict:
    (row,) = run_rows(cfg, date)
    return row


@pytest.fixture(scope="module")
def closed(deployed, database):
    """Close 2025-01-30 once for the tests that read it."""
    return close("2025-01-30", "--user", "siti")


def test_the_trial_balance_equals_the_journal_to_the_cent(closed, deployed, database):
    rows = database.run(
        "SELECT chart_of_account_code, branch_code, start_balance, movement_debit, movement_credit, end_balance"
        " FROM legacy_trial_balances WHERE year = 2025 AND month = 1"
    )
    assert {(account, branch): tuple(amounts) for account, branch, *amounts in rows} == books.trial_balance("2025-01")


def test_the_procedure_started_once_for_the_user(closed, deployed):
    status = closings.state_of(deployed, "DailyClosing", "2025-01-30")["status"]
    (start,) = [one for one in starts("2025-01") if one["job"] == status["job"]]
    assert (start["user_id"], start["year"], start["month_from"], start["month_to"]) == ("siti", "2025", "01", "01")


def test_the_metrics_are_there_and_belong_to_this_run(closed, deployed, database):
    row = run_row(deployed, "2025-01-30")
    ((metrics, runs),) = database.run(
        "SELECT count(*), min(run_id::text) FROM financial_metrics WHERE year = 2025 AND month = 1"
    )
    assert metrics > 20
    assert runs == str(row["id"])
    assert database.run("SELECT status FROM calculation_runs WHERE id = CAST(:id AS uuid)", id=runs) == [["completed"]]


def test_log_has_the_event_of_a_closed_date(closed, deployed, database):
    row = run_row(deployed, "2025-01-30")
    steps = ("status", "genius", "ledger", "metrics", "user_id")
    assert [row[name] for name in steps] == ["succeeded"] * 4 + ["siti"]
    assert row["job"].startswith("GNS_202501_")
    assert row["ended_at"] > row["started_at"]


def test_closing_clears_its_state(closed, deployed):
    assert closings.state_of(deployed, "ClosingPeriod", "2025-01") == {}


def test_get_status_returns_the_result(closed, deployed):
    url = f"{deployed['RESTATE_INGRESS_URL']}/DailyClosing/2025-01-30/getStatus"
    code, answer = request(deployed, "POST", url)
    assert (code, answer["status"], answer["genius"]["outcome"]) == (200, "succeeded", "succeeded")


def test_a_date_is_accepted_once(closed):
    again = close("2025-01-30", check=False)
    assert again.returncode == 1
    assert "PreviouslyAccepted" in again.stderr
    assert "2025-01-30 succeeded" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_a_closing_that_skips_the_procedure_copies_stale_balances(deployed, database):
    close("2025-02-28", "--skip-genius", "--skip-metrics")
    rows = database.run(
        "SELECT chart_of_account_code, branch_code, start_balance, movement_debit, movement_credit, end_balance"
        " FROM legacy_trial_balances WHERE year = 2025 AND month = 2"
    )
    found = {(account, branch): tuple(amounts) for account, branch, *amounts in rows}
    assert found.keys() == books.trial_balance("2025-02").keys()
    assert found != books.trial_balance("2025-02")
    row = run_row(deployed, "2025-02-28")
    assert [row[name] for name in ("genius", "ledger", "metrics")] == ["skipped", "succeeded", "skipped"]
    assert not starts("2025-02")


def test_a_closing_that_skips_the_procedure_still_waits_for_a_job_of_somebody_else(deployed):
    """One that a person started under a name of the older service's pattern."""
    block = "BEGIN DBMS_LOCK.SLEEP(3); END;"
    create = "BEGIN DBMS_SCHEDULER.CREATE_JOB('GNS_2506_BY_HAND', 'PLSQL_BLOCK', :action, enabled => TRUE); END;"
    with oracledb.connect(
        user=deployed["ORACLE_USER"], password=deployed["ORACLE_PASSWORD"], dsn=deployed["ORACLE_CONNECT_STRING"]
    ) as connection:
        connection.cursor().execute(create, action=block)
    began = time.monotonic()
    # As the "other job", or already as what the closing waits for.
    assert "  GNS_2506_BY_HAND" in close("2025-06-05", "--skip-genius", "--skip-sync", "--skip-metrics").stdout
    assert time.monotonic() - began > 2


def test_a_failed_procedure_ends_the_closing_with_genius_own_message(deployed, database):
    count = "SELECT count(*) FROM legacy_trial_balances WHERE year = 2025 AND month = 3"
    before = database.run(count)
    FAULTS.inject("procedure_status", "0")
    FAULTS.inject("procedure_message", "journal 4711 is out of balance by 0.01")
    try:
        failed = close("2025-03-03", check=False)
    finally:
        FAULTS.clear("procedure_status")
        FAULTS.clear("procedure_message")
    assert failed.returncode == 1
    assert "ORA-20806: journal 4711 is out of balance by 0.01" in failed.stderr
    row = run_row(deployed, "2025-03-03")
    assert [row[name] for name in ("status", "genius", "ledger", "metrics")] == [
        "failed",
        "failed",
        "pending",
        "pending",
    ]
    assert "journal 4711" in row["message"]
    assert database.run(count) == before
    assert closings.state_of(deployed, "ClosingPeriod", "2025-03") == {}


def test_a_message_with_a_nul_fails_its_closing_and_no_other(deployed):
    """Its outcome was once refused for ever, also for a rerun and for all other dates of the month."""
    FAULTS.inject("procedure_status", "0")
    FAULTS.inject("procedure_message", "journal\0 4711 is out of balance \udcff")
    try:
        failed = close("2025-05-06", check=False)
    finally:
        FAULTS.clear("procedure_status")
        FAULTS.clear("procedure_message")
    assert failed.returncode == 1
    assert "ORA-20806: journal? 4711 is out of balance ?" in failed.stderr
    assert run_row(deployed, "2025-05-06")["genius"] == "failed"
    assert closings.state_of(deployed, "ClosingPeriod", "2025-05") == {}
    assert close("2025-05-07").returncode == 0
    assert inv("rerun", "--env", "local", "--date", "2025-05-06", "--yes", "--watch").returncode == 0


def test_two_dates_of_a_period_are_closed_one_after_the_other(deployed):
    before = len(starts("2025-04", event=None))
    for date in ("2025-04-29", "2025-04-30"):
        inv("close", "--env", "local", "--date", date)
    for date in ("2025-04-29", "2025-04-30"):
        closings.follow(deployed, date)
    assert [one["event"] for one in starts("2025-04", event=None)[before:]] == ["start", "end", "start", "end"]


def test_status_answers_while_a_closing_waits(deployed):
    FAULTS.inject("procedure_seconds", "6")
    try:
        inv("close", "--env", "local", "--date", "2025-05-05")
        deadline = time.monotonic() + 20
        progress = {}
        while progress.get("state") != "RUNNING" and time.monotonic() < deadline:
            asked = time.monotonic()
            _, answer = request(
                deployed, "POST", f"{deployed['RESTATE_INGRESS_URL']}/DailyClosing/2025-05-05/getStatus"
            )
            progress = answer.get("progress") or {}
            assert time.monotonic() - asked < 5
        assert (answer["status"], progress["state"]) == ("running", "RUNNING")
        assert "RUNNING" in inv("status", "--env", "local", "--date", "2025-05-05").stdout
    finally:
        FAULTS.clear("procedure_seconds")
    closings.follow(deployed, "2025-05-05")


@pytest.mark.parametrize("date", ["2025-02-30", "20250131", "2025-W05-5", "2999-01-01"])
def test_a_date_that_cannot_be_closed_is_refused_before_anything_is_sent(deployed, date):
    refused = close(date, check=False)
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (1, 1)
    assert date in refused.stderr
    assert "Nothing was sent" in refused.stderr
    assert closings.invocation_of(deployed, "DailyClosing", date, "run") is None


def test_a_user_with_a_quote_is_refused(deployed):
    refused = close("2025-06-02", "--user", "o'neill", check=False)
    assert refused.returncode == 1
    assert "userId" in refused.stderr
    assert closings.invocation_of(deployed, "DailyClosing", "2025-06-02", "run") is None


@pytest.mark.parametrize(
    ("key", "body", "fault"),
    [
        ("2025-06-03", {"date": "2025-06-03", "skipGenius": True}, "unknown field 'skipGenius'"),
        ("2025-06-04", {"date": "2025-06-04", "userId": "a'b"}, "userId"),
        ("20250605", {"date": "20250605"}, "is not a date"),
        ("2998-01-01", {"date": "2998-01-01"}, "in the future"),
    ],
)
def test_the_service_itself_refuses_what_other_callers_send(deployed, key, body, fault):
    code, answer = request(deployed, "POST", f"{deployed['RESTATE_INGRESS_URL']}/DailyClosing/{key}/run", body)
    assert code == 400
    assert fault in answer["message"]
    assert closings.invocation_of(deployed, "ClosingPeriod", key[:7], "close") is None or key.startswith("2025-06")


def test_refused_request_does_not_use_up_its_date(deployed):
    url = f"{deployed['RESTATE_INGRESS_URL']}/DailyClosing/2025-06-06/run"
    assert request(deployed, "POST", url, {"date": "2025-06-06", "user": "x"})[0] == 400
    words = ("close", "--env", "local", "--date", "2025-06-06", "--skip-genius", "--skip-sync", "--skip-metrics")
    dry, done = inv("--dry", *words).stdout, inv(*words).stdout
    sent = [line for line in done.splitlines() if line.startswith("curl ")]
    assert "/purge" in sent[0] and "/run/send" in sent[1] and dry.splitlines() == sent
    assert "2025-06-06 accepted" in done
    closings.follow(deployed, "2025-06-06")


def test_a_wrong_oracle_password_ends_the_closing_in_one_line(deployed):
    before = starts("2025-06")
    FAULTS.inject("password", "GENIUS:changed")
    try:
        failed = close("2025-06-09", check=False)
    finally:
        FAULTS.clear("password")
    assert failed.returncode == 1
    assert "ORA-01017" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert starts("2025-06") == before
    assert run_row(deployed, "2025-06-09")["status"] == "failed"


def test_postgresql_down_delays_the_closing_and_loses_nothing(local, deployed):
    before = len(starts("2025-06"))
    local.stop("postgres")
    try:
        inv("close", "--env", "local", "--date", "2025-06-10")
        wait_for_failure(deployed, "2025-06-10", "PostgreSQL at 127.0.0.1")
        assert len(starts("2025-06")) == before
    finally:
        local.start("postgres")
    assert closings.follow(deployed, "2025-06-10")["status"] == "succeeded"
    assert len(starts("2025-06")) == before + 1


def wait_for_failure(cfg: dict, date: str, message: str) -> None:
    """Wait until Restate reports an error of a date's close that it retries."""
    deadline = time.monotonic() + 60
    while True:
        close_call = closings.invocation_of(cfg, "ClosingPeriod", date[:7], "close")
        if close_call and message in (close_call["last_failure"] or ""):
            return
        assert time.monotonic() < deadline, close_call
        time.sleep(0.3)
