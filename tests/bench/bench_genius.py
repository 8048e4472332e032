"""How fast the stand-in gives rows to the driver: all balances of a period with 500 branches, by size of the fetches.

Usage: inv bench --only genius    The server runs in a process of its own; both share this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import oracledb

BRANCHES = 500
QUERY = "SELECT * FROM acpdb.ac_glopenbalance WHERE glyear = '2025' AND glmonth = '01'"
# arraysize, prefetchrows; 2 is the driver's default.
SIZES = ((1, 2), (100, 2), (1000, 2), (1000, 1001), (2000, 2), (2000, 2001), (5000, 2), (5000, 5001), (20_000, 2))
# One row at a time is one round trip a row: fewer of them are enough.
MOST_SINGLE = 20_000


@contextmanager
def served():
    """Start a stand-in with the large books; yields its port and the id of its process."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "local.oracle", "--data", data, "--branch-count", str(BRANCHES)]
        environment = {**os.environ, "GENIUS_USERS": "BENCH:bench"}
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            yield server.stdout.readline().rpartition(":")[2].strip(), server.pid
        finally:
            server.terminate()
            server.wait(10)


def memory(pid: int | str) -> float:
    """Return the memory that a process holds, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def fetched(connection: oracledb.Connection, size: int, prefetch: int) -> tuple[int, int]:
    """Return how many rows were fetched, and of how many columns."""
    with connection.cursor() as cursor:
        cursor.arraysize, cursor.prefetchrows = size, prefetch
        cursor.execute(QUERY)
        count, most = 0, MOST_SINGLE if size == 1 else sys.maxsize
        while count < most and (rows := cursor.fetchmany()):
            count += len(rows)
        return count, len(cursor.description)


def main() -> None:
    oracledb.defaults.fetch_decimals = True
    with served() as (address, pid), oracledb.connect(user="BENCH", password="bench", dsn=f"127.0.0.1:{address}") as c:
        started = time.perf_counter()
        with c.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM ({QUERY})")
            (count,) = cursor.fetchone()
        print(f"{count} balances made in {time.perf_counter() - started:.1f} s, held in {memory(pid):.0f} MiB\n")
        heads = ("arraysize", "prefetch", "rows", "columns", "seconds", "rows/s", "server", "client")
        print("  ".join(head.rjust(max(len(head), 8)) for head in heads))
        for size, prefetch in SIZES:
            started = time.perf_counter()
            rows, columns = fetched(c, size, prefetch)
            seconds = time.perf_counter() - started
            sizes = f"{memory(pid):>4.0f} MiB  {memory('self'):>4.0f} MiB"
            print(
                f"{size:>9}  {prefetch:>8}  {rows:>8}  {columns:>8}  {seconds:>8.2f}  {rows / seconds:>8.0f}  {sizes}"
            )


if __name__ == "__main__":
    main()
