"""The ledger step against barer ways, side by side in one run: `inv bench --only ledger`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PERIOD = "2025-01"
OWNER = "bench"
BRANCHES = 500
ROUNDS = 3
COPIED = "chart_of_account_code, description, branch_code, year, month"
AMOUNTS = "start_debit, start_credit, movement_debit, movement_credit, end_debit, end_credit"
# How much of the slow way is measured; the rest is taken to go on at the same pace.
INSERTED = 5_000


def main() -> None:
    if len(sys.argv) > 1:
        return child(sys.argv[1])
    from local import cloud, postgres
    from local.oracle import __main__ as _  # noqa: F401  the stand-in is there before anything is started

    with tempfile.TemporaryDirectory(prefix="finance-closing-bench-") as folder:
        there = cloud.Cloud(Path(folder), report=lambda line: None)
        os.environ["FINANCE_CLOSING_STATE"] = folder
        try:
            there.start("postgres")
            with genius(Path(folder), there.settings()) as port:
                measure(postgres, there.settings(), port)
        finally:
            there.reset()


@contextlib.contextmanager
def genius(folder: Path, given: dict):
    """Start a stand-in with books of about 200,000 balances a period; yields its port."""
    data = folder / "genius-bench"
    data.mkdir()
    command = [sys.executable, "-m", "local.oracle", "--data", str(data), "--branch-count", str(BRANCHES)]
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GENIUS_USERS": f"GENIUS:{given['LOCAL_ORACLE_PASSWORD']}",
    }
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline().split(":")[-1].split("/")[0])
    finally:
        process.terminate()
        process.wait(10)


def use(given: dict, oracle_port: int) -> None:
    """Set the function's environment for this process and its children."""
    os.environ.update(
        PG_HOST="127.0.0.1",
        PG_PORT=given["LOCAL_PG_PORT"],
        PG_DATABASE="finance",
        PG_USER="finance",
        PG_PASSWORD=given["LOCAL_PG_PASSWORD"],
        PG_SSLMODE="disable",
        ORACLE_USER="GENIUS",
        ORACLE_PASSWORD=given["LOCAL_ORACLE_PASSWORD"],
        ORACLE_CONNECT_STRING=f"127.0.0.1:{oracle_port}/GENIUS",
        ORACLE_CLIENT="thin",
    )


def measure(postgres, given: dict, oracle_port: int) -> None:
    use(given, oracle_port)
    found = {name: [] for name in ("bare fetch", "open_balances", "copy", "copy heap", "values", "step", "postgresql")}
    run("prepare")
    memory = 0
    for _ in range(ROUNDS):
        # One after the other in each round, so that a busy machine slows all of them.
        for name in ("fetch", "copy", "step", "values"):
            answer = run(name)
            memory = max(memory, answer.pop("memory", 0))
            for key, value in answer.items():
                found.setdefault(key, []).append(value)
    show({name: statistics.median(values) for name, values in found.items() if values}, memory)


