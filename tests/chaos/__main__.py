"""One run from the command line; see the package."""

from __future__ import annotations

import argparse
import sys
import time

from chaos.checkout import PLANTS
from chaos.runner import SCENARIOS, Arena


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Close days under faults.")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strikes", default="")
    parser.add_argument("--scenarios", default="")
    parser.add_argument("--plant", choices=sorted(PLANTS))
    options = parser.parse_args()
    begin = time.monotonic()
    strikes = [name for name in options.strikes.split(",") if name] or None
    scenarios = [name for name in options.scenarios.split(",") if name] or SCENARIOS
    arena = Arena(options.n, options.seed, strikes, scenarios, options.plant)
    broken = arena.run()
    for name, count in sorted(arena.told.items()):
        print(f"  {name:<24} {count:5d}")
    print(f"{options.n - max(arena.left, 0)} closings in {time.monotonic() - begin:.0f} s, seed {options.seed}")
    for line in broken:
        print(f"BROKEN (seed {options.seed}): {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
