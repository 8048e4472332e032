"""The arithmetic of the schedule, against a scan of the clocks' minutes."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from support.helpers import COMPLETE

from handler import schedule_times
from handler.settings import SettingsError, parse

DAY = timedelta(days=1)
# Zone -> first day of four years. Sao Paulo put its clocks forward at midnight, up to 2019; Lord Howe by half an hour.
ZONES = {
    "Asia/Jakarta": date(2023, 1, 1),
    "Europe/Berlin": date(2023, 1, 1),
    "America/Sao_Paulo": date(2016, 1, 1),
    "Australia/Lord_Howe": date(2023, 1, 1),
}
TIMES = [(20, 0), (0, 0), (0, 30), (2, 0), (2, 15), (2, 30), (1, 45), (3, 0), (23, 30), (23, 59)]


def first_shown(zone: ZoneInfo, first: date, days: int) -> dict[tuple[date, tuple[int, int]], float]:
    """Return {(date, time of TIMES): the first moment at which the clocks show it or a later one}.

    Found by walking every minute of UTC, with the offset as it is at the beginning of its quarter of an hour.
    """
    minutes_of_times = {hour * 60 + minute: (hour, minute) for hour, minute in TIMES}
    shown, latest = {}, 0
    begin = (first - 2 * DAY - date(1970, 1, 1)).days * 1440
    for quarter in range(begin, begin + (days + 4) * 1440, 15):
        offset = datetime.fromtimestamp(quarter * 60, zone).utcoffset() // timedelta(minutes=1)
        last = quarter + offset + 14
        # More than 15 where the clocks have jumped, none where they have been put back.
        for wall in range(latest + 1 if latest else quarter + offset, last + 1):
            if wall % 1440 in minutes_of_times:
                minute = max(quarter, wall - offset)
                shown[date(1970, 1, 1) + wall // 1440 * DAY, minutes_of_times[wall % 1440]] = minute * 60
        latest = max(latest, last)
    return shown


def changes(zone: ZoneInfo, first: date, days: int) -> list[date]:
    """Return the dates on which the zone's offset from UTC changes."""
    noons = [datetime(d.year, d.month, d.day, 12, tzinfo=zone) for d in (first + n * DAY for n in range(-1, days + 1))]
    return [b.date() for a, b in pairwise(noons) if a.utcoffset() != b.utcoffset()]


@pytest.mark.parametrize("name", ZONES)
def test_every_day_of_four_years_is_due_when_its_clocks_first_show_the_time(name):
    first, days, zone = ZONES[name], 1461, ZoneInfo(name)
    shown = first_shown(zone, first, days)
    for at in TIMES:
        for number in range(days):
            day = first + number * DAY
            assert schedule_times.moment_of(day, at, zone) == shown[day, at], (day, at)


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("at", TIMES)
def test_chain_of_runs_has_each_date_of_four_years_once(name, at):
    first, zone = ZONES[name], ZoneInfo(name)
    moment, seen = schedule_times.moment_of(first, at, zone), [first]
    for _ in range(1460):
        day = schedule_times.next_day(moment, at, zone)
        later = schedule_times.moment_of(day, at, zone)
        assert 22 * 3600 < later - moment < 26 * 3600
        moment = later
        seen.append(day)
    assert seen == [first + n * DAY for n in range(1461)]


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("at", [(20, 0), (0, 0), (0, 30), (2, 15)])
def test_next_run_after_any_moment_is_the_first_one_that_lies_after_it(name, at):
    first, zone, chance = ZONES[name], ZoneInfo(name), random.Random(f"{name} {at}")
    days = [first + n * DAY for n in range(-2, 1464)]
    planned = [(schedule_times.moment_of(day, at, zone), day) for day in days]
    around = [chance.uniform(planned[3][0], planned[-3][0]) for _ in range(300)]
    for change in changes(zone, first, 1460):
        start = datetime(change.year, change.month, change.day, tzinfo=timezone.utc).timestamp() - 86400
        around += [start + 900 * quarter + chance.choice((-0.5, 0, 0.5)) for quarter in range(4 * 48)]
    for after in around:
        expected = next(day for moment, day in planned if moment > after)
        assert schedule_times.next_day(after, at, zone) == expected, datetime.fromtimestamp(after, zone)


def test_the_zones_of_these_tests_change_their_clocks():
    assert {name: len(changes(ZoneInfo(name), first, 1461)) for name, first in ZONES.items()} == {
        "Asia/Jakarta": 0,
        "Europe/Berlin": 8,
        "America/Sao_Paulo": 7,
        "Australia/Lord_Howe": 8,
    }