def run(name: str) -> dict:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench_ledger {name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def child(name: str) -> None:
    print(json.dumps({"prepare": prepare, "fetch": fetch, "copy": copy, "values": values, "step": step}[name]()))


def prepare() -> dict:
    from handler import ledger, runs, schema

    schema.apply()
    with ledger.connected() as session, ledger.transaction(session):
        session.run(
            "INSERT INTO closing_runs (id, owner, closing_date, period, user_id, status)"
            " VALUES (CAST(:id AS uuid), :owner, '2025-01-31', :period, 'bench', 'running')",
            id=runs.run_id(OWNER),
            owner=OWNER,
            period=PERIOD,
        )
    balances()
    return {}


def balances() -> list[tuple]:
    from handler import genius

    with genius.open_balances(PERIOD) as (_, read):
        return list(read())


def timed(function, *arguments) -> float:
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def fetch() -> dict:
    """Measure reading alone, by the handler and by a bare loop over the same statement."""
    from handler import genius, oracle

    def bare(cursor):
        cursor.execute(genius.BALANCES, year="2025", month="01")
        while cursor.fetchmany():
            pass

    def ours(read):
        for _ in read():
            pass

    with oracle.connected(300) as connection, connection.cursor() as cursor:
        cursor.arraysize = 2000
        cursor.prefetchrows = 2001
        fetching = timed(bare, cursor)
    with genius.open_balances(PERIOD) as (totals, read):
        return {"bare fetch": fetching, "open_balances": timed(ours, read), "rows": totals["rows"]}


def copy_lines(rows: list[tuple], between: str):
    for start in range(0, len(rows), 2000):
        lines = (
            f"{a}\t{d}\t{b}{between}\t" + "\t".join(map(str, amounts))
            for a, d, b, *amounts in rows[start : start + 2000]
        )
        yield "\n".join(lines) + "\n"


def copy() -> dict:
    """Measure the same balances by COPY: into a table as the ledger's, and into one without indexes."""
    from handler import ledger

    rows = balances()
    with ledger.connected() as session:
        session.run("CREATE TABLE bench (LIKE legacy_trial_balances INCLUDING ALL)")
        session.run(f"CREATE TABLE bench_heap AS SELECT {COPIED}, {AMOUNTS} FROM bench")
        found = {}
        for name, table in (("copy", "bench"), ("copy heap", "bench_heap")):
            stream = copy_lines(rows, "\t2025\t1")
            begin = time.perf_counter()
            session.run(f"COPY {table} ({COPIED}, {AMOUNTS}) FROM STDIN", stream=stream)
            found[name] = time.perf_counter() - begin
        session.run("DROP TABLE bench; DROP TABLE bench_heap")
    return found


def values() -> dict:
    """Measure the same balances by INSERT … VALUES with 1,000 rows a statement, into a table as the ledger's."""
    from handler import ledger

    rows = balances()
    with ledger.connected() as session, ledger.transaction(session):
        session.run("CREATE TABLE bench (LIKE legacy_trial_balances INCLUDING ALL) ")
        begin = time.perf_counter()
        for start in range(0, INSERTED, 1000):
            some = rows[start : start + 1000]
            marks = ", ".join(f"({', '.join(f':v{n}_{m}' for m in range(9))}, 2025, 1)" for n in range(len(some)))
            given = {f"v{n}_{m}": value for n, row in enumerate(some) for m, value in enumerate(row)}
            columns = f"chart_of_account_code, description, branch_code, {AMOUNTS}, year, month"
            session.run(f"INSERT INTO bench ({columns}) VALUES {marks}", **given)
        spent = time.perf_counter() - begin
        session.run("DROP TABLE bench")
    return {"values": spent * len(rows) / INSERTED}


def step() -> dict:
    """Measure the step itself; Genius' part is separate: the time in which the next row was waited for."""
    from handler import app, genius, ledger  # noqa: F401  the whole handler counts for its memory

    waited = [0.0]

    def counted(read):
        clock, rows = time.perf_counter, read()
        while True:
            begin = clock()
            some = list(itertools.islice(rows, 2000))
            waited[0] += clock() - begin
            if not some:
                return
            yield from some

    @contextlib.contextmanager
    def opened(period):
        begin = time.perf_counter()
        with genius.open_balances(period) as (totals, read):
            waited[0] += time.perf_counter() - begin
            yield totals, lambda: counted(read)

    whole = timed(ledger.replace_trial_balance, OWNER, PERIOD, opened)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step": whole, "postgresql": whole - waited[0], "memory": memory}


def show(found: dict, memory: float) -> None:
    rows = found["rows"]
    print(f"{rows:,.0f} balances, {ROUNDS} rounds, medians; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, seconds in found.items():
        if name != "rows":
            print(f"  {name:<16} {seconds:8.2f} s {rows / seconds:12,.0f} rows/s")
    print("PostgreSQL's side of the step: load, roll up, replace, check")
    goal("against a bare COPY into the same table", found["postgresql"] / found["copy"], "at most", 3)
    print(f"  {'no goal: against one without any index':<42} {found['postgresql'] / found['copy heap']:8.2f}")
    goal("INSERT of 1,000 rows each against it", found["values"] / found["postgresql"], "at least", 10)
    print("Oracle's side")
    goal("open_balances against a bare fetch loop", found["open_balances"] / found["bare fetch"], "at most", 1.3)
    print("the handler's process")
    goal("peak memory in MB", memory, "at most", 150)


def goal(name: str, found: float, bound: str, wanted: float) -> None:
    met = found <= wanted if bound == "at most" else found >= wanted
    print(f"  {name:<42} {found:8.2f}   goal {bound} {wanted:g}: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
