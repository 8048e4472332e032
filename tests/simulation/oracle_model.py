"""A small model of Genius: its job dictionary, the guard block of a closing job, and the procedure's balances.

It replaces handler/genius.py's functions, with the same arguments, results and errors. What it keeps of Oracle:
jobs and schedules share one name space; CREATE_JOB is atomic and its reply can be lost; a job slave starts a job late,
never, or twice after a restart; a slave can die; logs are purged and jobs dropped by others. Source: documents of 11.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from handler.errors import LoginRefused, Refused, Unavailable

BACKED_OFF, STARTED_TWICE, PROCEDURE_FAILED = 20807, 20808, 20806


@dataclass(frozen=True)
class Plan:
    """The course of a job.

    delay: seconds to its start, None if no slave ever comes; seconds: of the procedure; end: succeeded | failed | dies
    (the slave dies) | purged (it succeeds, and job and log are gone) | forgets (its recorded end is gone, too) | an
    error number of our guard's that the procedure itself raises.
    """

    delay: float | None = 2.0
    seconds: float = 600.0
    end: str | int = "succeeded"


@dataclass
class Job:
    name: str
    period: str
    date: str
    plan: Plan
    comments: str
    owner: str = ""
    ours: bool = True
    state: str | None = "SCHEDULED"
    mark: str | None = None
    runs: list[dict] = field(default_factory=list)
    starts: int = 0
    # The job's own record of its end, as genius.read_job returns it.
    end: dict | None = None
    # The true outcome: None | running | succeeded | failed | unknown (a slave died half way).
    truth: str | None = None


class Genius:
    def __init__(self, world):
        self.world = world
        self.jobs: dict[str, Job] = {}
        self.reserved: set[str] = set()
        self.plans: list[Plan] = []
        # period -> name of the last job that succeeded: what the balances hold.
        self.balances: dict[str, str] = {}
        # One entry for each start of the procedure: (period, date, job, caused by a submit or not).
        self.started: list[Job] = []
        self.down_until = -1.0
        self.refused_logins: list[tuple[int, str]] = []
        self.slaves = True

    # The functions of handler/genius.py

    def connect(self) -> None:
        """Raise what a connection of the current version would raise."""
        if self.world.now < self.down_until:
            raise Unavailable("Genius at genius:1521: DPY-6005: cannot connect")
        version = self.world.version
        if self.world.oracle_passwords[version] != self.world.oracle_password:
            self.refused_logins.append((version, self.world.oracle_password))
            raise LoginRefused("Genius refused the login of GENIUS: ORA-01017; correct ORACLE_PASSWORD and deploy")

    def submit(self, period: str, owner: str, date: str, user_id: str) -> dict:
        from handler import genius

        self.connect()
        name = genius.job_name(period, owner)
        if name in self.reserved:
            raise Refused(f"{name}: Genius reports that the name is taken, yet lists neither the job nor a run of it")
        found = self.jobs.get(name)
        if not found:
            self.create(name, period, date, genius.about(date, user_id, owner))
        elif found.state is None:
            # A job that was dropped, or given up before it was there: its name is free, its mark is not.
            found.ours, found.date, found.owner, found.state = True, date, owner, "SCHEDULED"
            self.world.restate.after(found.plan.delay or 2.0, self.start, found)
        if self.world.lost_reply("submit"):
            raise Unavailable("Genius at genius:1521: DPY-4011: the connection was closed")
        return {"job": name, "at": self.world.now}

    def create(self, name: str, period: str, date: str, comments: str, ours: bool = True) -> Job:
        plan = self.plans.pop(0) if self.plans else Plan()
        job = self.jobs[name] = Job(name, period, date, plan, comments, comments.rpartition(" ")[2], ours)
        if plan.delay is not None:
            self.world.restate.after(plan.delay, self.start, job)
        return job

    def read(self, name: str) -> dict:
        job = self.jobs.get(name)
        if not job:
            return {"state": None, "runs": [], "mark": None, "end": None}
        return {"state": job.state, "runs": [dict(run) for run in job.runs], "mark": job.mark, "end": job.end}

    def poll_job(self, job: str) -> dict:
        now = self.world.now
        try:
            self.connect()
        except Unavailable as error:
            return {"at": now, "reachable": False, "error": str(error)}
        except Refused as error:
            return {"at": now, "reachable": True, "refused": str(error)}
        return {"at": now, "reachable": True, **self.read(job)}

    def reserve_name(self, job: str) -> bool:
        self.connect()
        found = self.jobs.get(job)
        if found and found.state:
            return False
        self.reserved.add(job)
        return not found or (not found.runs and found.mark != "started")

    def give_up(self, job: str) -> str:
        """Take the start mark of a job that has not started; returns whose mark it is: given up | started."""
        self.connect()
        found = self.jobs.get(job)
        if not found:
            period = f"{job[4:8]}-{job[8:10]}"
            found = self.jobs[job] = Job(job, period, "", Plan(), "given up", ours=False, state=None)
        if found.mark is None:
            found.mark = "given up"
        if found.mark == "given up" and found.state == "SCHEDULED":
            found.state = "DISABLED"
        if self.world.lost_reply("give_up"):
            raise Unavailable("Genius at genius:1521: DPY-4011: the connection was closed")
        return found.mark

    def live_jobs(self, period: str, job: str) -> list[str]:
        self.connect()
        return sorted(
            one.name
            for one in self.jobs.values()
            if one.period == period
            and one.name != job
            and one.state in ("RUNNING", "SCHEDULED")
            and one.mark != "given up"
        )

    def period_jobs(self, period: str) -> list[dict]:
        self.connect()
        found = [one for one in self.jobs.values() if one.period == period and (one.state or one.mark)]
        return [
            {
                "job": one.name,
                "ours": one.ours,
                "comments": one.comments,
                "date": one.date if one.ours else None,
                "userId": "adm",
                "owner": one.owner,
                **self.read(one.name),
            }
            for one in found
        ]

    def stop_job(self, job: str) -> dict:
        self.connect()
        found = self.jobs.get(job)
        if not found or found.state != "RUNNING":
            raise Refused(f"{job} was not stopped: ORA-27466")
        self.end(found, "dies", found.starts)
        return self.poll_job(job)

    # Events in the database itself

    def start(self, job: Job) -> None:
        """Let a job slave take the job: the guard block runs, then the procedure."""
        if not self.slaves:
            self.world.restate.after(3600.0, self.start, job)
            return
        if job.state in ("DISABLED", None):
            return
        job.state = "RUNNING"
        if job.ours and job.mark is not None:
            self.log(job, "FAILED", STARTED_TWICE)
            job.state = "FAILED"
            return
        if job.ours:
            job.mark = "started"
            others = (one for one in self.jobs.values() if one.period == job.period and one is not job)
            if any(one.state == "RUNNING" for one in others):
                self.log(job, "FAILED", BACKED_OFF)
                job.state = "FAILED"
                return
        job.starts += 1
        job.truth = "running"
        self.started.append(job)
        self.world.restate.after(job.plan.seconds, self.end, job, job.plan.end, job.starts)

    def end(self, job: Job, how: str, start: int) -> None:
        if job.truth != "running" or job.starts != start:
            return
        if how == "dies":
            job.truth, job.state = "unknown", "STOPPED"
            self.log(job, "STOPPED", 0)
            return
        number = how if isinstance(how, int) else PROCEDURE_FAILED if how == "failed" else 0
        job.truth = "failed" if number else "succeeded"
        job.state = "FAILED" if number else "SUCCEEDED"
        if job.truth == "succeeded":
            self.balances[job.period] = job.name
        if job.ours and how != "forgets":
            job.end = {"outcome": job.truth, "status": "1" if job.truth == "succeeded" else "0"}
        if how in ("forgets", "purged"):
            job.state = None
        else:
            self.log(job, job.state, number, guard=how == "failed")

    def log(self, job: Job, status: str, error: int, guard: bool = True) -> None:
        moment = self.world.stamp()
        job.runs.append(
            {
                "status": status,
                "error": error,
                "message": f"ORA-{error}: " if error else "",
                "guard": guard and error != 0,
                "startedAt": moment,
                "seconds": 1.0,
                "endedAt": moment,
            }
        )

    def restart(self) -> None:
        """Restart the database: running jobs end without a result, and Oracle may start one again."""
        for job in self.jobs.values():
            if job.truth == "running":
                job.truth, job.state = "unknown", "STOPPED"
                self.log(job, "STOPPED", 0)
                if job.plan.seconds > 1000:
                    job.state = "SCHEDULED"
                    self.world.restate.after(5.0, self.start, job)
