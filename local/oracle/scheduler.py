"""DBMS_SCHEDULER in 11.2's terms: jobs and schedules of one name space, each run in a thread and session of its own.

A job is a record in the store. Whatever changes one is written before the call that changes it returns, and the end
of a run in one piece with its run detail: a process that dies leaves a job SCHEDULED, RUNNING or ended, never between.
"""

from __future__ import annotations

import re
import threading
import time
from datetime import datetime, timedelta
from itertools import count

from .model import OracleError
from .sql import Interrupted
from .store import Store

STEP = 0.02
DETAIL_GAP = 0.02
STOP_WAIT = 5.0
ACTION_BYTES = 4000
SHUTDOWN = 'REASON="ORA-01014: ORACLE shutdown in progress"'
SLAVE_DIED = 'REASON="Job slave process was terminated"'
OTHER_JOB_TYPES = ("STORED_PROCEDURE", "EXECUTABLE", "CHAIN")
_STEPS = {"SECONDLY": 1, "MINUTELY": 60, "HOURLY": 3600, "DAILY": 86_400, "WEEKLY": 604_800}


def now() -> datetime:
    """Return this moment, with the zone of the machine."""
    return datetime.now().astimezone()


def stored(value: datetime | None) -> str | None:
    """Return a time as a record keeps it."""
    return value.isoformat() if value else None


def read(value: str | None) -> datetime | None:
    """Parse a time from a record."""
    return datetime.fromisoformat(value) if value else None


class Running:
    """One run in progress: the flag that interrupts it, and how it was ended from outside, if it was."""

    def __init__(self, session_id: int, started: datetime):
        self.session_id, self.started = session_id, started
        self.cancel, self.ended = threading.Event(), threading.Event()
        self.stop_reason: str | None = None


