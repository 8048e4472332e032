"""inv logs: the function's log, whole or of one closing. Version 1 of the AWS CLI has no `logs tail`."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from shlex import quote as q

from invoke import Exit

from ops import config
from ops.closings import checked_date
from ops.shell import aws
from ops.target import Target
from ops.task import NOTHING, task

FOLLOW_SECONDS = 3
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# The lines that Lambda itself writes around each invocation.
LAMBDA_LINE = re.compile(r"(START|END|REPORT|INIT_START|INIT_REPORT)\b")


def log_group(cfg) -> str:
    """Return the name that Lambda gives to the function's log group."""
    return f"/aws/lambda/{cfg['FUNCTION_NAME']}"


def describe_log_groups(cfg):
    return aws(cfg, f"logs describe-log-groups --log-group-name-prefix {q(log_group(cfg))}")


def create_log_group(cfg):
    return aws(cfg, f"logs create-log-group --log-group-name {q(log_group(cfg))}")


def put_retention_policy(cfg):
    days = q(cfg["LOG_RETENTION_DAYS"])
    return aws(cfg, f"logs put-retention-policy --log-group-name {q(log_group(cfg))} --retention-in-days {days}")


def delete_log_group(cfg):
    return aws(cfg, f"logs delete-log-group --log-group-name {q(log_group(cfg))}")


def filter_log_events(cfg, since: int, term: str) -> str:
    pattern = f" --filter-pattern {q(json.dumps(term))}" if term else ""
    return aws(cfg, f"logs filter-log-events --log-group-name {q(log_group(cfg))} --start-time {since}{pattern}")


def find_log_group(target: Target) -> dict | None:
    """Return the function's log group; AWS searches by the beginning of a name."""
    groups = target.query_json(describe_log_groups(target.cfg))["logGroups"]
    return next((one for one in groups if one["logGroupName"] == log_group(target.cfg)), None)


def ensure_retention(target: Target) -> None:
    """Create the log group and set its retention from the environment; without that Lambda keeps logs for ever."""
    days = target.cfg["LOG_RETENTION_DAYS"]
    if not days:
        return
    group = find_log_group(target)
    if not group:
        target.execute(create_log_group(target.cfg))
    if not group or str(group.get("retentionInDays", "")) != days:
        target.execute(put_retention_policy(target.cfg))


@task(
    group="watch",
    changes=NOTHING,
    uses=("aws",),
    help={
        **config.ENV_HELP,
        "follow": "go on printing new lines until Ctrl-C",
        "date": "print only the lines of this date's closings",
        "since": "how far back, such as 30m, 24h or 7d",
    },
)
def logs(c, env, follow=False, date="", since="24h"):
    """Show the function's log; with --date, only the lines of one date's closings."""
    target = Target.load(c, env)
    wanted = Closing(checked_date(date)) if date else Everything()
    begin = int((time.time() - seconds(since)) * 1000)
    with suppress(KeyboardInterrupt):
        show(target, wanted, begin, follow)


def show(target: Target, wanted: Everything | Closing, begin: int, follow: bool) -> None:
    """Print the wanted lines since begin (milliseconds), each once."""
    printed: set[tuple] = set()
    while True:
        for event in fetch(target, begin, wanted.term):
            key = (event["logStreamName"], event["timestamp"], event["message"])
            if key not in printed and wanted.includes(event["message"]):
                print(config.name_environment(line(event), target.env), flush=True)
            printed.add(key)
        if not follow:
            return
        # A line can reach CloudWatch later than a newer one of another stream.
        begin = max([begin, *(at - 60_000 for _, at, _ in printed)])
        printed = {key for key in printed if key[1] >= begin}
        time.sleep(FOLLOW_SECONDS)


def fetch(target: Target, begin: int, term: str) -> list[dict]:
    """Return the log's events since begin (milliseconds) that contain a term, in the order of time."""
    found = target.query_json(filter_log_events(target.cfg, begin, term), missing="ResourceNotFoundException")
    if found is None:
        name, env = target.cfg["FUNCTION_NAME"], target.env
        raise Exit(f"{env}: {name} has no log yet; its first event creates one, for example `inv ping --env {env}`")
    return sorted(found["events"], key=lambda event: event["timestamp"])


class Everything:
    """All lines except those that Lambda writes around each invocation."""

    term = ""

    def includes(self, message: str) -> bool:
        return not LAMBDA_LINE.match(message)


class Closing:
    """The lines of the closings of one date: only the first line of each names the date, all name the invocation."""

    def __init__(self, date: str):
        self.date, self.invocations = date, set()
        # CloudWatch filters by this term, so that a month's log is not downloaded.
        self.term = date[:7]

    def includes(self, message: str) -> bool:
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
