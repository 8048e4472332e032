import pytest

from handler.plan import announce, done, next_command, plan


def rows(*outcomes: str) -> list[dict]:
    """Return rows from words such as 'succeeded failed pending': genius, ledger and metrics of one run."""
    return [dict(zip(("genius", "ledger", "metrics"), one.split(), strict=True)) for one in outcomes]


@pytest.mark.parametrize(
    ("outcomes", "steps"),
    [
        ([], []),
        (["pending pending pending"], []),
        (["succeeded succeeded succeeded"], ["genius", "ledger", "metrics"]),
        (["succeeded failed pending"], ["genius"]),
        (["succeeded pending pending", "earlier succeeded pending"], ["genius", "ledger"]),
        (["succeeded succeeded pending", "earlier earlier succeeded"], ["genius", "ledger", "metrics"]),
        # A step without the one below it counts for nothing: a skipped step closes nothing.
        (["skipped succeeded succeeded"], []),
        (["succeeded skipped succeeded"], ["genius"]),
        # A later procedure makes ledger and metrics stale; a failed one leaves the balances in doubt.
        (["succeeded succeeded succeeded", "succeeded pending pending"], ["genius"]),
        (["succeeded succeeded succeeded", "failed pending pending"], []),
        (["succeeded pending pending", "unknown pending pending"], []),
        # These two have not run the procedure.
        (["succeeded pending pending", "backed-off pending pending"], ["genius"]),
        (["succeeded pending pending", "never-submitted pending pending"], ["genius"]),
        (["succeeded succeeded succeeded", "earlier succeeded pending"], ["genius", "ledger"]),
    ],
)
def test_what_is_done(outcomes, steps):
    assert done(rows(*outcomes)) == steps


def test_a_closed_date_is_refused_unless_a_person_names_a_step():
    closed = rows("succeeded succeeded succeeded")
    for resume in (False, True):
        with pytest.raises(
            ValueError, match=f"^{DATE} is closed already.*inv rerun --env ENV --date {DATE} --from genius"
        ):
            plan(DATE, closed, resume, None)
    assert plan(DATE, closed, True, "genius") == []
    assert plan(DATE, closed, True, "metrics") == ["genius", "ledger"]


def test_a_plain_request_repeats_everything_and_a_rerun_goes_on():
    half = rows("succeeded failed pending")
    assert plan(DATE, half, False, None) == []
    assert plan(DATE, half, True, None) == ["genius"]


def test_a_step_cannot_be_repeated_on_top_of_one_that_is_missing():
    with pytest.raises(ValueError, match="no ledger step that succeeded"):
        plan(DATE, rows("succeeded failed pending"), True, "metrics")


# The next command


DATE = "2025-01-31"
ENDED, RUNNING = {"status": "completed", "failure": None}, {"status": "suspended", "failure": None}
JOB = {"job": "GNS_202501_A", "ours": True, "date": DATE, "mark": "started", "state": "SUCCEEDED", "runs": []}
BLOCKED = {"date": DATE, "job": "GNS_202501_A", "message": "its outcome is unknown"}


def run_row(genius="pending", ledger="pending", metrics="pending", job="GNS_202501_A"):
    return {"genius": genius, "ledger": ledger, "metrics": metrics, "job": job, "message": ""}


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ({}, f"inv close --env E --date {DATE}"),
        ({"rows": "PostgreSQL: refused"}, "inv doctor --env E"),
        ({"jobs": "Genius: DPY-6005"}, "inv doctor --env E"),
        ({"run": RUNNING, "paused": "inv_1"}, f"inv resume --env E --date {DATE}"),
        ({"run": RUNNING, "paused": "inv_1", "newer": True}, f"inv resume --env E --date {DATE} --latest"),
        ({"run": RUNNING}, f"inv status --env E --date {DATE} --watch"),
        ({"run": RUNNING, "queuedBehind": "2025-01-30"}, "inv next --env E --date 2025-01-30"),
        ({"blocked": BLOCKED}, "inv resolve --env E --period 2025-01 --as failed"),
        ({"blocked": BLOCKED, "jobs": [{**JOB, "state": "RUNNING"}]}, f"inv next --env E --date {DATE}"),
        ({"closing": BLOCKED, "rows": [run_row()]}, f"inv rerun --env E --date {DATE} --adopt"),
        ({"jobs": [JOB], "rows": []}, f"inv rerun --env E --date {DATE} --adopt"),
        (
            {"jobs": [{**JOB, "mark": "given up"}], "rows": [run_row("never-started")]},
            f"inv rerun --env E --date {DATE}",
        ),
        ({"run": ENDED, "rows": [run_row("failed")]}, f"inv rerun --env E --date {DATE}"),
        ({"run": ENDED, "rows": [run_row("succeeded", "succeeded", "succeeded")], "jobs": [JOB]}, ""),
    ],
)
def test_each_state_of_a_date_has_one_next_command(state, command):
    assert next_command({"date": DATE, **state}, "E")["command"] == command


