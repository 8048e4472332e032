"""Run simulated closings: `python -m simulation --runs 10000 --seed 1`; exit 1 with the shortest script that breaks."""

from __future__ import annotations

import argparse
import os
import sys
import time

# handler/ reads its settings when it is imported: few polls, so that ten hours of waiting are a handful of events.
SETTINGS = {
    "PG_HOST": "pg.invalid",
    "PG_DATABASE": "finance",
    "PG_USER": "finance",
    "PG_PASSWORD": "unused",
    "ORACLE_USER": "GENIUS",
    "ORACLE_PASSWORD": "unused",
    "ORACLE_CONNECT_STRING": "genius.invalid:1521/GENIUS",
    "POLL_INITIAL_SECONDS": "30",
    "POLL_FACTOR": "10",
    "POLL_CAP_SECONDS": "7200",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="the first seed; each run takes the next one")
    options = parser.parse_args()
    os.environ.update(SETTINGS)
    from simulation import runner

    begin = time.process_time()
    for seed in range(options.seed, options.seed + options.runs):
        broken = runner.run(runner.script_of(seed))
        if broken:
            report(runner, seed, broken)
            return 1
    print(
        f"{options.runs} runs from seed {options.seed} in {time.process_time() - begin:.1f} CPU seconds: nothing broken"
    )
    return 0


def report(runner, seed: int, broken: str) -> None:
    shortest = runner.shrink(runner.script_of(seed))
    print(f"seed {seed}: {broken}", file=sys.stderr)
    print(f"the shortest script that breaks: {runner.run(shortest)}", file=sys.stderr)
    for name in ("actions", "faults", "jobs", "lost"):
        for one in getattr(shortest, name):
            print(f"  {name}: {one}", file=sys.stderr)
    print(f"replay it alone: make simulate N=1 SEED={seed}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
