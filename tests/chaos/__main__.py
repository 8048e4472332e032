"""Run closings under faults from the command line: `python -m chaos`; see the package."""

from __future__ import annotations

import argparse
import sys
import time

from chaos import compare, scripts
from chaos.checkout import MUTANTS
from chaos.runner import SCENARIOS, Runner


def names(text: str) -> list[str]:
    """Return the names of a comma-separated list."""
    return [name for name in text.split(",") if name]


def main() -> int:
    """Play the scripts, then close days under faults; exit 1 if the models and the cloud differ or a promise broke."""
    parser = argparse.ArgumentParser(prog="chaos", description="Close days under faults.")
    parser.add_argument("--scripts", type=int, help="at most so many; without it as many as each word needs")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=names)
    parser.add_argument("--scenarios", type=names, default=SCENARIOS)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    options = parser.parse_args()
    differences = [] if options.scripts == 0 else play_scripts(options.seed, options.scripts)
    broken = close_days(options) if options.n else []
    return 1 if differences or broken else 0


def play_scripts(seed: int, most: int | None) -> list[str]:
    """Compare the models of the simulation with the cloud; returns the differences, also printed on stderr."""
    begin = time.monotonic()
    differences, counts = compare.run(seed, most)
    print("how often each command and each fault had an effect in the scripts:")
    for name in (*scripts.COMMANDS, *scripts.FAULTS):
        print(f"  {name:<24} {counts[name]:5d}")
    print(f"{counts['scripts']} scripts in {time.monotonic() - begin:.0f} s, seed {seed}")
    lacking = [name for name in (*scripts.COMMANDS, *scripts.FAULTS) if counts[name] < scripts.TIMES]
    if lacking and most is None:
        differences.append(f"fewer than {scripts.TIMES} times: {', '.join(lacking)}")
    for line in differences:
        print(f"DIFFERENT (seed {seed}): {line}", file=sys.stderr)
    return differences


def close_days(options: argparse.Namespace) -> list[str]:
    """Close days under faults at random moments; returns the broken promises, also printed on stderr."""
    begin = time.monotonic()
    runner = Runner(options.n, options.seed, options.faults, options.scenarios, options.mutant)
    broken = runner.run()
    for name, count in sorted(runner.counts.items()):
        print(f"  {name:<24} {count:5d}")
    print(f"{options.n - max(runner.left, 0)} closings in {time.monotonic() - begin:.0f} s, seed {options.seed}")
    for line in broken:
        print(f"BROKEN (seed {options.seed}): {line}", file=sys.stderr)
    return broken


if __name__ == "__main__":
    sys.exit(main())
