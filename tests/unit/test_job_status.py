import pytest

from handler.job_status import MISSES, evaluate, interval

START = {"since": 1000.0}


def seen(state=None, *runs, at=1010.0, mark=None):
    return {"at": at, "reachable": True, "state": state, "mark": mark, "runs": list(runs)}


def run(status, error=0, message="", **more):
    known = {"status": status, "error": error, "message": message, "guard": error in (20806, 20807, 20808)}
    return known | {"startedAt": "s", "endedAt": "e", "seconds": 1} | more


def poll(what, waited=START, start_limit=60, deadline=300):
    return evaluate(waited, what, start_limit, deadline)


@pytest.mark.parametrize("state", ["RUNNING", "SCHEDULED", "RETRY SCHEDULED", "CHAIN_STALLED", "REMOTE", "DISABLED"])
def test_a_live_job_is_waited_for(state):
    known = poll(seen(state))
    assert "outcome" not in known
    assert known["state"] == state


@pytest.mark.parametrize(
    ("runs", "outcome"),
    [
        ([run("SUCCEEDED")], "succeeded"),
        ([run("FAILED", 20806, "ORA-20806: out of balance")], "failed"),
        ([run("FAILED", 942, "ORA-00942")], "failed"),
        ([run("FAILED", 20807, "another runs")], "backed-off"),
        ([run("FAILED", 20807, "the procedure's own", guard=False)], "failed"),
        ([run("FAILED", 20808, "the procedure's own", guard=False)], "failed"),
        ([run("STOPPED", 1014, "shutdown")], "unknown"),
        ([run("FAILED", 20808)], "unknown"),
        ([run("STOPPED"), run("FAILED", 20808)], "unknown"),
        ([run("SUCCEEDED"), run("FAILED", 20808)], "succeeded"),
    ],
)
def test_the_run_details_decide(runs, outcome):
    assert poll(seen("FAILED", *runs))["outcome"] == outcome


def test_genius_own_message_is_kept_complete():
    message = "ORA-20806: " + "x" * 3000
    assert poll(seen("FAILED", run("FAILED", 20806, message)))["message"] == message


def test_missing_job_is_unknown_only_after_several_polls():
    known = START
    for _ in range(MISSES - 1):
        known = poll(seen(None), known)
        assert "outcome" not in known
    assert poll(seen(None), known)["outcome"] == "unknown"


def test_a_job_seen_again_starts_the_count_anew():
    known = poll(seen(None))
    known = poll(seen("RUNNING"), known)
    assert known["misses"] == 0


@pytest.mark.parametrize(
    ("state", "outcome"), [("SUCCEEDED", "succeeded"), ("FAILED", "unknown"), ("STOPPED", "unknown")]
)
def test_without_a_run_in_the_log_the_jobs_state_counts_after_several_polls(state, outcome):
    known = START
    for _ in range(MISSES):
        known = poll(seen(state), known)
    assert known["outcome"] == outcome


def test_a_state_nobody_knows_is_waited_for_up_to_the_deadline():
    known = START
    for _ in range(MISSES + 2):
        known = poll(seen("WEIRD"), known)
    assert "outcome" not in known
    assert poll(seen("WEIRD", at=1301.0), known)["outcome"] == "unknown"


def test_failed_poll_records_since_when_and_decides_nothing():
    down = {"at": 1020.0, "reachable": False, "error": "ORA-12541"}
    known = poll(down)
    assert known["unreachableSince"] == 1020.0
    assert known["error"] == "ORA-12541"
    assert poll({**down, "at": 1020.9}, known)["unreachableSince"] == 1020.0
    assert "outcome" not in known
    again = poll(seen("RUNNING"), known)
    assert "unreachableSince" not in again
    assert "error" not in again


def test_a_job_that_was_given_up_never_started():
    assert poll(seen("DISABLED", mark="given up"))["outcome"] == "never-started"
    assert poll(seen("FAILED", run("FAILED", 20808), mark="given up"))["outcome"] == "never-started"


def test_silence_ends_at_the_deadline_and_a_refused_poll_at_once():
    silent = {"at": 1300.0, "reachable": False, "error": "DPY-6005"}
    assert "outcome" not in poll(silent)
    assert poll({**silent, "at": 1300.1})["outcome"] == "unknown"
    assert poll({"at": 1010.0, "reachable": True, "refused": "ORA-01805"})["outcome"] == "unobserved"


def test_limits_count_from_the_submission():
    assert "overdue" not in poll(seen("SCHEDULED", at=1060.0))
    assert poll(seen("SCHEDULED", at=1060.1))["overdue"]
    assert "overdue" not in poll(seen("SCHEDULED", at=1060.1, mark="started"))
    assert evaluate(START, seen("SCHEDULED", at=1060.1), 60, 300, ours=False)["outcome"] == "unknown"
    assert "outcome" not in poll(seen("RUNNING", at=1300.0))
    assert poll(seen("RUNNING", at=1300.1))["outcome"] == "unknown"


def test_job_of_others_has_its_limits_from_the_first_poll():
    known = poll(seen("RUNNING", at=5000.0), {})
    assert "outcome" not in known
    assert poll(seen("RUNNING", at=5300.1), known)["outcome"] == "unknown"


def test_six_hours_take_few_polls():
    waited, polls = 0.0, 0
    while waited < 6 * 3600:
        waited += interval(polls, 10, 1.5, 360)
        polls += 1
    # Two Lambda invocations a poll, and some ten for the other steps: at most 170.
    assert polls <= 75
    assert interval(10**6, 10, 1.5, 360) == 360
