"""Run closings under faults from the command line: `python -m chaos`; see the package."""

from __future__ import annotations

import argparse
import sys
import time

from chaos.checkout import MUTANTS
from chaos.runner import SCENARIOS, Runner


def names(text: str) -> list[str]:
    """Return the names of a comma-separated list."""
    return [name for name in text.split(",") if name]


def main() -> int:
    """Run, print the counts, and print each broken promise on stderr; exit 1 if there is one."""
    parser = argparse.ArgumentParser(prog="chaos", description="Close days under faults.")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=names)
    parser.add_argument("--scenarios", type=names, default=SCENARIOS)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    options = parser.parse_args()
    begin = time.monotonic()
    runner = Runner(options.n, options.seed, options.faults, options.scenarios, options.mutant)
    broken = runner.run()
    for name, count in sorted(runner.counts.items()):
        print(f"  {name:<24} {count:5d}")
    print(f"{options.n - max(runner.left, 0)} closings in {time.monotonic() - begin:.0f} s, seed {options.seed}")
    for line in broken:
        print(f"BROKEN (seed {options.seed}): {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
