"""Measure the cost of six hours of waiting: a closing on the local cloud, all durations divided by one factor.

Compared with a function that would call the procedure and wait for it: 24 invocations of 900 s.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from chaos.checkout import Checkout
from invoke import Context

from local.cloud import Cloud
from local.demo import billed_milliseconds
from ops import restate
from ops.target import Target

FACTOR = 240
HOURS = 6
BLOCKING_MS = 24 * 900 * 1000
# Of the invocation that waits.
JOURNAL = (
    "SELECT count(1) AS entries, sum(raw_length) AS bytes FROM sys_journal JOIN sys_invocation USING (id)"
    " WHERE target_service_name = 'ClosingPeriod'"
)

DURATIONS = {
    "POLL_INITIAL_SECONDS": f"{10 / FACTOR:.4f}",
    "POLL_CAP_SECONDS": f"{360 / FACTOR:.4f}",
    "POLL_FACTOR": "2",
    "DEADLINE_SECONDS": "600",
}


def main() -> None:
    cloud = Cloud(Path(tempfile.mkdtemp(prefix="bench-")) / "state", report=lambda line: None)
    os.environ["FINANCE_CLOSING_STATE"] = str(cloud.state.path)
    folder = Path(tempfile.mkdtemp(prefix="bench-")) / "checkout"
    copy = Checkout(folder, cloud.state.path, durations=DURATIONS)
    try:
        cloud.up(procedure_seconds=HOURS * 3600 / FACTOR)
        copy.deploy()
        copy.inv("schema", "--env", "local")
        report(copy)
    finally:
        cloud.reset()


def report(copy) -> None:
    began = time.time()
    done = copy.inv("close", "--env", "local", "--date", "2025-01-31", "--watch")
    if done.returncode:
        raise SystemExit(done.stderr)
    target = Target.load(Context(), "local")
    billed_each = billed_milliseconds(target, began)
    count, billed = len(billed_each), sum(billed_each)
    (journal,) = restate.sql(target.cfg, JOURNAL)
    print(f"a job of {HOURS} h, all durations divided by {FACTOR} ({time.time() - began:.0f} s)")
    print(f"  invocations        {count:10,d}   goal: at most 144")
    print(f"  billed ms          {billed:10,d}   goal: at most 6,780")
    print(f"  journal entries    {journal['entries']:10,d}   {journal['bytes']:,d} bytes")
    print(f"  a blocking call    {BLOCKING_MS:10,d}   {BLOCKING_MS / billed:,.0f} times as much")


if __name__ == "__main__":
    main()
