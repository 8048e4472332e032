"""Measure the ledger step against barer ways, side by side in one run: `inv bench --only ledger`.

Every measurement is a process of its own; in each round they follow one another, so that a busy machine slows all of
them, and a ratio is the median of the rounds' ratios. CPU seconds are those of this process and of PostgreSQL's.
docs/performance.md explains the figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
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
ROUNDS = 5
# Branches -> about 16,000, 200,000 and 1,000,000 balances; the middle one is compared with barer ways.
SIZES = (40, 500, 2466)
COMPARED = 500
# The measurements of a round, in their order: one that replaces a period finds the rows of the one before it.
COMPARISONS = ("fetch", "copy", "first", "again", "nightly", "step again", "step", "values")
TABLE = "legacy_trial_balances"
AMOUNTS = "start_debit, start_credit, movement_debit, movement_credit, end_debit, end_credit"
# How much of the slow way is measured; the rest is taken to go on at the same pace.
INSERTED = 5_000


def main() -> None:
    if len(sys.argv) > 1:
        return child(sys.argv[1], Path(sys.argv[2]))
    from local import cloud, postgres
    from local.oracle import __main__ as _  # noqa: F401  the stand-in is there before anything is started

    with tempfile.TemporaryDirectory(prefix="finance-closing-bench-") as name:
        folder = Path(name)
        there = cloud.Cloud(folder, report=lambda line: None)
        os.environ["FINANCE_CLOSING_STATE"] = name
        try:
            there.start("postgres")
            with contextlib.closing(postgres.connect_admin(there.settings(), timeout=60)) as admin:
                admin.autocommit = True
                os.environ["BENCH_POSTMASTER"] = postmaster(admin)
                curve = {branches: measure(folder, there.settings(), admin, branches) for branches in sizes()}
        finally:
            there.reset()
    for branches, rounds in curve.items():
        if branches == COMPARED:
            show(rounds)
    show_curve(curve)


def postmaster(admin) -> str:
    """Return the id of the server's first process, the parent of all others."""
    cursor = admin.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    return Path(f"/proc/{cursor.fetchone()[0]}/stat").read_text().rpartition(")")[2].split()[1]


def sizes() -> list[int]:
    """Return the numbers of branches to measure; BENCH_SIZES can leave some out."""
    return [int(size) for size in os.environ.get("BENCH_SIZES", "").split()] or list(SIZES)


@contextlib.contextmanager
def genius(folder: Path, given: dict, branches: int = COMPARED):
    """Start a stand-in with books of about 400 balances a branch in each period; yield its port."""
    data = folder / f"genius-{branches}"
    data.mkdir()
    command = [sys.executable, "-m", "local.oracle", "--data", str(data), "--branch-count", str(branches)]
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


def measure(folder: Path, given: dict, admin, branches: int) -> list[dict]:
    """Measure the rounds of one size; the ways to compare with only of one size."""
    compared = branches == COMPARED
    with genius(folder, given, branches) as port:
        use(given, port)
        run("prepare", folder)
        rounds = []
        for _ in range(ROUNDS if compared else 1):
            found = {}
            for name in COMPARISONS if compared else ("first", "step"):
                cursor = admin.cursor()
                if name in ("first", "step"):
                    cursor.execute(f"TRUNCATE financial_report.{TABLE}")
                cursor.execute(f"VACUUM ANALYZE financial_report.{TABLE}")
                found |= run(name, folder)
            rounds.append(found)
        return rounds


