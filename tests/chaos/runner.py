"""Close four periods at once, inject faults at random moments, and check the promise after each closing."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from invoke import Exit

from chaos import checks
from chaos.checkout import ROOT, Checkout
from chaos.faults import Faults
from handler import genius, settings
from local.cloud import Cloud
from local.demo import connect
from ops import closings, config, invocations, repair
from ops.restate import request

PERIODS = ("2025-01", "2025-04", "2025-07", "2025-10")
# A closing that takes longer than this, with the repairs of an operator, is stuck.
BOUND_SECONDS = 300
SCENARIOS = ("plain", "plain", "plain", "twice", "two-dates", "rival")


class Runner:
    """One chaos run: `count` closings, drawn from `seed`.

    faults: the faults to inject; scenarios: what happens to a closing; by default all. mutant: a change of the service
    that breaks the promise and that the run must report.
    """

    def __init__(
        self, count: int, seed: int, faults: list[str] | None = None, scenarios=SCENARIOS, mutant: str | None = None
    ):
        self.count, self.seed, self.scenarios = count, seed, scenarios
        self.rng = random.Random(seed)
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.cloud = Cloud(ROOT / ".local" / f"chaos-{seed}", report=lambda line: None)
        self.checkout = Checkout(self.folder / "checkout", self.cloud.state.path, mutant)
        self.faults = Faults(self.cloud, self.checkout, random.Random(seed + 1))
        self.allowed = faults if faults is not None else self.faults.names()
        self.over, self.lock = threading.Event(), threading.Lock()
        self.broken: list[str] = []
        self.restarts: list[float] = []
        self.counts: Counter = Counter()
        self.left = count

    def run(self) -> list[str]:
        """Run to the end and return the broken promises; the cloud is stopped, and its state kept if there is one."""
        self.cloud.reset()
        self.cloud.up(procedure_seconds=2)
        try:
            self.cfg = self.prepare()
            periods = [
                threading.Thread(target=self.report_failure, args=(self.close_period, period)) for period in PERIODS
            ]
            injector = threading.Thread(target=self.report_failure, args=(self.inject_faults,))
            for thread in (*periods, injector):
                thread.start()
            for thread in periods:
                thread.join()
            self.over.set()
            injector.join()
        finally:
            self.faults.clear_all()
            self.cloud.down()
        if not self.broken:
            self.cloud.reset()
            shutil.rmtree(self.folder)
        return self.broken

    def prepare(self) -> dict:
        """Deploy, make the tables and the audit of metrics, and return the settings."""
        self.checkout.deploy()
        done = self.checkout.inv("schema", "--env", "local")
        if done.returncode:
            raise RuntimeError(done.stderr)
        cfg = config.load("local", {**os.environ, "FINANCE_CLOSING_STATE": str(self.cloud.state.path)})
        password = self.cloud.settings()["LOCAL_PG_ADMIN_PASSWORD"]
        os.environ |= config.function_environment(cfg)
        settings.current.cache_clear()
        admin = connect({**cfg, "PG_USER": "postgres", "PG_PASSWORD": password})
        for statement in checks.AUDIT.split(";\n"):
            if statement.strip():
                admin.run(statement)
        admin.close()
        return cfg

    def report_failure(self, work, *arguments) -> None:
        """Run a thread's work and store its failure; a check that was impossible breaks the run, too."""
        try:
            work(*arguments)
        except checks.Broken as broken:
            self.broken.append(str(broken))
            self.over.set()
        except Exception as error:
            self.broken.append(f"{type(error).__name__}: {error}")
            self.over.set()

    def inject_faults(self) -> None:
        """Inject one fault after another until the closings are over."""
        rng = random.Random(self.seed + 2)
        while self.allowed and not self.over.wait(rng.uniform(0.5, 3)):
            name = rng.choice(self.allowed)
            self.counts[name] += 1
            before = time.time()
            self.faults.inject(name)
            if name == "restart-genius":
                self.restarts += [before, time.time()]

    def close_period(self, period: str) -> None:
        """Close dates of a period one after another, each with a random scenario."""
        rng = random.Random(f"{self.seed}:{period}")
        day = 0
        while not self.over.is_set():
            with self.lock:
                if self.left <= 0:
                    return
                self.left -= 1
            scenario = rng.choice(self.scenarios)
            dates = [f"{period}-{day % 27 + 1:02d}", f"{period}-{day % 27 + 2:02d}"][
                : 2 if scenario == "two-dates" else 1
            ]
            day += len(dates)
            self.counts[f"scenario {scenario}"] += 1
            self.close(rng, scenario, period, dates)
            print(f"  {self.count - self.left:4d}  {dates[0]}  {scenario}", flush=True)

    def close(self, rng: random.Random, scenario: str, period: str, dates: list[str]) -> None:
        """Close dates with a scenario, see them to success, and check the promise."""
        for date in dates:
            self.submit(date, {"date": date, "userId": "chaos"})
        if scenario == "twice":
            self.submit(dates[0], {"date": dates[0], "userId": "chaos"})
        elif scenario == "rival":
            self.submit_rival(period, dates[0])
        for date in dates:
            self.see_to_success(rng, period, date)
        self.check(period, dates[-1])

    def submit(self, date: str, body: dict) -> None:
        """Submit until Restate answers; it refuses a key that it accepted before."""
        for _ in range(200):
            with suppress(Exit):
                status, _ = request(self.cfg, "POST", closings.submit_url(self.cfg, date), body)
                if status < 300:
                    return
            time.sleep(0.3)
        raise checks.Broken(f"Restate did not accept {date}")

    def submit_rival(self, period: str, date: str) -> None:
        """Create another job between this closing's check for live jobs and its submit, as a frozen worker would."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not self.over.is_set():
            with suppress(Exit):
                if closings.state_of(self.cfg, "ClosingPeriod", period).get("closing"):
                    break
            time.sleep(0.02)
        with suppress(Exception):
            genius.submit(period, "rival_" + date.replace("-", ""), date, "chaos")

    def see_to_success(self, rng: random.Random, period: str, date: str) -> None:
        """Act as the operator until a date succeeds: resume, resolve by the procedure's log, or rerun."""
        deadline = time.monotonic() + BOUND_SECONDS
        while time.monotonic() < deadline and not self.over.is_set():
            with suppress(Exit, OSError):
                run = closings.invocation_of(self.cfg, "DailyClosing", date, "run")
                if run and run["status"] == closings.ENDED:
                    if run["completion_result"] == "success":
                        return
                    if self.repair(rng, period, date, run):
                        self.counts["reruns"] += 1
                elif run:
                    self.resume([run, *repair.live_closes(self.cfg, period)])
            time.sleep(0.4)
        if not self.over.is_set():
            raise checks.Broken(f"{date} is stuck: {closings.summary(self.cfg, date)}")

    def resume(self, live: list[dict]) -> None:
        """Resume the paused ones: the run of the date and the close that it called may both be out of retries."""
        for one in live:
            if one["status"] == "paused":
                self.counts["resumes"] += 1
                request(self.cfg, "PATCH", f"{self.cfg['RESTATE_ADMIN_URL']}/invocations/{one['id']}/resume")

    def repair(self, rng: random.Random, period: str, date: str, run: dict) -> bool:
        """Rerun a date, with the job's outcome resolved if it blocks the period; False while a close still runs."""
        if repair.live_closes(self.cfg, period):
            return False
        blocked = closings.state_of(self.cfg, "ClosingPeriod", period).get("blocked")
        if blocked:
            self.resolve(period, blocked["job"])
        closing = closings.state_of(self.cfg, "ClosingPeriod", period).get("closing")
        body = {"date": date, "userId": "chaos", "resume": True, "adopt": bool(closing) and rng.random() < 0.7}
        if closing and not body["adopt"]:
            body["fromStep"] = "genius"
        self.purge(run["id"])
        self.submit(date, body)
        return True

    def purge(self, invocation: str) -> None:
        request(self.cfg, "PATCH", f"{self.cfg['RESTATE_ADMIN_URL']}/invocations/{invocation}/purge")
        closings.wait_until_purged(self.cfg, invocation)

    def resolve(self, period: str, job: str) -> None:
        """Record the operator's decision on a job, as the procedure's own log shows it."""
        events = [one for one in checks.procedure_log(self.cloud.state.path, period) if one["job"] == job]
        decision = "succeeded" if any(one.get("status") == "1" for one in events) else "failed"
        self.counts[f"resolved as {decision}"] += 1
        body = {"job": job, "as": decision, "who": "chaos"}
        status, answer = request(self.cfg, "POST", invocations.url(self.cfg, "ClosingPeriod", period, "resolve"), body)
        if status >= 300:
            raise Exit(str(answer))

    def check(self, period: str, date: str) -> None:
        """Make all checks of a period; raises Broken."""
        if self.over.is_set():
            return
        state = self.cloud.state.path
        rows = self.retry(lambda: self.rows(period))
        checks.check_starts(state, period, rows)
        self.retry(lambda: checks.check_names_kept(self.cfg, rows))
        checks.check_never_two(state, period, self.restarts)
        self.retry(lambda: checks.check_balance(self.cfg, period, closed=True))
        self.retry(lambda: checks.check_metrics_once(self.cfg, rows))
        self.retry(lambda: checks.check_agreement(self.cfg, date, [r for r in rows if r["closing_date"] == date]))
        self.retry(lambda: checks.check_released(self.cfg, period, date))

    def rows(self, period: str) -> list[dict]:
        """Return a period's rows of closing_runs, oldest first, with JSON values."""
        connection = connect(self.cfg)
        found = connection.run("SELECT * FROM closing_runs WHERE period = :period ORDER BY started_at", period=period)
        names = [column["name"] for column in connection.columns]
        connection.close()
        return json.loads(json.dumps([dict(zip(names, row)) for row in found], default=str))

    def retry(self, check):
        """Make a check and return its answer; repeat it if it fails because a server is being restarted."""
        for _ in range(60):
            try:
                return check()
            except checks.Broken:
                raise
            except Exception as error:
                last = error
                time.sleep(0.5)
        raise checks.Broken(f"the check was impossible: {last}")
