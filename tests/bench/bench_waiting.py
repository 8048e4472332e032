"""Waiting times of an operator: tasks on a cloud of their own, in turns in one run, beside the bare start of a program.

Seconds and CPU seconds are medians of ROUNDS; CPU is that of the task and the commands that it starts, without the
services. The demo is measured once from an empty state folder, with all programs installed, and DEMOS times after that.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from local.cloud import Cloud

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, DEMOS = 7, 5
BIN = Path(sys.executable).parent
INV = str(BIN / "inv")
BARE = {"python -c pass": [sys.executable, "-c", "pass"], "aws --version": [str(BIN / "aws"), "--version"]}
TASKS = {
    "inv --list": [INV, "--list"],
    "inv ping": [INV, "ping", "--env", "local"],
    "inv status": [INV, "status", "--env", "local"],
    "inv deploy, nothing changed": [INV, "deploy", "--env", "local"],
}
DEMO = [INV, "demo"]


def measure(command: list[str]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a command; raises SystemExit with its errors if it fails."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}: {errors.read().decode()}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def medians(commands: dict[str, list[str]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the median seconds and CPU seconds of each command; they take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(measure(command))
    return {name: tuple(map(statistics.median, zip(*runs))) for name, runs in found.items()}


def main() -> None:
    """Measure in a cloud that is removed afterwards, and print the table."""
    cloud = Cloud(Path(tempfile.mkdtemp(prefix="bench-")) / "state", report=lambda line: None)
    os.environ["FINANCE_CLOSING_STATE"] = str(cloud.state.path)
    try:
        found = {"inv demo, first": measure(DEMO)}
        found |= medians({"inv demo, again": DEMO}, DEMOS)
        found = medians(BARE | TASKS, ROUNDS) | found
    finally:
        cloud.reset()
    _, unit = found["aws --version"]
    print(f"medians of {ROUNDS}, of the demo again {DEMOS}; load {os.getloadavg()[0]:.1f}")
    print(f"  {'':<28} {'seconds':>8} {'CPU':>6}   CPU as `aws --version`")
    for name, (seconds, cpu) in found.items():
        print(f"  {name:<28} {seconds:8.2f} {cpu:6.2f} {cpu / unit:8.1f}")


if __name__ == "__main__":
    main()
