"""The schedule times and the dates that are due at them: plain values in, plain values out, no clock of its own.

The schedule time of a date is the first moment at which the zone's clocks show that date and the time of day, or a
later time. So a time that occurs twice, when clocks are put back, counts the first time, and a time skipped by daylight
saving runs at the transition. Each date has exactly one schedule time, and a later date never has an earlier one.

Moments are seconds since 1970, because Python compares and subtracts two datetimes of one zone by their wall clocks.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
# How many closings one schedule time starts at most: more than half a year of outage needs a person.
CAP = 7


class Covered(NamedTuple):
    """Dates, both included, that are not closed themselves because a later one of their period is."""

    first: date
    last: date
    by: date


class Due(NamedTuple):
    """dates: to be closed, oldest first; left_out: the first and the last date that the cap left out, or None."""

    dates: list[date]
    covered: list[Covered]
    left_out: tuple[date, date] | None


def moment_of(day: date, at: tuple[int, int], zone: ZoneInfo) -> float:
    """Return the moment of a date's schedule time; at: hour and minute."""
    wall = datetime.combine(day, time(*at))
    # fold 1 and 0 are the offsets after and before a clock change. If it skips the time, fold 1 is the earlier one.
    early, late = (wall.replace(tzinfo=zone, fold=fold).timestamp() for fold in (1, 0))
    while late - early > 1:
        middle = (early + late) // 2
        if datetime.fromtimestamp(middle, zone).replace(tzinfo=None) < wall:
            early = middle
        else:
            late = middle
    return late


def next_day(after: float, at: tuple[int, int], zone: ZoneInfo) -> date:
    """Return the first date whose schedule time is after a moment."""
    # A skip around midnight can move the schedule time of one date into the next.
    day = local_date(after, zone) - DAY
    while moment_of(day, at, zone) <= after:
        day += DAY
    return day


def newest_due(now: float, at: tuple[int, int], zone: ZoneInfo, offset: int) -> date:
    """Return the newest date whose schedule time has passed; offset: days from the day of that time to the date."""
    return next_day(now, at, zone) - DAY + timedelta(days=offset)


def held(hold: dict, before: date, last: date) -> dict:
    """Return the dates that a hold kept from being closed, from the one after `before`, as `heldDates` has them."""
    return {"from": f"{before + DAY}", "to": f"{last}", "who": hold["who"], "reason": hold["reason"]}


def due(done: date, newest: date, cap: int = CAP) -> Due:
    """Return which dates after `done` up to `newest` to close: the newest date of each period covers its others.

    Beyond `cap` periods the oldest ones are left out.
    """
    dates, covered, last = [], [], newest
    while last > done and len(dates) < cap:
        first = max(last.replace(day=1), done + DAY)
        dates.append(last)
        if first < last:
            covered.append(Covered(first, last - DAY, last))
        last = first - DAY
    return Due(dates[::-1], covered[::-1], (done + DAY, last) if last > done else None)


def local_date(moment: float, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(moment, zone).date()


def written(moment: float, zone: ZoneInfo) -> str:
    """Return a moment as a person of the zone reads it, to the second."""
    return datetime.fromtimestamp(int(moment), zone).isoformat()


def read(text: str) -> float:
    """Return the moment of a text that `written` made."""
    return datetime.fromisoformat(text).timestamp()
