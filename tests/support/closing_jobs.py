"""Closing jobs on a stand-in that each test has for itself, through handler/genius.py and handler/job_status.py."""

from __future__ import annotations

import json
import time
from pathlib import Path

from handler import genius, job_status, oracle
from local.oracle.database import Database
from local.oracle.faults import Faults
from local.oracle.tests.in_process_server import InProcessServer

PERIOD = "2025-01"
PASSWORD = "se:cret"
BOUND = 15.0
# So many branches that one period's balances take several fetches.
SEED, BRANCHES = 806, 6


class StandIn:
    """A stand-in that keeps its port and its folder when it is restarted."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, 0
        self.faults = Faults(folder)
        self.start()

    def start(self) -> None:
        self.database = Database(
            self.folder,
            service="GENIUS",
            users={"GENIUS": PASSWORD},
            procedure_seconds=0,
            seed=SEED,
            branch_count=BRANCHES,
        )
        self.server = InProcessServer(self.database, self.port)
        self.port = self.server.port

    def stop(self) -> None:
        """Stop as a killed process does: running jobs are still RUNNING for the next one that opens the folder."""
        self.database.close()
        self.server.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def starts(self) -> list[str]:
        """Return the jobs that started the procedure, one for each start."""
        lines = map(json.loads, (self.folder / "procedure.log").read_text().splitlines())
        return [line["job"] for line in lines if line["event"] == "start"]


def submit(owner: str, period: str = PERIOD) -> str:
    return genius.submit(period, owner, f"{period}-28", "siti")["job"]


def evaluated(job: str, start_limit: float = BOUND, deadline: float = BOUND, until=lambda known: "outcome" in known):
    """Poll and evaluate as a closing does, until the answer is the wanted one."""
    known = {"since": time.time()}
    while not until(known := job_status.evaluate(known, genius.poll_job(job), start_limit, deadline)):
        assert time.time() - known["since"] < 2 * BOUND, known
        time.sleep(0.02)
    return known


def outcome(job: str, **limits: float) -> tuple[str, str]:
    known = evaluated(job, **limits)
    return known["outcome"], known["message"]


def await_state(job: str, state: str) -> None:
    evaluated(job, until=lambda known: known.get("state") == state)


def ask(sql: str, **binds: object) -> list[tuple]:
    """Run a query in a session of its own."""
    with oracle.connected() as connection, connection.cursor() as cursor:
        cursor.execute(sql, binds)
        return cursor.fetchall() if cursor.description else []


def create(job: str, action: str = "BEGIN DBMS_LOCK.SLEEP(60); END;", **arguments: str) -> None:
    """Create a job that is not ours."""
    words = "".join(f", {name} => {value}" for name, value in {"enabled": "TRUE", **arguments}.items())
    ask(f"BEGIN DBMS_SCHEDULER.CREATE_JOB(:job, 'PLSQL_BLOCK', :action{words}); END;", job=job, action=action)
