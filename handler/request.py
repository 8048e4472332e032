"""The one place that checks a request: the key and the body of every handler, here and in `inv` before it sends one.

Each check takes plain values, returns the request with all defaults and raises ValueError with one line otherwise.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime

# Of the requests between the services. A newer minor version only adds fields; a newer major one means something else.
PROTOCOL = (1, 1)
LARGEST_BODY = 4096
EXCERPT_LENGTH = 60

FLAGS = ("skipGeniusClosing", "skipSyncTrialBalance", "skipFinancialMetrics")
# `inv rerun` also sends: go on at the first step that has not succeeded; take over the job of a killed closing.
RERUN_FLAGS = ("resume", "adopt")
# Close a date although closings are held.
DESPITE_HOLD = "despiteHold"
STEPS = ("genius", "ledger", "metrics")
OUTCOMES = ("succeeded", "failed")
FIELDS = ("protocol", "date", "userId", *FLAGS, *RERUN_FLAGS, DESPITE_HOLD, "fromStep", "procedure")
USER_ID = r"[A-Za-z0-9_.-]{1,30}"
PERIOD = r"[0-9]{4}-(0[1-9]|1[0-2])"
MAIN = "main"
# No closing is older than Genius; an earlier year is a typing error.
FIRST_DAY = date(2000, 1, 1)


def protocol() -> str:
    """Return the protocol version that a request of this code carries."""
    return ".".join(map(str, PROTOCOL))


def decode(body: bytes) -> object:
    """Return a body's JSON value, None for an empty one."""
    if len(body) > LARGEST_BODY:
        raise ValueError(f"the body has {len(body)} bytes; at most {LARGEST_BODY} are accepted")
    if not body:
        return None
    try:
        return json.loads(body.decode(), parse_constant=refuse_constant, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from None


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def unique(pairs: list[tuple[str, object]]) -> dict:
    """Return an object whose names all differ: of two values with one name, two readers could use different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


def excerpt(value: object) -> str:
    """Return a value as a short text for a message."""
    text = repr(value)
    return text if len(text) <= EXCERPT_LENGTH else f"{text[:EXCERPT_LENGTH]}…"


def checked_fields(body: object, known: tuple[str, ...], example: str) -> dict:
    """Return a body that is an object of known fields; those that a newer minor version added are dropped."""
    if not isinstance(body, dict):
        raise ValueError(f"the body must be a JSON object such as {example}")
    major, minor = checked_protocol(body.get("protocol", protocol()))
    extra = sorted(set(body) - set(known))
    if extra and (major, minor) <= PROTOCOL:
        raise ValueError(f"unknown field {excerpt(extra[0])}; known: {', '.join(known)}")
    return {name: body[name] for name in known if name in body}


def checked_protocol(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,2})\.([0-9]{1,3})", value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"protocol {excerpt(value)}: expected a version such as {protocol()!r}")
    major, minor = int(match[1]), int(match[2])
    if major > PROTOCOL[0]:
        raise ValueError(
            f"protocol {value} is newer than {protocol()}, which this version understands; deploy the newer version"
        )
    return major, minor


def check_request(key: str, body: object, today: date) -> dict:
    """Check DailyClosing/run; returns the closing of the date that is the key, as ClosingPeriod/close takes it."""
    given = closing_fields(body)
    day = real_date(key)
    if given.get("date") != key:
        raise ValueError(f"the body's date {excerpt(given.get('date'))} is not the key {key!r}")
    return checked_closing(given, day, today)


def check_close(key: str, body: object, today: date) -> dict:
    """Check ClosingPeriod/close; returns the closing of a date of the period that is the key."""
    given = closing_fields(body)
    return checked_closing(given, date_within(key, given.get("date")), today)


def closing_fields(body: object) -> dict:
    return checked_fields(body, FIELDS, '{"date": "2025-01-31"}')


def checked_closing(given: dict, day: date, today: date) -> dict:
    refuse_future(day, today)
    user_id = given.get("userId", "adm")
    if not isinstance(user_id, str) or not re.fullmatch(USER_ID, user_id):
        raise ValueError(f"userId {excerpt(user_id)}: expected 1 to 30 letters, digits, '_', '.' or '-'")
    for flag in (*FLAGS, *RERUN_FLAGS, DESPITE_HOLD):
        if not isinstance(given.get(flag, False), bool):
            raise ValueError(f"{flag} {excerpt(given[flag])}: expected true or false")
    if given.get("fromStep") not in (None, *STEPS):
        raise ValueError(f"fromStep {excerpt(given['fromStep'])}: expected one of {', '.join(STEPS)}")
    if given.get("procedure") not in (None, "run", "none"):
        raise ValueError(f"procedure {excerpt(given['procedure'])}: expected run or none")
    flags = {flag: given.get(flag, False) for flag in (*FLAGS, *RERUN_FLAGS, DESPITE_HOLD)}
    # The effect that the operator confirmed. A caller that does not know the field confirms the effect of its flags.
    repeats = not flags["adopt"] and given.get("fromStep") in (None, "genius")
    procedure = given.get("procedure") or ("run" if repeats else "none")
    fixed = {"protocol": protocol(), "date": day.isoformat(), "userId": user_id}
    return {**fixed, **flags, "fromStep": given.get("fromStep"), "procedure": procedure}


def check_inspect(key: str, body: object, today: date) -> dict:
    """Check ClosingPeriod/inspect; returns {"date"}, a date of the period."""
    given = checked_fields(body, ("protocol", "date"), '{"date": "2025-01-31"}')
    day = date_within(key, given.get("date"))
    refuse_future(day, today)
    return {"date": day.isoformat()}


def check_resolve(key: str, body: object) -> dict:
    """Check ClosingPeriod/resolve; returns {"job", "as", "who"}, a person's decision on a job."""
    check_period(key)
    example = '{"job": "GNS_202501_…", "as": "failed", "who": "siti"}'
    given = checked_fields(body, ("protocol", "job", "as", "who"), example)
    refuse_unprintable(given, job=128, who=64)
    if given.get("as") not in OUTCOMES:
        raise ValueError(f"as {excerpt(given.get('as'))}: expected one of {', '.join(OUTCOMES)}")
    return {name: given[name] for name in ("job", "as", "who")}


def check_trigger(key: str, body: object) -> int | None:
    """Check DailyClosingScheduler/trigger; returns the generation of a scheduled call, None for a person's call."""
    check_main(key)
    try:
        given = {} if body is None else checked_fields(body, ("protocol", "generation"), "{}")
        generation = given.get("generation")
        if "generation" in given and (type(generation) is not int or not 0 <= generation < 2**53):
            raise ValueError(f"generation {excerpt(generation)}: expected a whole number")
    except ValueError as error:
        raise ValueError(f"{error}; to close another date than today's: `inv close --env ENV --date DATE`") from None
    return generation


def check_hold(key: str, body: object) -> dict:
    """Check DailyClosingScheduler/hold; returns {"who", "reason", "until"}.

    until: ISO 8601, in the schedule's zone if it names none.
    """
    check_main(key)
    given = checked_fields(
        body, ("protocol", "who", "reason", "until"), '{"who": "siti", "reason": "Oracle patch", "until": null}'
    )
    refuse_unprintable(given, who=64, reason=200)
    until = given.get("until")
    try:
        moment = None if until is None else datetime.fromisoformat(until)
    except (TypeError, ValueError):
        raise ValueError(f"until {excerpt(until)}: expected a time such as '2025-02-01T06:00'") from None
    return {"who": given["who"], "reason": given["reason"], "until": moment}


def check_release(key: str, body: object) -> str:
    """Check DailyClosingScheduler/release; returns who ends the hold."""
    check_main(key)
    given = checked_fields(body, ("protocol", "who"), '{"who": "siti"}')
    refuse_unprintable(given, who=64)
    return given["who"]


def refuse_unprintable(given: dict, **limits: int) -> None:
    """Raise ValueError for a text of a request that is missing, too long or not printable."""
    for name, limit in limits.items():
        value = given.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= limit or not value.isprintable():
            raise ValueError(f"{name} {excerpt(value)}: expected 1 to {limit} printable characters")


def check_late(key: str, body: object) -> str:
    """Check DailyClosingScheduler/check_closed; returns the date of the schedule that must be closed by now."""
    check_main(key)
    return real_date(checked_fields(body, ("protocol", "date"), '{"date": "2025-01-31"}').get("date")).isoformat()


def check_main(key: str) -> None:
    """Refuse another key than `main`: it would be another chain that closes every date again."""
    if key != MAIN:
        raise ValueError(f"the scheduler's key is {MAIN!r}, not {excerpt(key)}; call DailyClosingScheduler/{MAIN}")


def check_period(key: str) -> None:
    if not isinstance(key, str) or not re.fullmatch(PERIOD, key) or int(key[:4]) < FIRST_DAY.year:
        raise ValueError(f"{excerpt(key)} is not a period; expected one from {FIRST_DAY:%Y-%m} on, as YYYY-MM")


def date_within(period: str, value: object) -> date:
    check_period(period)
    day = real_date(value)
    if day.isoformat()[:7] != period:
        raise ValueError(f"the date {value} is not in the period {period}")
    return day


def refuse_future(day: date, today: date) -> None:
    if day > today:
        raise ValueError(f"{day} is in the future; today is {today} in the schedule's zone")


def real_date(value: object) -> date:
    """Return a date that exists, written YYYY-MM-DD in ASCII digits."""
    try:
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise ValueError(value)
        day = date.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{excerpt(value)} is not a date; expected one that exists, as YYYY-MM-DD") from None
    if day < FIRST_DAY:
        raise ValueError(f"{value} is before {FIRST_DAY}, the first date that can be closed")
    return day
