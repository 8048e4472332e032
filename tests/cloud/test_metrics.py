"""The metrics step: whole, for the trial balance of this run, or refused with reasons that survive."""

from __future__ import annotations

import pytest
from support.rollup_helpers import PERIOD, SCHEMA, balanced, begin, reading, set_branches, set_chart

from handler import ledger, postgres, runs
from handler.errors import Refused

FUNCTION = f"{SCHEMA}.calculate_financial_metrics(run uuid, y int, m int)"
ROWS = balanced([("1101", "001", 500, 0, 300, 100, 700, 0)])


@pytest.fixture
def session(own_schema, admin):
    source = admin.run(
        f"SELECT pg_get_functiondef('{SCHEMA}.calculate_financial_metrics(uuid, int, int)'::regprocedure)"
    )
    with postgres.connected() as opened:
        opened.run("TRUNCATE closing_runs, closing_findings, closing_decisions, calculation_runs")
        set_chart(opened, {"11": None, "1101": "11", "9": None})
        set_branches(opened, ["000", "001"])
        begin(opened, "owner")
        ledger.replace_trial_balance("owner", PERIOD, reading(ROWS))
        yield opened
    admin.run(source[0][0])


def calculate(admin, values: str, before: str = "") -> None:
    """Make the report's function leave a row (status, completed, total, errors, warnings, metadata)."""
    admin.run(
        f"CREATE OR REPLACE FUNCTION {FUNCTION} RETURNS text LANGUAGE plpgsql AS $f$ BEGIN"
        f" INSERT INTO {SCHEMA}.calculation_runs (id, status, completed_steps, total_steps, error_count, warning_count,"
        f" metadata) VALUES (run, {values}); {before} RETURN 'done'; END $f$"
    )


def recorded(session, owner: str = "owner") -> tuple[str, dict]:
    ((outcome, detail),) = session.run(
        "SELECT metrics, detail -> 'metrics' FROM closing_runs WHERE id = CAST(:id AS uuid)", id=runs.run_id(owner)
    )
    return outcome, detail


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("'running', 1, 3, 0, 0, '{}'", "ended as running with 1 of 3 steps, 0 errors and 0 warnings"),
        ("'completed', 2, 3, 0, 7, '{}'", "ended as completed with 2 of 3 steps, 0 errors and 7 warnings"),
        ("'completed', 3, 3, 2, 0, '{}'", "ended as completed with 3 of 3 steps, 2 errors and 0 warnings"),
        ("'failed', 3, 3, 0, 0, '{}'", "ended as failed with 3 of 3 steps"),
    ],
)
def test_metrics_that_did_not_complete_are_refused_and_their_reasons_kept(session, admin, left, message):
    metadata = '{"warnings": ["total_assets is 4711.25"]}'
    calculate(admin, left.replace("'{}'", f"'{metadata}'"))
    with pytest.raises(Refused, match=message) as refused:
        ledger.compute_metrics("owner", PERIOD)
    assert "4711" not in str(refused.value)
    # The changes of the function are rolled back; the run that the message names is in closing_runs, with the reasons.
    assert session.run("SELECT count(*) FROM calculation_runs") == [[0]]
    assert runs.run_id("owner") in str(refused.value)
    outcome, detail = recorded(session)
    assert outcome == "failed"
    assert message in detail["findings"][0]["text"]
    assert detail["warnings"] == int(left.split(", ")[4])
    kept = session.run("SELECT kind, amounts #>> '{warnings,0}' FROM closing_findings WHERE step = 'metrics'")
    assert kept == [["metrics-failed", "total_assets is 4711.25"]]


def test_a_function_that_raises_is_refused_at_once_and_its_reason_kept(session, admin):
    calculate(admin, "'running', 1, 3, 0, 0, '{}'", "RAISE EXCEPTION 'no rate for USD' USING DETAIL = 'row (4711.25)';")
    with pytest.raises(Refused, match="no rate for USD") as refused:
        ledger.compute_metrics("owner", PERIOD)
    assert "4711" not in str(refused.value)
    outcome, detail = recorded(session)
    assert (outcome, detail["findings"][0]["kind"]) == ("failed", "metrics-failed")
    assert "no rate for USD" in detail["findings"][0]["text"]


def test_an_amount_that_a_message_of_postgresql_quotes_is_left_out(session, admin):
    calculate(admin, "'running', 1, 3, 0, 0, '{}'", "PERFORM CAST('4711.25 IDR' AS numeric);")
    with pytest.raises(Refused, match='invalid input syntax for type numeric: "…"'):
        ledger.compute_metrics("owner", PERIOD)


def test_warnings_are_findings(session, admin, capsys):
    calculate(admin, "'completed', 3, 3, 0, 7, '{\"warnings\": [\"a\"]}'")
    found = ledger.compute_metrics("owner", PERIOD)
    assert (found["status"], found["warnings"]) == ("completed", 7)
    (finding,) = found["findings"]
    assert finding["kind"] == "metrics-warning" and finding["text"].startswith("7 warnings of the metrics run; ")
    assert recorded(session)[1]["findings"] == [finding]
    assert '"event": "metrics_findings"' in capsys.readouterr().err
    assert "metadata" not in found


def test_metrics_need_the_ledger_of_their_run(session):
    """A copy of the database without its last seconds: the ledger of the run's row is pending."""
    session.run("UPDATE closing_runs SET ledger = 'pending', ledger_at = NULL")
    with pytest.raises(Refused, match=r"the ledger step of run .* is pending and the trial balance is of no recorded"):
        ledger.compute_metrics("owner", PERIOD)
    assert session.run("SELECT count(*) FROM calculation_runs") == [[0]]


def test_metrics_are_not_computed_of_another_runs_trial_balance(session):
    session.run("UPDATE closing_runs SET closing_date = '2025-01-30'")
    begin(session, "later")
    ledger.replace_trial_balance("later", PERIOD, reading(ROWS))
    with pytest.raises(
        Refused, match=r"that of the closing of 2025-01-31, run .*rerun --env ENV --date 2025-01-30 --from"
    ):
        ledger.compute_metrics("owner", PERIOD)
    ledger.compute_metrics("later", PERIOD)
    begin(session, "again")
    session.run("UPDATE closing_runs SET ledger = 'reused' WHERE owner = 'again'")
    ledger.compute_metrics("again", PERIOD)
    session.run("UPDATE closing_runs SET closing_date = '2025-01-29' WHERE owner = 'again'")
    with pytest.raises(
        Refused, match=r"the ledger step of run .* is reused and the trial balance is that of the closing"
    ):
        ledger.compute_metrics("again", PERIOD)


def test_a_run_that_the_log_does_not_have_computes_nothing(session):
    with pytest.raises(Refused, match="closing_runs has no row"):
        ledger.compute_metrics("nobody", PERIOD)


def test_the_reports_function_finds_what_is_in_public(session, admin):
    admin.run("CREATE FUNCTION public.of_the_report() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    try:
        calculate(admin, "'completed', of_the_report(), 1, 0, 0, '{}'")
        assert ledger.compute_metrics("owner", PERIOD)["completedSteps"] == 1
    finally:
        admin.run("DROP FUNCTION public.of_the_report()")
