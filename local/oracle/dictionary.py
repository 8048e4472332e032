"""The views of Oracle's dictionary that a closing reads: the scheduler's, privileges, objects, the version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from decimal import Decimal

from . import books
from .commands import NLS_DEFAULTS
from .model import Column
from .privileges import PACKAGE
from .scheduler import now, read

BANNER = "Genius stand-in (not an Oracle database), behaves as Oracle Database 11g Release 11.2.0.4.0"
ARGUMENTS = ("P_YEAR", "P_MONTH_FROM", "P_MONTH_TO", "P_USER_ID", "P_STATUS", "P_ERROR_MESSAGE")
# Views that only a user with SELECT ANY DICTIONARY sees.
RESTRICTED = {"V$PARAMETER"}
_TIME = "TIMESTAMP WITH TIME ZONE"


def _columns(text: str) -> list[Column]:
    """Return columns from `NAME type[:size]` words: V text, N number, T time, I interval, D date."""
    kinds = {"V": "VARCHAR2", "N": "NUMBER", "T": _TIME, "I": "INTERVAL DAY TO SECOND", "D": "DATE"}
    found = []
    for part in text.split(","):
        name, kind = part.split()
        letter, _, size = kind.partition(":")
        found.append(Column(name, kinds[letter], int(size or (30 if letter == "V" else 0))))
    return found


class View:
    """One view: its columns, and its rows for a running statement."""

    def __init__(self, columns: str, rows: Callable[[object], Iterable[tuple]]):
        self.columns = _columns(columns)
        self._rows = rows

    def rows(self, run, equal: dict[int, object]) -> list[tuple]:
        """Return the rows as they are at this moment, of the session's user."""
        return list(self._rows(run))


def _flag(value: object) -> str:
    return "TRUE" if value is True or value == "TRUE" else "FALSE"


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _own(run, records: list[dict]) -> list[tuple[str, dict]]:
    """Return the records whose names the user owns, with those names."""
    mine = ((*record["name"].split(".", 1), record) for record in records)
    return [(name, record) for owner, name, record in mine if owner == run.session.user]


def _jobs(run) -> Iterable[tuple]:
    for name, job in _own(run, run.session.database.store.all("job")):
        yield (
            name,
            job["creator"],
            job["job_type"],
            job["job_action"],
            Decimal(job["number_of_arguments"] or 0),
            "ONCE" if not job["repeat_interval"] else "CALENDAR",
            read(job["start_date"]),
            job["repeat_interval"],
            read(job["end_date"]),
            job["job_class"],
            _flag(job["enabled"]),
            _flag(job["auto_drop"]),
            _flag(job["restartable"]),
            job["state"],
            Decimal(job["run_count"]),
            Decimal(job["failure_count"]),
            read(job["last_start_date"]),
            _span(job["last_run_duration"]),
            read(job["next_run_date"]),
            job["comments"],
            " ".join(f"{key}='{value}'" for key, value in job["nls"].items()),
        )


def _details(run) -> Iterable[tuple]:
    for name, detail in _own(run, run.session.database.scheduler.details()):
        yield (
            Decimal(detail["log_id"]),
            read(detail["log_date"]),
            run.session.user,
            name,
            detail["status"],
            Decimal(detail["error"]),
            read(detail["requested"]),
            read(detail["started"]),
            timedelta(seconds=round(detail["seconds"])),
            Decimal(1),
            f"{detail['session_id']},1",
            detail["info"],
        )


def _schedules(run) -> Iterable[tuple]:
    for name, record in _own(run, run.session.database.store.all("schedule")):
        start, end = read(record["start_date"]), read(record["end_date"])
        yield (name, "CALENDAR", start, record["repeat_interval"], end, record["comments"])


def _database_parameters(run) -> Iterable[tuple]:
    charset = run.session.database.faults.value("nls_characterset") or "AL32UTF8"
    yield from NLS_DEFAULTS.items()
    yield from (
        ("NLS_CHARACTERSET", charset),
        ("NLS_NCHAR_CHARACTERSET", "AL16UTF16"),
        ("NLS_RDBMS_VERSION", "11.2.0.4.0"),
    )


def _objects(run) -> list[tuple[str, str, str]]:
    made = [(owner, name, "TABLE") for owner, name in run.session.database.tables.definitions]
    package = (books.OWNER, PACKAGE, "PACKAGE")
    return [*((books.OWNER, name, "TABLE") for name in ("AC_GLJOURNAL", "AC_GLOPENBALANCE")), package, *made]


def _user_objects(run) -> Iterable[tuple]:
    return [(name, kind, "VALID") for owner, name, kind in _objects(run) if owner == run.session.user]


def _grants(run) -> list:
    return run.session.database.privileges.of(run.session.user)


