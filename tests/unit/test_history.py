"""Durations of steps and estimates from the rows of earlier closings."""

from __future__ import annotations

import pytest
from invoke import Exit

from ops import history, logs

DATE, NEIGHBOUR = "2025-06-11", "2025-06-12"
BEGIN = history.timestamp("2025-06-11 10:00:00+00:00")


def row(**changed) -> dict:
    steps = dict.fromkeys(history.STEPS, "succeeded")
    detail = {"genius": {"at": BEGIN + 3600}, "ledger": {"at": BEGIN + 3660}, "metrics": {"at": BEGIN + 3661.5}}
    own = {"closing_date": DATE, "status": "succeeded", "message": "", "detail": detail}
    times = {"started_at": "2025-06-11 10:00:00+00:00", "ended_at": "2025-06-11 11:01:02+00:00"}
    return {**steps, **own, **times, **changed}


def test_step_lasts_from_the_end_of_the_step_before_it():
    assert history.durations(row()) == {"genius": 3600, "ledger": 60, "metrics": 1.5, "total": 3662}
    unknown = {**dict.fromkeys(history.STEPS), "total": None}
    assert history.durations(row(detail={}, ended_at=None)) == unknown
    line = history.table([row()]).splitlines()[1]
    assert line.split()[-5:] == ["1:01:02", "1:00:00", "1:00", "1.5", "s"]


def test_estimate_counts_only_complete_closings():
    own = row(closing_date=NEIGHBOUR, status="running", ended_at=None)
    rows = [own, row(), row(genius="skipped", ended_at="2025-06-11 10:00:01+00:00")]
    line = history.estimate(rows, NEIGHBOUR, BEGIN + 60)
    assert line == (
        f"{NEIGHBOUR} has run for 1:00; the last 1 complete closings took 1:01:02 (median):"
        " expect its end at about 11:01:02 UTC"
    )
    assert history.estimate(rows, NEIGHBOUR, BEGIN + 9000).endswith(": this one takes longer")
    assert history.estimate([own], NEIGHBOUR, BEGIN).endswith("no estimate")


@pytest.mark.parametrize("since", ["", "1", "0h", "h", "1w", "-1h"])
def test_malformed_since_is_refused(since):
    with pytest.raises(Exit, match="is malformed: expected"):
        logs.seconds(since)