class Scheduler:
    """The jobs and schedules of a database; `database` gives sessions, faults and privileges."""

    def __init__(self, database, store: Store):
        self.database, self.store = database, store
        self.guard = threading.RLock()
        self.running: dict[str, Running] = {}
        self.waiting: dict[str, int] = {}
        self.generations = count(1)
        self.log_ids = count(max([detail["log_id"] for detail in store.all("detail")], default=0) + 1)
        self.closed = threading.Event()

    # --- names

    def qualified(self, name: str | None, user: str) -> str:
        """Return a name as `OWNER.NAME`; ORA-27452 if it is not a name of at most 30 bytes."""
        owner, _, last = (name or "").rpartition(".")
        for part in filter(None, (owner, last)) if last else [""]:
            bare = part[1:-1] if part[:1] == part[-1:] == '"' else part
            if not re.fullmatch(r'"[^"]+"|[^\W\d][\w$#]*', part) or len(bare.encode()) > 30:
                raise OracleError(27452, f"{name or ''} is an invalid name for a database object")
        owner, last = (part[1:-1] if part[:1] == '"' else part.upper() for part in (owner, last))
        if owner and owner != user and user not in ("SYS", "SYSTEM"):
            raise OracleError(27486, "insufficient privileges")
        return f"{owner or user}.{last}"

    def _free(self, name: str) -> None:
        if self.store.get("job", name) or self.store.get("schedule", name):
            raise OracleError(27477, f"{quoted(name)} already exists")

    def job(self, name: str) -> dict:
        """Return a job's record; ORA-27475 if there is none."""
        found = self.store.get("job", name)
        if found is None:
            raise OracleError(27475, f"{quoted(name)} must be a job")
        return found

    # --- schedules

    def create_schedule(self, session, name: str, interval: str | None, start, end, comments: str | None) -> None:
        """Create a named schedule; ORA-27477 if the name is taken by a schedule or a job."""
        name = self.qualified(name, session.user)
        step(interval)
        record = {"name": name, "repeat_interval": interval, "comments": comments}
        with self.guard:
            self._free(name)
            record |= {"start_date": stored(start), "end_date": stored(end)}
            self.store.write(("schedule", name, record))

    def drop_schedule(self, session, name: str) -> None:
        """Remove a schedule; ORA-27476 if there is none."""
        name = self.qualified(name, session.user)
        with self.guard:
            if self.store.get("schedule", name) is None:
                raise OracleError(27476, f"{quoted(name)} does not exist")
            self.store.write(("schedule", name, None))

    # --- jobs

    def create_job(self, session, name: str, facts: dict) -> None:
        """Create a job as CREATE_JOB describes it in facts; an enabled one starts at its time, or at once."""
        name = self.qualified(name, session.user)
        if not self.database.privileges.has(session.user, "CREATE JOB"):
            raise OracleError(27486, "insufficient privileges")
        facts["job_type"] = (facts["job_type"] or "").upper()
        if facts["job_type"] != "PLSQL_BLOCK":
            known = facts["job_type"] in OTHER_JOB_TYPES
            text = "the stand-in runs no job of type" if known else "invalid value for attribute JOB_TYPE:"
            raise OracleError(900 if known else 27465, f"{text} {facts['job_type']}")
        if facts["number_of_arguments"]:
            raise OracleError(27457, f"argument 1 of job {quoted(name)} has no value")
        if len((facts["job_action"] or "").encode()) > ACTION_BYTES:
            raise OracleError(6502, "PL/SQL: numeric or value error: character string buffer too small")
        step(facts["repeat_interval"])
        record = {"name": name, "nls": session.nls, "creator": session.user, "state": "DISABLED", **facts, **_UNRUN}
        with self.guard:
            self._free(name)
            if facts["enabled"]:
                record |= self._scheduled(record)
            self.store.write(("job", name, record))
            self._watch(record)

    def _scheduled(self, record: dict) -> dict:
        start = read(record["start_date"]) or now()
        following = stored(max(start, now()))
        return {"state": "SCHEDULED", "enabled": True, "start_date": stored(start), "next_run_date": following}

    def enable(self, session, name: str) -> None:
        """Schedule a job; one that is enabled stays as it is."""
        name = self.qualified(name, session.user)
        with self.guard:
            record = self.job(name)
            if not record["enabled"]:
                record = {**record, **self._scheduled(record)}
                self.store.write(("job", name, record))
                self._watch(record)

    def disable(self, session, name: str, force: bool) -> None:
        """Stop scheduling a job; ORA-27478 for a running one, unless forced: then it runs on."""
        name = self.qualified(name, session.user)
        with self.guard:
            record = self.job(name)
            if name in self.running and not force:
                raise OracleError(27478, f"job {quoted(name)} is running")
            state = record["state"] if name in self.running else "DISABLED"
            self.waiting.pop(name, None)
            self.store.write(("job", name, {**record, "enabled": False, "state": state, "next_run_date": None}))

    def stop_job(self, session, name: str, force: bool) -> None:
        """Interrupt a run and wait for its end; force needs MANAGE SCHEDULER. ORA-27366 if it is not running."""
        name = self.qualified(name, session.user)
        self.job(name)
        if force and not self.database.privileges.has(session.user, "MANAGE SCHEDULER"):
            raise OracleError(27486, "insufficient privileges")
        with self.guard:
            running = self.running.get(name)
            if running is None:
                raise OracleError(27366, f"job {quoted(name)} is not running")
            running.stop_reason = f"REASON=\"Stop job called by user: '{session.user}'\""
        running.ended.wait(STOP_WAIT)

    def drop_job(self, session, name: str, force: bool) -> None:
        """Remove a job; ORA-27478 for a running one, which force stops first."""
        name = self.qualified(name, session.user)
        with self.guard:
            self.job(name)
            running = self.running.get(name)
            if running and not force:
                raise OracleError(27478, f"job {quoted(name)} is running")
        if running:
            running.stop_reason = f"REASON=\"Stop job called by user: '{session.user}'\""
            running.ended.wait(STOP_WAIT)
        with self.guard:
            self.waiting.pop(name, None)
            if self.store.get("job", name):
                self.store.write(("job", name, None))

    # --- running

    def recover(self, restart: bool) -> None:
        """Recover after a start: what ran when the process died is STOPPED, or runs again if `restart` is set."""
        for record in self.store.all("job"):
            if record["state"] == "RUNNING" and restart:
                record = {**record, **self._scheduled(record)}
                self.store.write(("job", record["name"], record))
            elif record["state"] == "RUNNING":
                running = Running(record["session_id"], read(record["last_start_date"]))
                self._end(record["name"], running, "STOPPED", None, SHUTDOWN)
            self._watch(self.store.get("job", record["name"]))

    def _watch(self, record: dict | None) -> None:
        """Wait in a thread for a scheduled job's time; a later schedule of the same job outdates the wait."""
        if record is None or record["state"] != "SCHEDULED":
            return
        generation = self.waiting[record["name"]] = next(self.generations)
        threading.Thread(target=self._await_start, args=(record["name"], generation), daemon=True).start()

    def _await_start(self, name: str, generation: int) -> None:
        while not self.closed.is_set():
            with self.guard:
                record = self.store.get("job", name)
                if record is None or self.waiting.get(name) != generation:
                    return
                due = read(record["next_run_date"]) <= now()
                if due and self.database.faults.value("jobs_never_start") is None:
                    self.waiting.pop(name)
                    running = self._begin(record)
                    break
            time.sleep(STEP)
        else:
            return
        self._supervise(record, running)

    def _begin(self, record: dict) -> Running:
        running = Running(self.database.next_session_id(), now())
        started = {"state": "RUNNING", "last_start_date": stored(running.started), "session_id": running.session_id}
        self.running[record["name"]] = running
        self.store.write(("job", record["name"], {**record, **started}))
        return running

    def _supervise(self, record: dict, running: Running) -> None:
        """Run a job in a thread of its own and watch it: for its end, for STOP_JOB, for the death of its slave."""
        outcome: list = []
        worker = threading.Thread(target=lambda: outcome.append(self._act(record, running)), daemon=True)
        if self.database.faults.take("slave_dies") is not None:
            return self._end(record["name"], running, "STOPPED", None, SLAVE_DIED)
        worker.start()
        while worker.is_alive():
            worker.join(STEP)
            if self.closed.is_set():
                running.cancel.set()
                return None
            if running.stop_reason is None and self.database.faults.take("slave_dies") is not None:
                running.stop_reason = SLAVE_DIED
            if running.stop_reason:
                running.cancel.set()
        if running.stop_reason and isinstance(outcome[0], Interrupted):
            return self._end(record["name"], running, "STOPPED", None, running.stop_reason)
        return self._end(record["name"], running, "FAILED" if outcome[0] else "SUCCEEDED", outcome[0])

    def _act(self, record: dict, running: Running) -> OracleError | None:
        """Execute a job's action as its creator, with its creator's NLS settings."""
        session = self.database.session(record["creator"], number=running.session_id)
        session.nls, session.job = record["nls"], record["name"].partition(".")[2]
        try:
            session.execute(record["job_action"] or "", [], running.cancel)
            session.commit()
            return None
        except OracleError as error:
            return error
        except Exception as error:
            return OracleError(600, f"internal error code, arguments: [{type(error).__name__}], [{error}]")
        finally:
            session.close()

    def _end(
        self, name: str, running: Running, status: str, error: OracleError | None, info: str | None = None
    ) -> None:
        if self.closed.is_set():
            return
        ended, gap = now(), float(self.database.faults.value("detail_gap_seconds") or DETAIL_GAP)
        with self.guard:
            self.running.pop(name, None)
            record = self.store.get("job", name)
            detail = {
                "log_id": next(self.log_ids),
                "name": name,
                "log_date": stored(ended + timedelta(seconds=gap)),
                "status": status,
                "error": error.code if error else 0,
                "info": (f"ORA-{error.code:05d}: {error.text}" if error else info or "")[:4000] or None,
                "requested": (record or {}).get("next_run_date") or stored(running.started),
                "started": stored(running.started),
                "seconds": (ended - running.started).total_seconds(),
                "session_id": running.session_id,
            }
            after = self._after(record, status, detail) if record else None
            dropped = after is not None and after["auto_drop"] and not after["enabled"]
            self.store.write(("detail", str(detail["log_id"]), detail), ("job", name, None if dropped else after))
            self._watch(None if dropped else after)
        running.ended.set()

    def _after(self, record: dict, status: str, detail: dict) -> dict:
        """Return a job after a run: scheduled again if it repeats, else not enabled and in the state of its run."""
        counts = {"run_count": record["run_count"] + 1, "failure_count": record["failure_count"] + (status == "FAILED")}
        record = {**record, **counts, "last_run_duration": detail["seconds"], "session_id": None}
        every = step(record["repeat_interval"])
        if every and record["enabled"] and status != "STOPPED":
            following = max(read(detail["requested"]) + every, now())
            if record["end_date"] is None or following <= read(record["end_date"]):
                return {**record, "state": "SCHEDULED", "next_run_date": stored(following)}
            return {**record, "state": "COMPLETED", "enabled": False, "next_run_date": None}
        return {**record, "state": status, "enabled": False, "next_run_date": None}

    def details(self) -> list[dict]:
        """Return the run details that can be seen by now."""
        if self.database.faults.value("log_purged") is not None:
            return []
        return [detail for detail in self.store.all("detail") if read(detail["log_date"]) <= now()]

    def close(self) -> None:
        """Leave running jobs as they are: to the next start the process has died."""
        self.closed.set()


_UNRUN = {
    "run_count": 0,
    "failure_count": 0,
    "last_start_date": None,
    "last_run_duration": None,
    "next_run_date": None,
    "session_id": None,
    "restartable": False,
}


def quoted(name: str) -> str:
    """Return `OWNER.NAME` as messages quote it."""
    return f'"{name}"'


def step(interval: str | None) -> timedelta | None:
    """Return the time between runs of a calendar string of FREQ and INTERVAL; ORA-27412 for any other."""
    if not interval:
        return None
    parts = dict(part.partition("=")[::2] for part in interval.upper().replace(" ", "").rstrip(";").split(";"))
    frequency, every = parts.pop("FREQ", ""), parts.pop("INTERVAL", "1")
    known = {**_STEPS, "MONTHLY": 30 * 86_400, "YEARLY": 365 * 86_400}
    if parts or frequency not in known or not every.isdigit() or not 1 <= int(every) <= 99:
        named = next(iter(parts), frequency or interval)
        raise OracleError(27412, f"repeat interval or calendar contains invalid identifier: {named}")
    return timedelta(seconds=known[frequency] * int(every))
