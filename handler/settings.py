"""The function's environment, read once, by name.

SETTINGS is the one list of what the function reads: the tasks send exactly these keys, check them before a
deploy with the same parsers, and the table of docs/reference.md is made from it.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import SimpleNamespace
from typing import NamedTuple
from zoneinfo import ZoneInfo

# secretsmanager:NAME-or-ARN[#json-key], or ssm:/path. ops/ and secret.py read the parts.
REFERENCE = re.compile(
    r"secretsmanager:(?P<secret>arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,512}"
    r"|[A-Za-z0-9/_+=.@-]{1,512})(#[A-Za-z0-9_.-]{1,128})?|ssm:(?P<parameter>/[A-Za-z0-9_./-]{1,1010})"
)
REFERENCE_FORM = "secretsmanager:NAME-or-ARN[#json-key] or ssm:/path"


class SettingsError(Exception):
    """One or more settings are missing or malformed; the message names each and what is expected."""


class Setting(NamedTuple):
    """One key of the environment.

    parse: text -> value, raises ValueError; expected: the form in words; default: None if the
    key must be there; secret: never printed.
    """

    name: str
    parse: Callable[[str], object]
    expected: str
    about: str
    default: str | None = None
    secret: bool = False


def text(value: str) -> str:
    if not value.strip():
        raise ValueError(value)
    return value


def is_reference(value: str | None) -> bool:
    """Return whether a value names a secret in AWS; no plain value can begin like one."""
    return (value or "").lower().startswith(("secretsmanager:", "ssm:"))


def source_of(reference: str) -> str:
    """Return a reference without its JSON key: the secret or parameter to read."""
    return reference.partition("#")[0]


def text_or_reference(value: str) -> str:
    if is_reference(value) and not REFERENCE.fullmatch(value):
        raise ValueError(value)
    return text(value)


def optional(value: str) -> str | None:
    return value or None


def host(value: str) -> str:
    """Return a name or an address without brackets, port or scheme."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
        # Raises ValueError.
        ipaddress.IPv6Address(value)
    return value


def port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
        raise ValueError(value)
    return int(value)


def seconds(value: str) -> float:
    number = float(value)
    if not 0 < number < 1e9:
        raise ValueError(value)
    return number


def factor(value: str) -> float:
    number = float(value)
    if not 1 <= number <= 10:
        raise ValueError(value)
    return number


def count(value: str) -> int:
    number = int(value)
    if not 1 <= number <= 366:
        raise ValueError(value)
    return number


def identifier(value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
        raise ValueError(value)
    return value


def time_of_day(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])", value)
    if not match:
        raise ValueError(value)
    return int(match[1]), int(match[2])


def zone(value: str) -> ZoneInfo:
    try:
        return ZoneInfo(text(value))
    except (OSError, KeyError) as error:
        raise ValueError(value) from error


def day_offset(value: str) -> int:
    if not re.fullmatch(r"0|-[1-9]|-[12][0-9]|-3[01]", value):
        raise ValueError(value)
    return int(value)


def identity_keys(value: str) -> list[str]:
    if not re.fullmatch(r"(publickeyv1_[1-9A-HJ-NP-Za-km-z]{32,44}(,|$))*", value) or value.endswith(","):
        raise ValueError(value)
    return value.split(",") if value else []


def percent(value: str) -> Decimal:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", value) or Decimal(value) > 100:
        raise ValueError(value)
    return Decimal(value)


def statuses(value: str) -> tuple[str, ...]:
    """Parse values of the procedure's OUT status, with commas between them; '0' always means failure."""
    if not value:
        return ()
    listed = tuple(value.split(","))
    if "0" in listed or not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,30}", one) for one in listed):
        raise ValueError(value)
    return listed


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(value)
        return value

    return parse


