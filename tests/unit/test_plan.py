import pytest

from handler.plan import done, plan


def rows(*outcomes: str) -> list[dict]:
    """Rows from words such as 'succeeded failed pending': genius, ledger and metrics of one run."""
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
        with pytest.raises(ValueError, match="is closed already"):
            plan(closed, resume, None)
    assert plan(closed, True, "genius") == []
    assert plan(closed, True, "metrics") == ["genius", "ledger"]


def test_a_plain_request_repeats_everything_and_a_rerun_goes_on():
    half = rows("succeeded failed pending")
    assert plan(half, False, None) == []
    assert plan(half, True, None) == ["genius"]


def test_a_step_cannot_be_repeated_on_top_of_one_that_is_missing():
    with pytest.raises(ValueError, match="no ledger step that succeeded"):
        plan(rows("succeeded failed pending"), True, "metrics")
