"""Package_Rpt_Ac_Fi806.get_master_data, the closing procedure.

Each start is written to DATA/procedure.log, synced to the disk, before anything else happens, so a test can count the
starts even if something dies afterwards. The faults `procedure_seconds`, `procedure_holds`, `procedure_status`,
`procedure_message` and `procedure_error` change how long it takes and how it ends.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from .model import OracleError
from .scheduler import now

HOLD_STEP = 0.05


class ProcedureLog:
    """The append-only log of the procedure's starts and ends, one JSON object a line."""

    def __init__(self, path: Path):
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.guard = threading.Lock()

    def add(self, event: dict) -> None:
        """Append an event; it is on the disk when this returns."""
        with self.guard:
            os.write(self.file, (json.dumps({"at": now().isoformat(), **event}) + "\n").encode())
            os.fsync(self.file)

    def close(self) -> None:
        """Close the file."""
        with self.guard:
            os.close(self.file)
            self.file = -1


def get_master_data(run, given: dict, pause: Callable) -> dict:
    """Compute the closing balances of month_from..month_to; OUT status '1', or '0' or NULL with a message."""
    session, faults = run.session, run.session.database.faults
    year, first, last, user = (given[f"P_{name}"] for name in ("YEAR", "MONTH_FROM", "MONTH_TO", "USER_ID"))
    about = {"year": year, "month_from": first, "month_to": last, "user_id": user}
    about |= {"job": session.job, "session": session.number}
    session.database.procedure_log.add({"event": "start", **about})
    status = "interrupted"
    try:
        pause(run, float(faults.value("procedure_seconds") or session.database.procedure_seconds))
        while faults.value("procedure_holds") is not None:
            pause(run, HOLD_STEP)
        _injected_error(faults.value("procedure_error"))
        status, message = _outcome(session, faults, year, first, last, user)
    except OracleError as error:
        status = "interrupted" if error.code == 1013 else f"ORA-{error.code:05d}"
        raise
    finally:
        session.database.procedure_log.add({"event": "end", "status": status, **about})
    return {"P_STATUS": status, "P_ERROR_MESSAGE": message}


def _injected_error(text: str | None) -> None:
    match = re.fullmatch(r"(?:ORA-?)?\s*(\d+)\s*:?\s*(.*)", text or "", re.DOTALL)
    if match:
        raise OracleError(int(match[1]), match[2] or "injected error")


def _outcome(session, faults, year: str, first: str, last: str, user: str) -> tuple[str | None, str | None]:
    injected = faults.value("procedure_status")
    if injected is not None:
        return (None if injected.upper() in ("NULL", "") else injected), faults.value("procedure_message")
    try:
        months = range(int(first), int(last) + 1)
        periods = [f"{int(year):04d}-{month:02d}" for month in months]
    except (TypeError, ValueError):
        return "0", "year and months must be numbers"
    unknown = [period for period in periods if period not in session.database.books.periods]
    if unknown or not periods:
        return "0", f"no journal for {', '.join(unknown) or 'these months'}"
    for period in periods:
        session.database.close_period(period, user)
    return "1", None
