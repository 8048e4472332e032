"""The procedures that PL/SQL may call: by name, with their parameters, as the packages of Oracle declare them."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from .closing import get_master_data
from .model import OracleError

REQUIRED = object()
SLEEP_STEP = 0.05


class Parameter(NamedTuple):
    """One parameter; out: it is an OUT parameter."""

    name: str
    type: str = "VARCHAR2"
    default: object = REQUIRED
    out: bool = False


class Procedure(NamedTuple):
    """One procedure. call(run, values by parameter name) gives the OUT values by name; where: its name in a trace."""

    name: str
    parameters: list[Parameter]
    call: Callable
    where: tuple[str, ...] = ()


def pause(run, seconds: float) -> None:
    """Sleep; a cancellation or a stopped job ends it early."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        run.check()
        run.cancel.wait(min(left, SLEEP_STEP))
    run.check()


def _sleep(run, given: dict) -> None:
    if given["SECONDS"] is None:
        raise OracleError(6502, "PL/SQL: numeric or value error")
    pause(run, float(given["SECONDS"]))


def _raise_application_error(run, given: dict) -> None:
    code = int(given["NUM"] or 0)
    if not -20999 <= code <= -20000:
        raise OracleError(21000, f"error number argument to raise_application_error of {code} is out of range")
    raise OracleError(-code, given["MSG"] or "")


def _create_job(run, given: dict) -> None:
    facts = {name.lower(): given[name] for name in _JOB_FACTS}
    facts["number_of_arguments"] = int(facts["number_of_arguments"] or 0)
    for name in ("start_date", "end_date"):
        facts[name] = facts[name].isoformat() if facts[name] else None
    run.session.commit()
    run.session.database.scheduler.create_job(run.session, given["JOB_NAME"], facts)


def _create_schedule(run, given: dict) -> None:
    run.session.commit()
    run.session.database.scheduler.create_schedule(
        run.session,
        given["SCHEDULE_NAME"],
        given["REPEAT_INTERVAL"],
        given["START_DATE"],
        given["END_DATE"],
        given["COMMENTS"],
    )


def _for_each(action: Callable) -> Callable:
    """Return a scheduler call that takes several names with commas between them, and commits."""

    def call(run, given: dict) -> None:
        run.session.commit()
        names = given.get("JOB_NAME") or given.get("NAME") or given.get("SCHEDULE_NAME") or ""
        for name in names.split(","):
            action(run.session.database.scheduler, run, name.strip(), given)

    return call


def _boolean(name: str, default: bool) -> Parameter:
    return Parameter(name, "BOOLEAN", default)


_ZONED = "TIMESTAMP WITH TIME ZONE"
_JOB_FACTS = ["JOB_TYPE", "JOB_ACTION", "NUMBER_OF_ARGUMENTS", "START_DATE", "REPEAT_INTERVAL", "END_DATE", "JOB_CLASS"]
_JOB_FACTS += ["ENABLED", "AUTO_DROP", "COMMENTS"]
_CREATE_JOB = [
    Parameter("JOB_NAME"),
    Parameter("JOB_TYPE"),
    Parameter("JOB_ACTION"),
    Parameter("NUMBER_OF_ARGUMENTS", "NUMBER", Decimal(0)),
    Parameter("START_DATE", _ZONED, None),
    Parameter("REPEAT_INTERVAL", default=None),
    Parameter("END_DATE", _ZONED, None),
    Parameter("JOB_CLASS", default="DEFAULT_JOB_CLASS"),
    _boolean("ENABLED", False),
    _boolean("AUTO_DROP", True),
    Parameter("COMMENTS", default=None),
]
_CREATE_SCHEDULE = [
    Parameter("SCHEDULE_NAME"),
    Parameter("START_DATE", _ZONED, None),
    Parameter("REPEAT_INTERVAL"),
    Parameter("END_DATE", _ZONED, None),
    Parameter("COMMENTS", default=None),
]
_MASTER_DATA = [
    *map(Parameter, ("P_YEAR", "P_MONTH_FROM", "P_MONTH_TO", "P_USER_ID")),
    Parameter("P_STATUS", out=True),
    Parameter("P_ERROR_MESSAGE", out=True),
]
_ISCHED = ('at "SYS.DBMS_ISCHED", line 124', 'at "SYS.DBMS_SCHEDULER", line 271')


def _scheduler(name: str, parameters: list[Parameter], call: Callable) -> Procedure:
    return Procedure(f"DBMS_SCHEDULER.{name}", parameters, call, _ISCHED)


_JOB, _FORCE = Parameter("JOB_NAME"), _boolean("FORCE", False)
_COMMIT_SEMANTICS = Parameter("COMMIT_SEMANTICS", default="STOP_ON_FIRST_ERROR")
_ALL = [
    Procedure("DBMS_LOCK.SLEEP", [Parameter("SECONDS", "NUMBER")], _sleep, ('at "SYS.DBMS_LOCK", line 205',)),
    Procedure(
        "RAISE_APPLICATION_ERROR",
        [Parameter("NUM", "NUMBER"), Parameter("MSG"), _boolean("KEEPERRORSTACK", False)],
        _raise_application_error,
    ),
    _scheduler("CREATE_JOB", _CREATE_JOB, _create_job),
    _scheduler("CREATE_SCHEDULE", _CREATE_SCHEDULE, _create_schedule),
    _scheduler(
        "STOP_JOB",
        [_JOB, _FORCE, _COMMIT_SEMANTICS],
        _for_each(lambda s, run, name, given: s.stop_job(run.session, name, bool(given["FORCE"]))),
    ),
    _scheduler(
        "DROP_JOB",
        [_JOB, _FORCE, _boolean("DEFER", False), _COMMIT_SEMANTICS],
        _for_each(lambda s, run, name, given: s.drop_job(run.session, name, bool(given["FORCE"]))),
    ),
    _scheduler(
        "DROP_SCHEDULE",
        [Parameter("SCHEDULE_NAME"), _FORCE],
        _for_each(lambda s, run, name, given: s.drop_schedule(run.session, name)),
    ),
    _scheduler(
        "ENABLE",
        [Parameter("NAME"), _COMMIT_SEMANTICS],
        _for_each(lambda s, run, name, given: s.enable(run.session, name)),
    ),
    _scheduler(
        "DISABLE",
        [Parameter("NAME"), _FORCE, _COMMIT_SEMANTICS],
        _for_each(lambda s, run, name, given: s.disable(run.session, name, bool(given["FORCE"]))),
    ),
    Procedure(
        "PACKAGE_RPT_AC_FI806.GET_MASTER_DATA",
        _MASTER_DATA,
        lambda run, given: get_master_data(run, given, pause),
        ('at "ACPDB.PACKAGE_RPT_AC_FI806", line 806',),
    ),
]
PROCEDURES = {procedure.name: procedure for procedure in _ALL}


def find(name: str) -> Procedure | None:
    """Return a procedure by its name in upper case, with or without its schema."""
    owner, _, rest = name.partition(".")
    return PROCEDURES.get(name) or (PROCEDURES.get(rest) if owner in ("SYS", "ACPDB") else None)
