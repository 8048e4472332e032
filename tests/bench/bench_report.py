"""inv report and inv reconcile with 200,000 balances of a period: time, memory and sizes: `inv bench --only report`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import bench_ledger

PERIODS = ("2025-01", "2025-02")
# Lambda's limit of an answer; the rest of the goals are for one core that does nothing else.
ANSWER_MB = 6


def main() -> None:
    if len(sys.argv) > 1:
        child, folder = sys.argv[1:]
        found = {"prepare": prepare, "pages": pages, "write": write, "reconcile": reconcile}[child](Path(folder))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "memory": memory}))
        return
    from local import cloud
    from local.oracle import __main__ as _  # noqa: F401  the stand-in is there before anything is started

    with tempfile.TemporaryDirectory(prefix="finance-closing-bench-") as folder:
        there = cloud.Cloud(Path(folder), report=lambda line: None)
        os.environ["FINANCE_CLOSING_STATE"] = folder
        try:
            there.start("postgres")
            with bench_ledger.genius(Path(folder), there.settings()) as port:
                bench_ledger.use(there.settings(), port)
                show({name: run(name, folder) for name in ("prepare", "pages", "write", "reconcile")})
        finally:
            there.reset()


def run(name: str, folder: str) -> dict:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name, folder], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench_report {name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def prepare(folder: Path) -> dict:
    """Close two periods: a report shows the change against the one before."""
    from handler import genius, ledger, runs, schema

    schema.apply()
    for period in PERIODS:
        runs.begin(period, f"{period}-28", "bench", None)
        detail = ledger.replace_trial_balance(period, period, genius.open_balances)
        with ledger.connected() as session:
            session.run("UPDATE closing_runs SET status = 'succeeded', ended_at = now()")
    return {"balances": detail["balances"], "rows": detail["rows"]}


def pages(folder: Path) -> dict:
    """Measure the function's side: the header and all pages, each encoded as Lambda does."""
    from handler import report

    asked, answers, slowest, largest = {"period": PERIODS[1]}, 0, 0.0, 0
    begin = time.perf_counter()
    with (folder / "answers").open("w") as out:
        while asked:
            before = time.perf_counter()
            answer = report.answer(asked)
            text = json.dumps(answer)
            slowest, largest, answers = max(slowest, time.perf_counter() - before), max(largest, len(text)), answers + 1
            out.write(f"{text}\n")
            after = answer.get("next", ["", ""])
            moment = answer.get("moment") or asked["moment"]
            asked = after and {"period": PERIODS[1], "moment": moment, "after": after}
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "slowest": slowest, "largest": largest / 1e6, "answers": answers}


def write(folder: Path) -> dict:
    """Measure the operator's side: the answers as page and CSV file, without the calls."""
    from ops import closings, ping, report

    report.FOLDER = folder / "reports"
    closings.state_of = lambda *_: {}
    ping.live_description = lambda target: "bench"
    cfg = {"DAILY_CLOSING_SCHEDULE_TIME": "20:00", "SCHEDULE_ZONE": "Asia/Jakarta", "CLOSING_DAY_OFFSET": "0"}
    begin = time.perf_counter()
    with (folder / "answers").open() as answers:
        ping.send = lambda *_: json.loads(next(answers))
        files = report.write(SimpleNamespace(cfg=cfg, env="bench"), PERIODS[1])
    sizes = [file.stat().st_size / 1e6 for file in files]
    return {"seconds": time.perf_counter() - begin, "page": sizes[0], "table": sizes[1]}


def reconcile(folder: Path) -> dict:
    from handler import report

    begin = time.perf_counter()
    answer = report.reconcile({"period": PERIODS[1]})
    if answer["count"]:
        sys.exit("the balances differ")
    return {"seconds": time.perf_counter() - begin}


def show(found: dict) -> None:
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{found['prepare']['balances']:,} balances, {found['prepare']['rows']:,} rows of the trial balance; {load}")
    pages, write, reconcile = found["pages"], found["write"], found["reconcile"]
    print(f"the function: {pages['answers']} answers in {pages['seconds']:.1f} s, peak {pages['memory']:.0f} MB")
    goal = bench_ledger.goal
    goal("seconds of the slowest answer", pages["slowest"], "at most", 20)
    goal("MB of the largest answer", pages["largest"], "at most", ANSWER_MB)
    print("the operator's machine")
    goal("seconds for page and CSV file", write["seconds"], "at most", 30)
    goal("peak memory in MB", write["memory"], "at most", 200)
    print(f"  page {write['page']:.1f} MB, CSV file {write['table']:.1f} MB")
    print("reconcile, the function")
    goal("seconds", reconcile["seconds"], "at most", 60)
    goal("peak memory in MB", reconcile["memory"], "at most", 150)


if __name__ == "__main__":
    main()
