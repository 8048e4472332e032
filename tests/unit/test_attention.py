"""Closings that need a person: one line for each cause, with the next command."""

from __future__ import annotations

from datetime import datetime, timezone

from ops import attention
from ops.restate import first_line

NOW = datetime(2025, 1, 31, 20, tzinfo=timezone.utc).timestamp()
RUN = {"id": "inv_1", "target": "DailyClosing/2025-01-31/run", "service": "DailyClosing", "key": "2025-01-31"}
RUN |= {"status": "suspended", "created_at": "2025-01-31T13:00:00.000Z"}
CLOSE = {"id": "inv_2", "target": "ClosingPeriod/2025-01/close", "service": "ClosingPeriod", "key": "2025-01"}
CLOSE |= {"status": "suspended", "caller": "inv_1", "created_at": "2025-01-31T13:00:01.000Z"}
BLOCK = {"2025-01": {"date": "2025-01-31", "job": "GNS_X", "message": "STOPPED\nby a person"}}


def lines(*rows: dict, blocked: dict | None = None, failed: dict | None = None, late_after: float = 36000) -> list[str]:
    return attention.evaluate(list(rows), blocked or {}, failed or {}, late_after, NOW, "prod")


def test_a_closing_that_runs_needs_nobody():
    assert lines(RUN, CLOSE) == []
    assert lines(RUN, {**CLOSE, "status": "backing-off", "retry_count": 3, "last_failure": "ORA-12541"}) == []


def test_a_paused_close_is_resumed_by_the_date_of_the_run_that_called_it():
    paused = {
        **CLOSE,
        "status": "paused",
        "last_failure": "[500] KeyError: 'lost'\n  Traceback (most recent call last):\n",
    }
    (line,) = lines(RUN, paused, late_after=60)
    assert line == (
        "ClosingPeriod/2025-01/close is paused: [500] KeyError: 'lost'; next: fix the cause,"
        " then inv next --env prod --date 2025-01-31"
    )


def test_a_paused_call_of_the_scheduler_is_resumed_by_its_id():
    row = {"id": "inv_9", "target": "DailyClosingScheduler/main/trigger", "service": "DailyClosingScheduler"}
    row |= {"key": "main", "status": "paused", "created_at": "2025-01-31T13:00:00Z", "resume": "curl -X PATCH …/inv_9"}
    (line,) = lines(row)
    assert line.endswith("then curl -X PATCH …/inv_9")


def test_each_cause_is_one_line_with_its_command():
    assert lines(RUN, late_after=3600 * 6) == [
        "2025-01-31 is late: not closed after 7.0 h; next: inv next --env prod --date 2025-01-31"
    ]
    (blocked,) = lines(RUN, blocked=BLOCK, failed={"2025-01-31": "[423] blocked"}, late_after=60)
    assert blocked.startswith("2025-01 is blocked by GNS_X: STOPPED by a person; next: inv next --env prod --date")
    (failing,) = lines(
        RUN, {**CLOSE, "status": "backing-off", "retry_count": 12, "last_failure": "refused"}, late_after=60
    )
    assert failing == "ClosingPeriod/2025-01/close has failed 12 times: refused; next: inv doctor --env prod"
    (failed,) = lines(failed={"2025-01-30": "[500] ORA-20806: no"})
    assert failed == "2025-01-30 failed: [500] ORA-20806: no; next: inv next --env prod --date 2025-01-30"


def test_failure_is_its_first_line_and_bounded():
    assert first_line("a\n b\nTraceback (most recent call last):\n File x") == "a b"
    assert len(first_line("x" * 900)) == 300