def _table_grants(run) -> Iterable[tuple]:
    for grant in _grants(run):
        owner, _, name = grant.target.rpartition(".")
        if grant.target:
            yield (grant.grantor, grant.grantee, owner or grant.grantor, name, grant.privilege, "NO", "NO")


def _parameters(run) -> Iterable[tuple]:
    stopped = run.session.database.faults.value("jobs_never_start") is not None
    yield ("job_queue_processes", Decimal(3), "0" if stopped else "1000")


def _scheduler_attributes(run) -> Iterable[tuple]:
    yield from {"LOG_HISTORY": "30", **json.loads(_fault(run, "scheduler_attributes", "{}"))}.items()


def _arguments(run) -> Iterable[tuple]:
    directions = ["IN"] * 4 + ["OUT"] * 2
    listed = zip(ARGUMENTS, directions[: int(_fault(run, "procedure_arguments", "6"))], strict=False)
    for place, (name, direction) in enumerate(listed, 1):
        place = Decimal(place)
        yield (books.OWNER, "GET_MASTER_DATA", PACKAGE, None, name, place, place, Decimal(0), "VARCHAR2", direction)


def _account(run) -> Iterable[tuple]:
    days = run.session.database.faults.value("password_expires_days")
    expires = (now() + timedelta(days=float(days))).replace(tzinfo=None, microsecond=0) if days else None
    yield (run.session.user, "EXPIRED(GRACE)" if days else "OPEN", None, expires)


def _fault(run, name: str, default: str) -> str:
    return run.session.database.faults.value(name) or default


VIEWS = {
    "ALL_ARGUMENTS": View(
        "OWNER V,OBJECT_NAME V,PACKAGE_NAME V,OVERLOAD V:40,ARGUMENT_NAME V,POSITION N,SEQUENCE N,DATA_LEVEL N,"
        "DATA_TYPE V,IN_OUT V:9",
        _arguments,
    ),
    "ALL_SCHEDULER_GLOBAL_ATTRIBUTE": View("ATTRIBUTE_NAME V,VALUE V:4000", _scheduler_attributes),
    "USER_USERS": View("USERNAME V,ACCOUNT_STATUS V:32,LOCK_DATE D,EXPIRY_DATE D", _account),
    "V$PARAMETER": View("NAME V:80,TYPE N,VALUE V:4000", _parameters),
    "USER_SCHEDULER_JOBS": View(
        "JOB_NAME V,JOB_CREATOR V,JOB_TYPE V:16,JOB_ACTION V:4000,NUMBER_OF_ARGUMENTS N,SCHEDULE_TYPE V:12,"
        "START_DATE T,REPEAT_INTERVAL V:4000,END_DATE T,JOB_CLASS V,ENABLED V:5,AUTO_DROP V:5,RESTARTABLE V:5,"
        "STATE V:15,RUN_COUNT N,FAILURE_COUNT N,LAST_START_DATE T,LAST_RUN_DURATION I,"
        "NEXT_RUN_DATE T,COMMENTS V:240,NLS_ENV V:4000",
        _jobs,
    ),
    "USER_SCHEDULER_JOB_RUN_DETAILS": View(
        "LOG_ID N,LOG_DATE T,OWNER V,JOB_NAME V:65,STATUS V,ERROR# N,REQ_START_DATE T,ACTUAL_START_DATE T,"
        "RUN_DURATION I,INSTANCE_ID N,SESSION_ID V,ADDITIONAL_INFO V:4000",
        _details,
    ),
    "USER_SCHEDULER_SCHEDULES": View(
        "SCHEDULE_NAME V,SCHEDULE_TYPE V:8,START_DATE T,REPEAT_INTERVAL V:4000,END_DATE T,COMMENTS V:240", _schedules
    ),
    "NLS_DATABASE_PARAMETERS": View("PARAMETER V,VALUE V:160", _database_parameters),
    "V$VERSION": View("BANNER V:80", lambda run: [(BANNER,)]),
    "USER_OBJECTS": View("OBJECT_NAME V:128,OBJECT_TYPE V:19,STATUS V:7", _user_objects),
    "SESSION_PRIVS": View("PRIVILEGE V:40", lambda run: [(g.privilege,) for g in _grants(run) if not g.target]),
    "USER_SYS_PRIVS": View(
        "USERNAME V,PRIVILEGE V:40,ADMIN_OPTION V:3",
        lambda run: [(g.grantee, g.privilege, "NO") for g in _grants(run) if not g.target],
    ),
    "ALL_TAB_PRIVS": View(
        "GRANTOR V,GRANTEE V,TABLE_SCHEMA V,TABLE_NAME V,PRIVILEGE V:40,GRANTABLE V:3,HIERARCHY V:3", _table_grants
    ),
}
