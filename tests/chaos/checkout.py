"""A copy of the repository to deploy from, with compressed durations and perhaps a mutant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support import checkout

ROOT = checkout.CHECKOUT
INV = Path(sys.executable).with_name("inv")
# Production's durations, each some 100 times shorter; Lambda counts whole seconds.
DURATIONS = {
    "TIMEOUT": "12",
    "ABORT_TIMEOUT_SECONDS": "42",
    "POLL_INITIAL_SECONDS": "0.2",
    "POLL_FACTOR": "1.3",
    "POLL_CAP_SECONDS": "1",
    "START_LIMIT_SECONDS": "25",
    "DEADLINE_SECONDS": "90",
    "RETRY_ATTEMPTS": "12",
    "RETRY_CAP_SECONDS": "1",
}
WRONG_CENT = "UPDATE legacy_trial_balances SET end_balance = end_balance + 0.01 WHERE year = {year} AND month = {month}"
# Mutant -> file of handler/, the original text, the mutated text. A run that does not report each of these proves
# nothing.
MUTANTS = {
    "auto-drop": ("genius.py", "auto_drop => FALSE", "auto_drop => TRUE"),
    "any-status": ("closing_job.sql", "  IF v_status IS NULL OR v_status {failure} THEN", "  IF 1 = 0 THEN"),
    "no-guard": ("closing_job.sql", "  IF v_other IS NOT NULL THEN", "  IF 1 = 0 THEN"),
    "wrong-cent": ("rollup.py", "check_written(session, year, month)", f'(session.run(f"{WRONG_CENT}"), [])[1]'),
}


def mutate(folder: Path, mutant: str) -> None:
    """Apply a mutant to a copy of handler/; raises ValueError if its original text is gone."""
    file, original, mutated = MUTANTS[mutant]
    path = folder / file
    text = path.read_text()
    if original not in text:
        raise ValueError(f"mutant {mutant!r} does not fit handler/{file}: {original!r} is not in it")
    path.write_text(text.replace(original, mutated))


class Checkout:
    """A copy of the repository, and the commands that are run in it."""

    def __init__(self, folder: Path, state: Path, mutant: str | None = None, durations: dict[str, str] = DURATIONS):
        self.folder, self.state, self.durations, self.deploys = folder, state, durations, 0
        checkout.copy(folder)
        self.write_environment()
        if mutant:
            mutate(folder / "handler", mutant)

    def write_environment(self) -> None:
        """Write the compressed durations to the copy's env/local.env."""
        path = self.folder / "env" / "local.env"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(self.compressed(line) for line in lines) + "\n")

    def compressed(self, line: str) -> str:
        """Return a line of an environment file with its compressed duration, if it has one."""
        key = line.partition("=")[0]
        return f"{key}={self.durations[key]}" if key in self.durations else line

    def inv(self, *words: str) -> subprocess.CompletedProcess:
        """Run a task in the copy, against the run's own local cloud."""
        environ = {**os.environ, "FINANCE_CLOSING_STATE": str(self.state), "FINANCE_CLOSING_TOOLS": str(tools())}
        return subprocess.run(
            [INV, *words], cwd=self.folder, env=environ, capture_output=True, text=True, timeout=240, check=False
        )

    def deploy(self) -> None:
        """Deploy a new version: from the second time on, the code differs by a line."""
        if self.deploys:
            with (self.folder / "handler" / "__init__.py").open("a") as file:
                file.write(f"# deploy {self.deploys}\n")
        self.deploys += 1
        done = self.inv("deploy", "--env", "local")
        if done.returncode:
            raise RuntimeError(f"deploy failed: {done.stderr.strip()}")


def tools() -> Path:
    """Return the folder of the downloaded programs."""
    return Path(os.environ.get("FINANCE_CLOSING_TOOLS") or ROOT / ".local" / "tools")
