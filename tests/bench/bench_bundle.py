"""The bundle beside `pip install -t` + zip and `uv pip install --target` + zip, in turns in one run.

Seconds are medians of ROUNDS with warm caches; of 2 rounds for pip, which is slow. They end when the ZIP is complete,
so they do not contain the removal of the folder that was packed. cpu is the CPU time of a clean build with its
processes, and for ours also of the removal. Milliseconds are medians of STARTS fresh processes.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

from ops import bundle, bytecode

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, STARTS = 5, 9
PLATFORM = "x86_64-manylinux_2_34"
PYTHON = bytecode.find("python3.13") or bytecode.find(f"python3.{sys.version_info[1]}")
RUNTIME = f"python{'.'.join(PYTHON.version.split('.')[:2])}"
BIN = Path(sys.executable).parent
PING = "import handler.app"
CLOSING = "import handler.app, oracledb, pg8000"
SETTINGS = {name: "x" for name in ("PG_HOST", "PG_DATABASE", "PG_USER", "PG_PASSWORD", "ORACLE_USER")}
SETTINGS |= {"ORACLE_PASSWORD": "x", "ORACLE_CONNECT_STRING": "h:1521/s"}


class Shell:
    """Packages into a folder, handler/ beside them, zip: the steps of a usual README."""

    def __init__(self, folder: Path, install: str):
        self.install, self.tree, self.zip = install, folder / "tree", folder / "lambda.zip"

    def clear(self) -> None:
        shutil.rmtree(self.tree, ignore_errors=True)

    def make(self) -> None:
        self.zip.unlink(missing_ok=True)
        subprocess.run(
            f"{self.install} --quiet --target {self.tree} -r {ROOT}/handler/requirements.txt"
            f" && cp {ROOT}/handler/*.py {ROOT}/handler/*.sql {self.tree}/handler/ 2> /dev/null"
            f" || (mkdir {self.tree}/handler && cp {ROOT}/handler/*.py {ROOT}/handler/*.sql {self.tree}/handler/)"
            f" && cd {self.tree} && zip -qr {self.zip} .",
            shell=True,
            check=True,
            stderr=subprocess.DEVNULL,
        )


class Ours:
    def __init__(self, folder: Path, client: str):
        self.cfg = {"RUNTIME": RUNTIME, "BUNDLE_PLATFORM": PLATFORM, "ORACLE_CLIENT": client}
        self.root, self.zip = folder, folder / "build" / "lambda.zip"

    def clear(self) -> None:
        shutil.rmtree(self.root / "build", ignore_errors=True)

    def clear_code(self) -> None:
        """Remove the built code, as after a change in handler/ alone."""
        shutil.rmtree(self.root / "build" / "bundles")

    def make(self) -> None:
        bundle.ROOT, bundle.BUNDLE = self.root, self.zip
        bundle.build(self.cfg)


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def let_removals_end() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()


def cpu() -> float:
    return sum(sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def builds(ways: dict) -> dict[str, dict]:
    """Return each way's figures, from rounds in which the ways take turns."""
    found = {name: {"clean": [], "cpu": [], "again": [], "code": [], "bytes": set()} for name in ways}
    for way in ways.values():
        way.make()
    for turn in range(ROUNDS):
        for name, way in ways.items():
            if turn > 1 and name == "pip + zip":
                continue
            way.clear()
            before = cpu()
            found[name]["clean"].append(seconds(way.make))
            let_removals_end()
            found[name]["cpu"].append(cpu() - before)
            found[name]["again"].append(seconds(way.make))
            if isinstance(way, Ours):
                way.clear_code()
                found[name]["code"].append(seconds(way.make))
            found[name]["bytes"].add(way.zip.read_bytes())
    return found


def imports(trees: dict[str, Path]) -> dict[tuple[str, str], float]:
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(STARTS + 1):
        for name, tree in trees.items():
            for script in (PING, CLOSING):
                taken = start(tree, script)
                if turn:
                    times.setdefault((name, script), []).append(taken)
    return {key: statistics.median(taken) for key, taken in times.items()}


