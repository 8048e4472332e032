"""inv logs: the function's log, whole or of one closing. The AWS CLI of version 1 has no `logs tail`."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from shlex import quote as q

from invoke import Exit

from handler.request import real_date
from ops import commands, config
from ops.shell import aws, query_json
from ops.task import NOTHING, task

FOLLOW_SECONDS = 3
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Lambda's own lines around each invocation.
FRAME = re.compile(r"(START|END|REPORT|INIT_START|INIT_REPORT)\b")


def filter_events(cfg: dict, since: int, term: str) -> str:
    pattern = f" --filter-pattern {q(json.dumps(term))}" if term else ""
    group = q(commands.log_group(cfg))
    return aws(cfg, f"logs filter-log-events --log-group-name {group} --start-time {since}{pattern}")


def find_group(c, cfg: dict) -> dict | None:
    """The function's log group; AWS looks by the beginning of a name."""
    groups = query_json(c, cfg, commands.find_log_group(cfg))["logGroups"]
    return next((one for one in groups if one["logGroupName"] == commands.log_group(cfg)), None)


@task(
    group="watch",
    changes=NOTHING,
    help={
        **config.ENV_HELP,
        "follow": "go on as it grows, until Ctrl-C",
        "date": "the lines of this date's closings alone",
        "since": "how far back, such as 30m, 24h or 7d",
    },
)
def logs(c, env, follow=False, date="", since="24h"):
    """Show the function's log, with --date that of one date's closings."""
    cfg = config.load(env)
    try:
        wanted = Closing(real_date(date).isoformat()) if date else Everything()
    except ValueError as error:
        raise Exit(str(error)) from None
    begin = int((time.time() - seconds(since)) * 1000)
    with suppress(KeyboardInterrupt):
        show(c, cfg, wanted, begin, follow)


def show(c, cfg: dict, wanted: Everything | Closing, begin: int, follow: bool) -> None:
    seen: set[tuple] = set()
    while True:
        for event in fetch(c, cfg, begin, wanted.term):
            key = (event["logStreamName"], event["timestamp"], event["message"])
            if key not in seen and wanted.takes(event["message"]):
                print(line(event), flush=True)
            seen.add(key)
        if not follow:
            return
        # A line may come to CloudWatch later than a younger one of another stream.
        begin = max([begin, *(at - 60_000 for _, at, _ in seen)])
        seen = {key for key in seen if key[1] >= begin}
        time.sleep(FOLLOW_SECONDS)


def fetch(c, cfg: dict, begin: int, term: str) -> list[dict]:
    found = query_json(c, cfg, filter_events(cfg, begin, term), missing="ResourceNotFoundException")
    if found is None:
        raise Exit(f"{cfg['FUNCTION_NAME']} has no log yet; it gets one with its first event, such as `inv ping`")
    return sorted(found["events"], key=lambda event: event["timestamp"])


class Everything:
    """All lines but Lambda's frame around each invocation."""

    term = ""

    def takes(self, message: str) -> bool:
        return not FRAME.match(message)


class Closing:
    """The lines of the closings of one date; only the first ones of each name the date, all name the invocation."""

    def __init__(self, date: str):
        self.date, self.invocations = date, set()
        # What CloudWatch filters by, so that a month's log is not carried here.
        self.term = date[:7]

    def takes(self, message: str) -> bool:
        try:
            event = json.loads(message)
        except ValueError:
            return False
        if not isinstance(event, dict):
            return False
        if event.get("date") == self.date and event.get("step") == "begin":
            self.invocations.add(event.get("invocation"))
        return event.get("invocation") in self.invocations or event.get("date") == self.date


def line(event: dict) -> str:
    at = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
    return f"{at:%Y-%m-%dT%H:%M:%SZ} {event['message'].rstrip()}"


def seconds(since: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,4})([smhd])", since)
    if not match:
        raise Exit(f"--since {since!r} is malformed: expected a number and s, m, h or d, such as 30m or 7d")
    return int(match[1]) * UNITS[match[2]]
