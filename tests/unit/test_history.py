"""Durations of steps and estimates from the rows of earlier closings."""

from __future__ import annotations

import pytest
from invoke import Exit

from ops import history, logs

DATE, NEIGHBOUR = "2025-06-11", "2025-06-12"
BEGIN = history.moment("2025-06-11 10:00:00+00:00")


def row(**changed) -> dict:
    steps = dict.fromkeys(history.STEPS, "succeeded")
    detail = {"genius": {"at": BEGIN + 3600}, "ledger": {"at": BEGIN + 3660}, "metrics": {"at": BEGIN + 3661.5}}
    own = {"closing_date": DATE, "status": "succeeded", "message": "", "detail": detail}
    times = {"started_at": "2025-06-11 10:00:00+00:00", "ended_at": "2025-06-11 11:01:02+00:00"}
    return {**steps, **own, **times, **changed}


def test_durations_go_from_step_to_step():
    assert history.durations(row()) == {"genius": 3600, "ledger": 60, "metrics": 1.5, "total": 3662}
    unknown = {**dict.fromkeys(history.STEPS), "total": None}
    assert history.durations(row(detail={}, ended_at=None)) == unknown
    line = history.table([row()]).splitlines()[1]
    assert line.split()[-5:] == ["1:01:02", "1:00:00", "1:00", "1.5", "s"]


def test_an_estimate_counts_whole_closings_alone():
    own = row(closing_date=NEIGHBOUR, status="running", ended_at=None)
    rows = [own, row(), row(genius="skipped", ended_at="2025-06-11 10:00:01+00:00")]
    line = history.expectation(rows, NEIGHBOUR, BEGIN + 60)
    assert line == (
        f"{NEIGHBOUR} has run for 1:00; the last 1 whole closings took 1:01:02 (median):"
        " expect its end at about 11:01:02 UTC"
    )
    assert history.expectation(rows, NEIGHBOUR, BEGIN + 9000).endswith(": this one takes longer")
    assert history.expectation([own], NEIGHBOUR, BEGIN).endswith("no estimate")


@pytest.mark.parametrize("since", ["", "1", "0h", "h", "1w", "-1h"])
def test_a_span_that_is_none_is_refused(since):
    with pytest.raises(Exit, match="is malformed: expected"):
        logs.seconds(since)