def test_a_closed_date_stays_closed_while_a_later_one_blocks_its_period():
    rows = [run_row("succeeded", "succeeded", "succeeded")]
    found = next_command({"date": DATE, "rows": rows, "blocked": {**BLOCKED, "date": "2025-01-30"}})
    assert found == {"command": "", "reason": f"{DATE} is closed"}


def test_the_reason_after_a_decision_names_it_and_not_the_question_that_it_answered():
    row = {**run_row("succeeded"), "message": "its outcome is unknown"}
    found = next_command({"date": DATE, "run": ENDED, "rows": [row]}, "E")["reason"]
    assert found == f"{DATE} lacks ledger, metrics: its outcome is unknown"
    row["detail"] = {"resolved": {"as": "succeeded", "who": "siti", "at": 1.0}}
    found = next_command({"date": DATE, "run": ENDED, "rows": [row]}, "E")["reason"]
    assert found == f"{DATE} lacks ledger, metrics: {row['job']} was decided as succeeded by siti"


def test_while_closings_are_held_the_hold_ends_first_and_a_running_date_goes_on():
    hold = {"who": "siti", "reason": "patch", "at": "2025-02-01T18:00:00+07:00", "until": None}
    found = next_command({"date": DATE, "hold": hold}, "E")
    assert found["command"] == "inv release --env E"
    assert found["reason"].startswith("closings are held by siti since 2025-02-01T18:00:00+07:00: patch; after its end")
    running = {"date": DATE, "hold": hold, "run": {"status": "running", "failure": None}}
    assert next_command(running, "E")["command"].startswith("inv status")
    closed = {"date": DATE, "hold": hold, "rows": [run_row("succeeded", "succeeded", "succeeded")]}
    assert next_command(closed, "E")["command"] == ""


# The announcement of a rerun


def test_taking_over_a_job_announces_the_job_of_another_date_that_is_recorded_first():
    job = {"job": "GNS_202501_B", "ours": True, "date": "2025-01-31", "mark": "started", "state": "FAILED"}
    state = {"date": "2025-01-31", "closing": {"job": "GNS_202501_A", "date": "2025-01-30"}, "jobs": [job], "rows": []}
    text = announce(state, None, True)["text"]
    assert text.startswith(
        "waits for the end of GNS_202501_A of 2025-01-30 and records it; waits for the end of GNS_202501_B"
    )


def test_a_rerun_announces_a_run_of_the_procedure():
    state = {"date": DATE, "rows": [run_row("failed")]}
    assert announce(state, None, False) == {"procedure": "run", "text": "goes on with genius: the PROCEDURE RUNS"}


def test_a_rerun_that_keeps_the_procedure_may_not_run_it():
    state = {"date": DATE, "rows": [run_row("succeeded")]}
    assert announce(state, None, False) == {"procedure": "none", "text": "keeps genius; goes on with ledger"}


def test_taking_over_a_job_never_runs_the_procedure():
    state = {"date": DATE, "closing": {"date": DATE, "job": "GNS_202501_A"}, "rows": [run_row()]}
    assert announce(state, None, True)["procedure"] == "none"
    assert announce(state, "genius", False)["procedure"] == "run"
    with pytest.raises(ValueError, match="--adopt takes it over"):
        announce(state, None, False)
    with pytest.raises(ValueError, match="leave out --from"):
        announce(state, "genius", True)


def test_a_job_of_another_date_is_recorded_and_not_taken_over():
    other = {"date": "2025-01-30", "job": "GNS_202501_B"}
    state = {"date": DATE, "closing": other, "rows": []}
    text = "waits for the end of GNS_202501_B of 2025-01-30 and records it; goes on with genius: the PROCEDURE RUNS"
    assert announce(state, None, False) == {"procedure": "run", "text": text}
    with pytest.raises(ValueError, match="left a job to take over"):
        announce(state, None, True)
