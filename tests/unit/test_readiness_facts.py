"""The facts of Genius that the readiness event reads, on a stand-in of the test's own."""

from __future__ import annotations

import pytest
from support.closing_jobs import PERIOD, ask

from handler import readiness, settings


@pytest.fixture
def facts(stand_in, owner, monkeypatch):
    """Return a function that reads the facts as in the month after PERIOD."""
    monkeypatch.setattr(readiness, "current_period", lambda back=0: PERIOD if back else "2025-02")
    return readiness.read


def test_last_periods_balances_are_counted_and_a_sample_is_timed(facts):
    (count,) = ask(
        "SELECT COUNT(*) FROM (SELECT 1 FROM acpdb.ac_glopenbalance"
        " WHERE glyear = '2025' AND glmonth = '01' GROUP BY coacode, branch)"
    )[0]
    found = facts()["balances"]["value"]
    assert (found["period"], found["count"], found["read"]) == (PERIOD, count, min(count, readiness.SAMPLE))
    assert found["count"] > 0 and 0 < found["seconds"] < 5


def test_reading_changes_nothing(facts, stand_in):
    before = (stand_in.folder / "dictionary.jsonl").read_bytes()
    facts()
    assert (stand_in.folder / "dictionary.jsonl").read_bytes() == before and stand_in.starts() == []


def test_what_cannot_be_read_is_a_fact_and_the_others_are_read(facts):
    found = facts()
    assert "ORA-00942" in found["job queue"]["unreadable"]
    assert all("value" in one for name, one in found.items() if name != "job queue")
    assert set(found) == set(readiness.FACTS)


def test_slow_genius_leaves_facts_out_and_not_all_of_them(facts, stand_in, monkeypatch):
    stand_in.faults.inject("latency_ms", "100")
    monkeypatch.setattr(readiness, "FACTS_SECONDS", 0.05)
    found = facts()
    assert "value" in found.pop("login")
    assert {one["unreadable"] for one in found.values()} == {"Genius is slow: all facts before this took 0.05 s"}


def test_no_genius_no_facts(facts, stand_in):
    stand_in.faults.inject("listener_down")
    assert facts() == {}


@pytest.mark.parametrize(
    ("offset", "moment", "period", "last"),
    [("0", "2025-03-01T00:30+07:00", "2025-03", "2025-02"), ("-1", "2025-03-01T00:30+07:00", "2025-02", "2025-01")],
)
def test_current_period_is_that_of_the_date_to_close(owner, monkeypatch, offset, moment, period, last):
    from datetime import datetime

    class Clock(datetime):
        @classmethod
        def now(cls, zone):
            return datetime.fromisoformat(moment).astimezone(zone)

    now = settings.current()
    monkeypatch.setattr(now, "closing_day_offset", int(offset))
    monkeypatch.setattr(readiness, "datetime", Clock)
    assert (readiness.current_period(), readiness.current_period(back=1)) == (period, last)
