"""What a caller may ask of DailyClosing: checked here, and by `inv close` before it sends anything."""

from __future__ import annotations

import re
from datetime import date

FLAGS = ("skipGeniusClosing", "skipSyncTrialBalance", "skipFinancialMetrics")
# What `inv rerun` sends beside them: go on at the first step that has not succeeded, take over a job left behind.
RERUN_FLAGS = ("resume", "adopt")
STEPS = ("genius", "ledger", "metrics")
FIELDS = ("date", "userId", *FLAGS, *RERUN_FLAGS, "fromStep")
USER_ID = r"[A-Za-z0-9_.-]{1,30}"


def check_request(key: str, body: object, today: date) -> dict:
    """The request as ClosingPeriod takes it, with all defaults; raises ValueError that names the fault."""
    if not isinstance(body, dict):
        raise ValueError('the body must be a JSON object such as {"date": "2025-01-31"}')
    extra = sorted(set(body) - set(FIELDS))
    if extra:
        raise ValueError(f"unknown field {extra[0]!r}; known: {', '.join(FIELDS)}")
    if real_date(key) > today:
        raise ValueError(f"{key} is in the future; today is {today} in the schedule's zone")
    if body.get("date") != key:
        raise ValueError(f"the body's date {body.get('date')!r} is not the key {key!r}")
    user_id = body.get("userId", "adm")
    if not isinstance(user_id, str) or not re.fullmatch(USER_ID, user_id):
        raise ValueError(f"userId {user_id!r}: expected 1 to 30 letters, digits, '_', '.' or '-'")
    for flag in (*FLAGS, *RERUN_FLAGS):
        if not isinstance(body.get(flag, False), bool):
            raise ValueError(f"{flag} {body[flag]!r}: expected true or false")
    if body.get("fromStep") not in (None, *STEPS):
        raise ValueError(f"fromStep {body['fromStep']!r}: expected one of {', '.join(STEPS)}")
    flags = {flag: body.get(flag, False) for flag in (*FLAGS, *RERUN_FLAGS)}
    return {"date": key, "userId": user_id, **flags, "fromStep": body.get("fromStep")}


def real_date(key: str) -> date:
    """A date that exists, written YYYY-MM-DD in ASCII digits; raises ValueError."""
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", key):
            raise ValueError(key)
        return date.fromisoformat(key)
    except ValueError:
        raise ValueError(f"{key!r} is not a date; expected one that exists, as YYYY-MM-DD") from None