def start(tree: Path, script: str) -> float:
    code = f"import sys, time; sys.path.insert(0, {str(tree)!r}); t = time.perf_counter(); {script}"
    done = subprocess.run(
        [PYTHON.path, "-I", "-S", "-B", "-c", f"{code}; print((time.perf_counter() - t) * 1000)"],
        env=SETTINGS,
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(done.stdout)


def unzip(zipped: Path, tree: Path, bytecode_too: bool) -> Path:
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tree, [name for name in archive.namelist() if bytecode_too or not name.endswith(".pyc")])
    return tree


def goal(words: str, value: float, most: float, unit: str = "") -> None:
    print(f"  {words:<66} {value:>6.2f}{unit:<3} goal ≤ {most:g}{unit:<3} {'met' if value <= most else 'MISSED'}")


def report(found: dict, ways: dict, times: dict) -> None:
    print(f"target {RUNTIME} on {PLATFORM}; bytecode and imports by {PYTHON.path}; host {sys.version.split()[0]}")
    head = f"{'':<10} {'clean s':>8} {'cpu s':>6} {'same s':>7} {'code s':>7} {'MB':>6} {'files':>6} {'twice':>7}"
    print(f"{head} {'ping ms':>8} {'closing ms':>10}")
    for name, figures in found.items():
        clean, used, again, code = (middle(figures[key]) for key in ("clean", "cpu", "again", "code"))
        files = len(zipfile.ZipFile(ways[name].zip).namelist())
        line = f"{name:<10} {clean:>8.2f} {used:>6.2f} {again:>7.3f} {f'{code:.2f}' if code else '-':>7}"
        line += f" {ways[name].zip.stat().st_size / 1e6:>6.2f} {files:>6}"
        line += f" {'same' if len(figures['bytes']) == 1 else 'differs':>7}"
        print(f"{line} {times[name, PING]:>8.0f} {times[name, CLOSING]:>10.0f}")
    uv, thick, naive = found["uv + zip"], found["thick"], times["uv + zip", CLOSING]
    print("goals, of thick; the naive bundle is that of uv + zip, which has no .pyc")
    goal("nothing changed, the call in this process", middle(thick["again"]), 0.1, " s")
    goal("clean / uv + zip, round by round", middle([a / b for a, b in zip(thick["clean"], uv["clean"])]), 1.1)
    goal("size", ways["thick"].zip.stat().st_size / 1e6, 9, " MB")
    goal("import for a ping / naive with its drivers", times["thick", PING] / naive, 0.3)
    goal("import for a closing / naive with its drivers", times["thick", CLOSING] / naive, 0.5)
    print(f"  clean / uv + zip in CPU seconds: {middle(thick['cpu']) / middle(uv['cpu']):.2f}")
    print(f"  import for a ping / the same import from naive: {times['thick', PING] / times['uv + zip', PING]:.2f}")


def middle(figures: list[float]) -> float:
    return statistics.median(figures) if figures else 0


def main() -> None:
    minor = RUNTIME.removeprefix("python")
    platforms = "".join(f" --platform {name}_x86_64" for name in ("manylinux_2_34", "manylinux_2_28", "manylinux2014"))
    pip = f"{BIN}/pip install --upgrade{platforms} --only-binary :all: --python-version {minor}"
    uv = f"{BIN}/uv pip install --python-platform {PLATFORM} --only-binary :all: --python-version {minor}"
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as scratch:
        for name in "pip", "uv", "thick", "thin":
            (Path(scratch) / name).mkdir()
        folder = Path(scratch)
        ways = {"pip + zip": Shell(folder / "pip", pip), "uv + zip": Shell(folder / "uv", uv)}
        ways |= {client: Ours(folder / client, client) for client in ("thick", "thin")}
        found = builds(ways)
        trees = {name: unzip(way.zip, folder / f"{name} unzipped", True) for name, way in ways.items()}
        report(found, ways, imports(trees))


if __name__ == "__main__":
    main()
