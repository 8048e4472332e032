"""A copy of the repository to deploy from, with compressed durations and perhaps a planted break."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INV = Path(sys.executable).with_name("inv")
COPIED = ("handler", "env", "ops", "local", "policies", "layer", "tasks.py", "tests", "Makefile")
# Production's durations, each some 100 times shorter; Lambda counts whole seconds.
DURATIONS = {
    "TIMEOUT": "12",
    "ABORT_TIMEOUT_SECONDS": "8",
    "POLL_INITIAL_SECONDS": "0.2",
    "POLL_FACTOR": "1.3",
    "POLL_CAP_SECONDS": "1",
    "START_LIMIT_SECONDS": "25",
    "DEADLINE_SECONDS": "90",
    "RETRY_ATTEMPTS": "12",
    "RETRY_CAP_SECONDS": "1",
}
LATER = """
@period.handler(kind="shared")
async def later(ctx: ObjectSharedContext, request: dict) -> None:
    global show
    show = lambda *_: None
    await sync_ledger(ctx, request["owner"], request, [])
    await compute_metrics(ctx, request["owner"], request, [])
    await step(ctx, "end", ledger.finish, owner=request["owner"], status="succeeded", message="")


async def refuse_blocked("""
# Break -> file, and pairs of what stands there and what is put in its place. A run that does not report each of
# these proves nothing.
PLANTS = {
    "auto-drop": ("genius.py", [("auto_drop => FALSE", "auto_drop => TRUE")]),
    "workflow-owner": ("period.py", [("ctx.request().id, request[", '"DailyClosing" + request["date"], request[')]),
    "no-guard": ("genius.py", [("  IF v_other IS NOT NULL THEN", "  IF 1 = 0 THEN")]),
    "early-exit": (
        "period.py",
        [
            (
                '            "ledger": await sync_ledger(ctx, owner, request, done),\n'
                '            "metrics": await compute_metrics(ctx, owner, request, done),\n'
                "        }\n"
                '        await end(ctx, owner, "succeeded", "")\n',
                "        }\n        ctx.object_send(later, key=ctx.key(), arg={**request, 'owner': owner})\n",
            ),
            ("\nasync def refuse_blocked(", LATER),
        ],
    ),
}


class Checkout:
    """One copy and the commands that are run from it."""

    def __init__(self, folder: Path, state: Path, plant: str | None = None, durations: dict[str, str] = DURATIONS):
        self.folder, self.state, self.durations, self.deploys = folder, state, durations, 0
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, folder / name)
        self.write_environment()
        if plant:
            self.plant(plant)

    def write_environment(self) -> None:
        path = self.folder / "env" / "local.env"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(self.compressed(line) for line in lines) + "\n")

    def compressed(self, line: str) -> str:
        key = line.partition("=")[0]
        return f"{key}={self.durations[key]}" if key in self.durations else line

    def plant(self, name: str) -> None:
        file, pairs = PLANTS[name]
        path = self.folder / "handler" / file
        text = path.read_text()
        for old, new in pairs:
            if old not in text:
                raise ValueError(f"the break {name!r} does not fit {file} any more: {old!r} is not there")
            text = text.replace(old, new)
        path.write_text(text)

    def inv(self, *words: str) -> subprocess.CompletedProcess:
        environ = {**os.environ, "FINANCE_CLOSING_STATE": str(self.state), "FINANCE_CLOSING_TOOLS": str(tools())}
        return subprocess.run(
            [INV, *words], cwd=self.folder, env=environ, capture_output=True, text=True, timeout=240, check=False
        )

    def deploy(self) -> None:
        """Deploy; each time but the first the code differs by a line, so that it is a new version."""
        if self.deploys:
            with (self.folder / "handler" / "__init__.py").open("a") as file:
                file.write(f"# deploy {self.deploys}\n")
        self.deploys += 1
        done = self.inv("deploy", "--env", "local")
        if done.returncode:
            raise RuntimeError(f"deploy failed: {done.stderr.strip()}")


def tools() -> Path:
    return Path(os.environ.get("FINANCE_CLOSING_TOOLS") or ROOT / ".local" / "tools")