@pytest.mark.parametrize(
    ("name", "day", "at", "expected"),
    [
        ("Asia/Jakarta", "2025-01-31", (20, 0), "2025-01-31T20:00:00+07:00"),
        # Skipped: 02:00 to 03:00 in Berlin, the whole hour after midnight in Sao Paulo, half an hour on Lord Howe.
        ("Europe/Berlin", "2025-03-30", (2, 30), "2025-03-30T03:00:00+02:00"),
        ("Europe/Berlin", "2025-03-30", (3, 0), "2025-03-30T03:00:00+02:00"),
        ("Europe/Berlin", "2025-03-30", (1, 59), "2025-03-30T01:59:00+01:00"),
        ("America/Sao_Paulo", "2018-11-04", (0, 0), "2018-11-04T01:00:00-02:00"),
        ("America/Sao_Paulo", "2018-11-04", (0, 59), "2018-11-04T01:00:00-02:00"),
        ("Australia/Lord_Howe", "2025-10-05", (2, 10), "2025-10-05T02:30:00+11:00"),
        # Doubled: the first of the two.
        ("Europe/Berlin", "2025-10-26", (2, 30), "2025-10-26T02:30:00+02:00"),
        ("Europe/Berlin", "2025-10-26", (3, 0), "2025-10-26T03:00:00+01:00"),
        ("America/Sao_Paulo", "2019-02-16", (23, 30), "2019-02-16T23:30:00-02:00"),
        ("America/Sao_Paulo", "2019-02-17", (0, 0), "2019-02-17T00:00:00-03:00"),
        ("Australia/Lord_Howe", "2025-04-06", (1, 45), "2025-04-06T01:45:00+11:00"),
        # Skipped over midnight: the schedule time lies in the next date and is still that of its own.
        ("America/Scoresbysund", "2025-03-29", (23, 30), "2025-03-30T00:00:00-01:00"),
        # A date that a zone never had is due when the next one begins.
        ("Pacific/Apia", "2011-12-30", (20, 0), "2011-12-31T00:00:00+14:00"),
    ],
)
def test_skipped_and_doubled_times(name, day, at, expected):
    zone = ZoneInfo(name)
    assert schedule_times.written(schedule_times.moment_of(date.fromisoformat(day), at, zone), zone) == expected


def days(*texts: str) -> list[date]:
    return [date.fromisoformat(text) for text in texts]


def test_usual_run_closes_one_date_and_covers_none():
    assert schedule_times.due(*days("2025-01-30", "2025-01-31")) == (days("2025-01-31"), [], None)


def test_nothing_is_due_twice():
    assert schedule_times.due(*days("2025-01-31", "2025-01-31")) == ([], [], None)
    assert schedule_times.due(*days("2025-01-31", "2025-01-20")) == ([], [], None)


def test_the_newest_missed_date_of_a_period_covers_the_others():
    assert schedule_times.due(*days("2025-01-10", "2025-01-20")) == (
        days("2025-01-20"),
        [tuple(days("2025-01-11", "2025-01-19", "2025-01-20"))],
        None,
    )


def test_each_older_period_gets_its_last_missed_date():
    dates, covered, left_out = schedule_times.due(*days("2024-11-29", "2025-01-02"))
    assert dates == days("2024-11-30", "2024-12-31", "2025-01-02")
    assert covered == [
        tuple(days("2024-12-01", "2024-12-30", "2024-12-31")),
        tuple(days("2025-01-01", "2025-01-01", "2025-01-02")),
    ]
    assert left_out is None


def test_the_cap_leaves_out_the_oldest_periods():
    dates, _, left_out = schedule_times.due(*days("2024-03-15", "2025-01-02"))
    assert len(dates) == schedule_times.CAP == 7
    assert (dates[0], dates[-1]) == tuple(days("2024-07-31", "2025-01-02"))
    assert left_out == tuple(days("2024-03-16", "2024-06-30"))


def test_every_missed_date_is_closed_or_covered_or_left_out_once():
    chance = random.Random(806)
    for _ in range(500):
        done = date(2024, 1, 1) + chance.randrange(400) * DAY
        newest = done + chance.randrange(400) * DAY
        dates, covered, left_out = schedule_times.due(done, newest, cap=chance.randrange(1, 9))
        ranges = [(one, one) for one in dates] + [(one.first, one.last) for one in covered]
        ranges += [left_out] if left_out else []
        found = sorted(first + n * DAY for first, last in ranges for n in range((last - first).days + 1))
        assert found == [done + n * DAY for n in range(1, (newest - done).days + 1)]
        assert all(one.by in dates and one.by > one.last and one.by.month == one.first.month for one in covered)


@pytest.mark.parametrize("value", ["1", "-32", "-1.0", "yesterday", "", "+0", "- 1", "٠"])
def test_an_offset_that_is_none_is_refused(value):
    with pytest.raises(SettingsError, match=r"CLOSING_DAY_OFFSET .*is malformed"):
        parse({**COMPLETE, "CLOSING_DAY_OFFSET": value})