def run(name: str, folder: Path) -> dict:
    """Run one measurement in a process of its own and return its figures."""
    done = subprocess.run([sys.executable, __file__, name, str(folder)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench_ledger {name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def child(name: str, folder: Path) -> None:
    work = {"prepare": prepare, "fetch": fetch, "copy": copy, "values": values}
    work |= {one: from_memory(one) for one in ("first", "again", "nightly")}
    work |= {one: whole(one) for one in ("step", "step again")}
    print(json.dumps(work[name](folder)))


def prepare(folder: Path) -> dict:
    """Make the run's row, keep the balances for the measurements without Genius, and load a period once."""
    from handler import genius, ledger, runs, schema

    schema.apply()
    runs.begin(OWNER, f"{PERIOD}-31", "bench", None)
    with genius.open_balances(PERIOD) as source:
        (folder / "balances").write_bytes(pickle.dumps((source.totals(), [tuple(row) for row in source.read()])))
    ledger.replace_trial_balance(OWNER, PERIOD, memory(folder))
    return {}


def memory(folder: Path):
    """Return an open_balances of the balances that prepare has kept."""
    from handler import genius

    totals, rows = pickle.loads((folder / "balances").read_bytes())

    @contextlib.contextmanager
    def opened(period):
        yield genius.OpenBalances(lambda: iter(rows), lambda: totals, lambda: None)

    return opened


class Spent:
    """Measure the seconds and CPU seconds of a block, those of PostgreSQL's processes included."""

    def __enter__(self):
        self.used, self.begin = self.cpu(), time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.begin
        self.used = self.cpu() - self.used

    def cpu(self) -> float:
        return time.process_time() + server_cpu()


def server_cpu() -> float:
    """Return the CPU seconds of all of PostgreSQL's processes up to now, also of those that have ended."""
    postmaster = int(os.environ["BENCH_POSTMASTER"])
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == postmaster:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) == postmaster:
                total += sum(map(int, fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def fetch(folder: Path) -> dict:
    """Measure reading alone: by the handler, and by a bare loop over the same statement."""
    from handler import genius, oracle

    with oracle.connected(300) as connection, connection.cursor() as cursor:
        cursor.arraysize = 2000
        cursor.prefetchrows = 2001
        with Spent() as bare:
            cursor.execute(genius.BALANCES, year="2025", month="01")
            while cursor.fetchmany():
                pass
    with genius.open_balances(PERIOD) as source, Spent() as ours:
        for _ in source.read():
            pass
    return {"bare fetch": spent(bare), "open_balances": spent(ours)}


def spent(block: Spent) -> list[float]:
    return [block.seconds, block.used]


def copy(folder: Path) -> dict:
    """Measure COPY of the rows that the step has written: in the order of the unique key, and branch by branch.

    Genius sends the balances branch by branch; a bare COPY would not sort them. Into an empty table, and then once
    more in the place of its rows, in one transaction with their DELETE.
    """
    from handler import ledger

    found = {}
    with ledger.connected() as session:
        for name, order in (("copy", "chart_of_account_code, branch_code"), ("copy as sent", "branch_code, id")):
            parts: list[bytes] = []
            sink = type("Sink", (), {"write": staticmethod(parts.append)})
            session.run(f"COPY (SELECT * FROM {TABLE} ORDER BY {order}) TO STDOUT", stream=sink)
            lines = b"".join(parts).splitlines(keepends=True)
            chunks = [b"".join(lines[start : start + 2000]) for start in range(0, len(lines), 2000)]
            session.run(f"CREATE TABLE bench (LIKE {TABLE} INCLUDING ALL)")
            with Spent() as block:
                session.run("COPY bench FROM STDIN", stream=chunks)
            found[name] = spent(block)
            with Spent() as block, ledger.transaction(session):
                session.run("DELETE FROM bench")
                session.run("COPY bench FROM STDIN", stream=chunks)
            found[f"delete, {name}"] = spent(block)
            session.run("DROP TABLE bench")
    return found


def values(folder: Path) -> dict:
    """Measure the balances by INSERT … VALUES with 1,000 rows a statement, into a table as the ledger's."""
    from handler import ledger

    with memory(folder)(PERIOD) as source:
        rows = list(source.read())
    with ledger.connected() as session, ledger.transaction(session):
        session.run(f"CREATE TABLE bench (LIKE {TABLE} INCLUDING ALL)")
        with Spent() as block:
            for start in range(0, INSERTED, 1000):
                some = rows[start : start + 1000]
                marks = ", ".join(f"({', '.join(f':v{n}_{m}' for m in range(9))}, 2025, 1)" for n in range(len(some)))
                given = {f"v{n}_{m}": value for n, row in enumerate(some) for m, value in enumerate(row)}
                columns = f"chart_of_account_code, description, branch_code, {AMOUNTS}, year, month"
                session.run(f"INSERT INTO bench ({columns}) VALUES {marks}", **given)
        session.run("DROP TABLE bench")
    return {"values": [one * len(rows) / INSERTED for one in spent(block)]}


def from_memory(name: str):
    """Return the measurement of the step with balances that are in memory: PostgreSQL's side alone."""

    def measurement(folder: Path) -> dict:
        from handler import ledger

        opened = memory(folder)
        with Spent() as block:
            ledger.replace_trial_balance(OWNER, PERIOD, opened)
        return {name: spent(block)}

    return measurement


def whole(name: str):
    """Return the measurement of the whole step, with Genius."""

    def measurement(folder: Path) -> dict:
        from handler import app, genius, ledger  # noqa: F401  the whole handler counts for its memory

        with Spent() as block:
            detail = ledger.replace_trial_balance(OWNER, PERIOD, genius.open_balances)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {name: spent(block), "memory": peak, "balances": detail["balances"], "rows": detail["rows"]}

    return measurement


WORDS = {
    "bare fetch": "a loop that only fetches",
    "open_balances": "the handler's fetch",
    "copy": "COPY of the step's rows in the key's order",
    "copy as sent": "COPY of them branch by branch",
    "delete, copy": "DELETE, COPY in the key's order",
    "delete, copy as sent": "DELETE, COPY branch by branch",
    "first": "the step from memory, empty period",
    "again": "the step from memory, replaced once",
    "nightly": "the step from memory, replaced again",
    "step": "the step, empty period",
    "step again": "the step, period replaced",
    "values": "INSERT of 1,000 balances each",
}
# The bare way of each measurement: rows are copied into an empty period, or in the place of the old ones.
BARE = {
    "first": "copy",
    "again": "delete, copy",
    "nightly": "delete, copy",
    "step": "copy",
    "step again": "delete, copy",
}


def show(rounds: list[dict]) -> None:
    last = rounds[-1]
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{last['balances']:,} balances, {last['rows']:,} rows, {len(rounds)} rounds, medians; {load}")
    for name, words in WORDS.items():
        seconds, used = (statistics.median(one[name][n] for one in rounds) for n in (0, 1))
        print(f"  {words:<44} {seconds:8.2f} s {used:8.2f} s of CPU")
    print("PostgreSQL's side of the step (load, roll up, replace, check), and the whole step")
    for name, bare in BARE.items():
        for order in ("", " as sent"):
            words = f"{WORDS[name]} / {bare.upper()}{order or ' in order'}"
            if name.startswith("step"):
                compare(rounds, f"{words}, with a loop that fetches", [name], ["bare fetch", bare + order], 1.5)
            else:
                compare(rounds, words, [name], [bare + order], 2)
    compare(rounds, "INSERT of 1,000 rows each against it", ["values"], ["again"], 10, "at least")
    print("Oracle's side")
    compare(rounds, "open_balances against a bare fetch loop", ["open_balances"], ["bare fetch"], 1.3)


def compare(rounds: list[dict], name: str, above: list[str], below: list[str], wanted: float, bound="at most") -> None:
    """Print the median of the rounds' ratios, by seconds, which the goal is for, and by CPU seconds."""
    by_time, by_cpu = (
        statistics.median(sum(one[key][n] for key in above) / sum(one[key][n] for key in below) for one in rounds)
        for n in (0, 1)
    )
    goal(name, by_time, bound, wanted, f"   by CPU seconds {by_cpu:.2f}")


def show_curve(curve: dict[int, list[dict]]) -> None:
    print("Growth: medians of the step, and of it from memory for an empty period")
    heads = ("seconds", "CPU s", "µs/balance", "from memory", "µs/balance", "MB")
    print(f"  {'balances':>10}" + "".join(head.rjust(13) for head in heads))
    for rounds in curve.values():
        count = rounds[-1]["balances"]
        whole, used, first = (
            statistics.median(one[key][n] for one in rounds) for key, n in (("step", 0), ("step", 1), ("first", 0))
        )
        peak = max(one["memory"] for one in rounds)
        figures = (f"{one:13.2f}" for one in (whole, used, whole / count * 1e6, first, first / count * 1e6, peak))
        print(f"  {count:>10,}" + "".join(figures))
    for rounds in curve.values():
        goal(
            f"peak memory in MB, {rounds[-1]['balances']:,} balances",
            max(one["memory"] for one in rounds),
            "at most",
            80,
        )


def goal(name: str, found: float, bound: str, wanted: float, more: str = "") -> None:
    met = found <= wanted if bound == "at most" else found >= wanted
    print(f"  {name:<75} {found:8.2f}   goal {bound} {wanted:g}: {'met' if met else 'MISSED'}{more}")


if __name__ == "__main__":
    main()
