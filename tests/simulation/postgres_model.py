"""A small model of PostgreSQL: closing_runs, decisions and the trial balance, and failovers that lose commits.

It replaces the functions of handler/runs.py and handler/ledger.py, with the same arguments, results and errors.
"""

from __future__ import annotations

import pickle
from datetime import datetime

from handler import plan
from handler.errors import Refused, Unavailable


class Postgres:
    def __init__(self, world):
        self.world = world
        # One dict for each table; a commit replaces nothing else.
        self.tables = {"runs": {}, "decisions": {}, "books": {}, "metrics": {}}
        self.history: list[tuple[float, bytes]] = []
        self.keeps_history = False
        self.down_until = -1.0
        self.lost_commits = False

    @property
    def rows(self) -> dict[str, dict]:
        """Return closing_runs by owner, in the order of their start."""
        return self.tables["runs"]

    def connect(self) -> None:
        if self.world.now < self.down_until:
            raise Unavailable("PostgreSQL at pg:5432: connection refused")
        version = self.world.version
        if self.world.pg_passwords[version] != self.world.pg_password:
            raise self.world.login_refused("PostgreSQL at pg:5432: password authentication failed for user finance")

    def commit(self) -> None:
        if self.keeps_history:
            self.history.append((self.world.now, pickle.dumps(self.tables)))

    def fail_over(self, seconds: float) -> None:
        """Go on with a copy that lacks the commits of the last seconds."""
        self.lost_commits = True
        limit = self.world.now - seconds
        kept = [tables for moment, tables in self.history if moment <= limit]
        self.tables = pickle.loads(kept[-1]) if kept else {name: {} for name in self.tables}
        self.history = [one for one in self.history if one[0] <= limit]

    # The functions of handler/runs.py

    def begin(self, owner: str, date: str, user_id: str, job: str | None) -> dict:
        self.connect()
        self.world.check_hold()
        for row in self.rows.values():
            if row["period"] == date[:7] and row["status"] == "running" and row["owner"] != owner:
                row["status"], row["message"] = "cancelled", "killed before its end"
        self.insert(owner, date, user_id, job)
        self.commit()
        return {"run": f"run of {owner}", "at": self.world.now}

    def insert(self, owner: str, date: str, user_id: str, job: str | None, begun: str | None = None) -> None:
        at = datetime.fromisoformat(begun).timestamp() if begun else self.world.now
        empty = {"genius": "pending", "ledger": "pending", "metrics": "pending", "message": "", "detail": {}}
        made = {"owner": owner, "date": date, "period": date[:7], "user_id": user_id, "job": job, "status": "running"}
        self.rows.setdefault(owner, {**made, **empty, "logged": False, "at": at})

    def row(self, owner: str) -> dict:
        if owner not in self.rows:
            raise Refused(f"closing_runs has 0 rows of {owner}, expected one")
        return self.rows[owner]

    def of_date(self, date: str) -> list[dict]:
        self.connect()
        rows = [dict(row) for row in self.rows.values() if row["date"] == date]
        known = {row["job"] for row in self.rows.values()}
        for job, decision in self.tables["decisions"].items():
            if decision["date"] == date and job not in known:
                rows.append({"owner": "", "job": job, "genius": decision["as"], "ledger": "pending"})
                rows[-1] |= {"metrics": "pending", "status": "decided", "message": "", "user_id": None}
                rows[-1]["at"] = decision["at"]
        return sorted(rows, key=lambda row: row["at"])

    def left_out(self, owner: str, date: str, resume: bool, first: str | None) -> list[str]:
        earlier = [row for row in self.of_date(date) if row["owner"] != owner]
        try:
            return plan.plan(date, earlier, resume, first)
        except ValueError as error:
            raise Refused(f"{date} {error}; nothing was started") from None

    def record_job(self, job: str, outcome: str, detail: dict, closing: dict | None) -> str:
        self.connect()
        decided = self.tables["decisions"].get(job)
        if closing:
            self.insert(closing["owner"], closing["date"], closing["userId"], job, detail.get("startedAt"))
            self.row(closing["owner"])["job"] = job
        for row in self.rows.values():
            if row["job"] == job:
                row["genius"] = decided["as"] if decided else outcome
        self.commit()
        return decided["as"] if decided else outcome

    def unaccounted(self, jobs: list[str]) -> list[str]:
        self.connect()
        known = {row["job"] for row in self.rows.values() if row["genius"] not in plan.OPEN}
        return [job for job in jobs if job not in known and job not in self.tables["decisions"]]

    def resolve(self, job: str, outcome: str, who: str, date: str | None, period: str, known: str = "") -> dict:
        self.connect()
        decided = self.tables["decisions"].setdefault(
            job, {"as": outcome, "who": who, "date": date, "at": self.world.now}
        )
        if decided["as"] != outcome:
            raise Refused(f"{job} was decided as {decided['as']} by {who}; a recorded decision is not overwritten")
        for row in self.rows.values():
            if row["job"] == job:
                row["genius"] = known or outcome
        self.commit()
        return {"job": job, **decided}

    def finish(self, owner: str, date: str, user_id: str, status: str, message: str) -> dict:
        self.connect()
        self.insert(owner, date, user_id, None)
        row = self.row(owner)
        if status == "succeeded":
            left = [s for s in ("genius", "ledger", "metrics") if row[s] not in ("succeeded", "reused", "skipped")]
            if left:
                raise Refused(f"closing_runs has {left} open for {owner}")
        if row["status"] == "running":
            row["status"], row["message"] = status, message
        self.commit()
        return {"status": row["status"], "message": row["message"], "logged": row["logged"]}

    def mark_logged(self, owner: str) -> None:
        self.row(owner)["logged"] = True
        self.commit()

    def record_step(self, owner: str, step: str, outcome: str, detail: dict) -> None:
        self.connect()
        self.row(owner)[step] = outcome
        self.commit()

    # The functions of handler/ledger.py

    def replace_trial_balance(self, owner: str, period: str, open_balances) -> dict:
        self.connect()
        self.world.genius.connect()
        row = self.row(owner)
        held = self.world.genius.balances.get(period)
        if held is None:
            raise Refused(f"{period}: Genius has no balances of this period")
        self.tables["books"][period] = {"job": held, "owner": owner}
        row["ledger"] = "succeeded"
        self.commit()
        return {"rows": 1}

    def compute_metrics(self, owner: str, period: str) -> dict:
        self.connect()
        row = self.row(owner)
        newest = self.tables["books"].get(period)
        if row["ledger"] == "succeeded" and newest and newest["owner"] != owner:
            raise Refused(f"{period}: the trial balance is that of {newest['owner']}")
        if row["ledger"] not in ("succeeded", "reused"):
            raise Refused(f"{period}: the ledger of this run is {row['ledger']}")
        self.tables["metrics"][period] = newest and newest["job"]
        row["metrics"] = "succeeded"
        self.commit()
        return {"status": "completed"}