SETTINGS = [
    Setting("PG_HOST", host, "a host name or an address, without brackets and port", "PostgreSQL's host"),
    Setting("PG_PORT", port, "a port from 1 to 65535", "PostgreSQL's port", "5432"),
    Setting("PG_DATABASE", text, "a database name", "the database that gets the trial balance"),
    Setting("PG_USER", text_or_reference, f"a user name, {REFERENCE_FORM}", "PostgreSQL's user"),
    Setting("PG_PASSWORD", text_or_reference, f"a password, {REFERENCE_FORM}", "PostgreSQL's password", secret=True),
    Setting(
        "PG_SCHEMA", identifier, "a lower-case schema name", "the schema of the report's tables", "financial_report"
    ),
    Setting(
        "PG_SSLMODE",
        one_of("verify-full", "disable"),
        "verify-full or disable",
        "TLS to PostgreSQL: the certificate is verified, or no TLS at all",
        "verify-full",
    ),
    Setting(
        "PG_SSLROOTCERT",
        optional,
        "a file's path, or empty",
        "the CA file that PostgreSQL's certificate is verified with, a path from env/ or an absolute one, shipped in"
        " the bundle; empty: the system's",
        "",
    ),
    Setting("ORACLE_USER", text_or_reference, f"a user name, {REFERENCE_FORM}", "Genius' user: the owner of the jobs"),
    Setting("ORACLE_PASSWORD", text_or_reference, f"a password, {REFERENCE_FORM}", "Genius' password", secret=True),
    Setting("ORACLE_CONNECT_STRING", text, "host:port/service", "the address of Genius' listener"),
    Setting(
        "ORACLE_CLIENT",
        one_of("thick", "thin"),
        "thick or thin",
        "thick: Instant Client from the layer, the only one that reaches 11.2; thin: no client library",
        "thick",
    ),
    Setting(
        "LOGIN_RETRY_SECONDS",
        seconds,
        "seconds above 0",
        "how long a step waits for another value after a refused login whose user or password is a reference",
        "300",
    ),
    Setting(
        "LEDGER_UNKNOWN_ACCOUNTS",
        one_of("report", "refuse"),
        "report or refuse",
        "balances of accounts that are not in the chart: written outside the tree and reported, or refused",
        "report",
    ),
    Setting(
        "LEDGER_UNKNOWN_LIMIT",
        percent,
        "a percentage from 0 to 100, such as 1 or 0.5",
        "the share of unknown accounts in the gross sum of all balances, in percent, above which the ledger is refused",
        "1",
    ),
    Setting(
        "LEDGER_INCONSISTENT",
        one_of("refuse", "report"),
        "refuse or report",
        "balances whose start and movement do not make their end: refused, or written and reported",
        "refuse",
    ),
    Setting(
        "GENIUS_SUCCESS_STATUS",
        statuses,
        "values with commas, not 0, or empty",
        "the statuses by which the closing procedure reports success; empty: all but 0 and NULL",
        "",
    ),
    Setting(
        "DAILY_CLOSING_SCHEDULE_TIME",
        time_of_day,
        "a time of day as HH:MM",
        "when the scheduler starts the day's closing, in the schedule's zone",
        "20:00",
    ),
    Setting(
        "SCHEDULE_ZONE",
        zone,
        "an IANA time zone",
        "the time zone of the schedule time and of all dates",
        "Asia/Jakarta",
    ),
    Setting(
        "CLOSING_DAY_OFFSET",
        day_offset,
        "a whole number of days from -31 to 0",
        "the date that the scheduled closing closes: 0 the date of its schedule time, -1 the day before",
        "0",
    ),
    Setting(
        "CLOSING_LATE_AFTER",
        seconds,
        "seconds above 0",
        "how many seconds after its schedule time a date that is not closed is reported as late",
        "36000",
    ),
    Setting(
        "STEP_STUCK_AFTER",
        seconds,
        "seconds above 0",
        "how many seconds a step of a closing fails, or Genius does not answer, before it is reported as stuck",
        "300",
    ),
    Setting(
        "POLL_INITIAL_SECONDS", seconds, "seconds above 0", "how long the first wait for the closing job lasts", "10"
    ),
    Setting("POLL_FACTOR", factor, "a number from 1 to 10", "the factor from each wait to the next", "2"),
    Setting("POLL_CAP_SECONDS", seconds, "seconds above 0", "the longest wait between two polls of the job", "360"),
    Setting(
        "START_LIMIT_SECONDS",
        seconds,
        "seconds above 0",
        "how long a job may wait for its start before it is given up",
        "1800",
    ),
    Setting(
        "DEADLINE_SECONDS",
        seconds,
        "seconds above 0",
        "how long a job may take before a person is asked",
        "36000",
    ),
    Setting(
        "ABORT_TIMEOUT_SECONDS",
        seconds,
        "seconds above 0",
        "when Restate gives up on one invocation; must exceed the function's timeout of 900 s",
        "1020",
    ),
    Setting(
        "RETRY_ATTEMPTS",
        count,
        "whole number from 1 to 366",
        "how often Restate tries a closing that meets an error in the function's own code, or a function that does not"
        " answer, before it pauses the closing for a person",
        "10",
    ),
    Setting(
        "RETRY_CAP_SECONDS", seconds, "seconds above 0", "the longest time between two tries of a failing step", "60"
    ),
    Setting(
        "RETENTION_DAYS",
        count,
        "whole days from 1 to 366",
        "how long Restate remembers a finished closing and its journal",
        "90",
    ),
    Setting(
        "FUNCTION_URL",
        one_of("on", "off"),
        "on or off",
        "whether Restate calls the function by a URL that everybody can call, and not by its version's ARN",
        "off",
    ),
    Setting(
        "RESTATE_IDENTITY_KEYS",
        identity_keys,
        "publickeyv1_… with commas, or empty",
        "the public keys of the Restate servers whose signed calls are answered; empty: signatures are not checked",
        "",
    ),
]


def conflicts(values: Mapping[str, str | None]) -> list[str]:
    """Return the faults of settings that are well-formed one by one and exclude each other."""
    if values["FUNCTION_URL"] == "on" and not values["RESTATE_IDENTITY_KEYS"]:
        return ["FUNCTION_URL=on without RESTATE_IDENTITY_KEYS would let everybody call the function"]
    return []


def parse(environ: Mapping[str, str]) -> SimpleNamespace:
    """Return the settings as attributes in lower case; raises SettingsError that names every fault at once."""
    values, faults = {}, []
    for setting in SETTINGS:
        given = environ.get(setting.name, setting.default)
        if given is None:
            faults.append(f"{setting.name} is missing: expected {setting.expected}")
            continue
        try:
            values[setting.name.lower()] = setting.parse(given)
        except ValueError:
            detail = "" if setting.secret else f" {given!r}"
            faults.append(f"{setting.name}{detail} is malformed: expected {setting.expected}")
    faults += conflicts({setting.name: environ.get(setting.name, setting.default) for setting in SETTINGS})
    if faults:
        raise SettingsError("; ".join(faults))
    return SimpleNamespace(**values)


@functools.lru_cache(maxsize=1)
def current() -> SimpleNamespace:
    """Return the settings of this process, read at the first call."""
    return parse(os.environ)
