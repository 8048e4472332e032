"""Runs commands: `query` looks something up, `execute` changes something. `--dry` is decided here and only here."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote as q

from invoke import Exit

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(os.environ.get("FINANCE_CLOSING_TOOLS") or ROOT / ".local" / "tools") / "bin"
# AWS's messages for an update in progress, a role that is too new, or too many calls; any other error is final.
TRANSIENT = (
    "An update is in progress",
    "is currently in the following state: Pending",
    "cannot be assumed by Lambda",
    "TooManyRequestsException",
    "(Throttling",
)
RETRY_SECONDS, PAUSE_SECONDS = 120, 3
# Errors of AWS and its CLI that a person can fix, and how; the first match is reported.
FIXES = (
    ("Unable to locate credentials", "sign in, or name a profile as AWS_PROFILE in the env file"),
    ("The config profile", "correct AWS_PROFILE in the env file, or make the profile"),
    ("ExpiredToken", "sign in again"),
    ("iam:PassRole", "policies/deploy.json allows it; an administrator applies it with `inv roles`"),
    ("AccessDenied", "policies/ lists who may do what; an administrator applies it with `inv roles`"),
    ("Throttling", "AWS received too many requests; run it again in a minute"),
    ("TooManyRequestsException", "AWS received too many requests; run it again in a minute"),
    ("ResourceConflictException", "find out what else changes the function, then run it again"),
    ("Unzipped size", "remove packages from handler/requirements.in, or use a smaller layer"),
)
# The first AWS CLI of generation 2 that reads AWS_ENDPOINT_URL.
READS_ENDPOINT = (2, 13)
# The number of changes that this process has made or, under --dry, has printed.
changes = 0


def aws(cfg: dict[str, str], words: str) -> str:
    """Return a command of the AWS CLI that can be copied and pasted."""
    profile = f" --profile {q(cfg['AWS_PROFILE'])}" if cfg["AWS_PROFILE"] else ""
    return f"aws --region {q(cfg['AWS_REGION'])}{profile} {words}"


def into(file: str, command: str) -> str:
    """Return a command that stores another one's output in a file of build/."""
    return f"mkdir -p {q(str(Path(file).parent))} && {command} > {q(file)}"


def save_json(value: object, file: str) -> str:
    """Return a command that stores a value without secrets as JSON in a file of build/."""
    return into(file, f"printf '%s\\n' {q(json.dumps(value))}")


def command_environment(cfg: dict[str, str]) -> dict[str, str]:
    """Return the variables that the AWS and restate CLIs read; tokens travel here and not as arguments."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), str(TOOLS)])
    given = {
        "PATH": path,
        "AWS_PAGER": "",
        "RESTATE_ADMIN_URL": cfg["RESTATE_ADMIN_URL"],
        "RESTATE_AUTH_TOKEN": cfg["RESTATE_AUTH_TOKEN"],
    }
    if cfg["AWS_ENDPOINT_URL"]:
        # Another endpoint than AWS never receives the shell's own credentials.
        local = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_SESSION_TOKEN": ""}
        given |= {"AWS_ENDPOINT_URL": cfg["AWS_ENDPOINT_URL"], **local}
    return {name: value for name, value in given.items() if value or name == "AWS_PAGER"}


def checked_environment(cfg: dict[str, str], command: str) -> dict[str, str]:
    """Return command_environment; raises Exit if the AWS CLI would call AWS instead of AWS_ENDPOINT_URL."""
    environ = command_environment(cfg)
    if cfg["AWS_ENDPOINT_URL"] and "aws --region" in command:
        refuse_old_cli(shutil.which("aws", path=environ["PATH"]) or "", cfg["AWS_ENDPOINT_URL"])
    return environ


@functools.lru_cache
def refuse_old_cli(cli: str, endpoint: str) -> None:
    """Raise Exit if an AWS CLI ignores AWS_ENDPOINT_URL; the one of requirements.txt reads it."""
    if not cli or Path(cli).parent == Path(sys.executable).parent:
        return
    output = subprocess.run([cli, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"aws-cli/(\d+)\.(\d+)", output)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < READS_ENDPOINT and version[0] != 1:
        name = output.split(" ")[0].strip() or "of unknown version"
        raise Exit(
            f"{cli} is {name}, which ignores AWS_ENDPOINT_URL={endpoint} and would call AWS itself; use AWS CLI 2.13 or"
            " the one that `make .venv/ready` installs. Nothing was sent."
        )


def query(c, cfg: dict[str, str], command: str, missing: str | None = None) -> str | None:
    """Look something up, also under --dry; returns None if the service's error is the one named by `missing`."""
    environ = checked_environment(cfg, command)
    done = c.run(command, hide=True, warn=True, dry=False, env=environ, in_stream=False)
    if done.ok:
        return done.stdout.strip()
    if missing and missing in done.stderr:
        return None
    raise Exit(failure(command, done))


def query_json(c, cfg: dict[str, str], command: str, missing: str | None = None) -> dict | None:
    """Return the answer of `query` parsed as JSON."""
    found = query(c, cfg, command, missing)
    return None if found is None else json.loads(found)


def execute(c, cfg: dict[str, str], command: str) -> str:
    """Change something: echoed whole, skipped under --dry. Its output is not printed, because it can have secrets."""
    global changes
    changes += 1
    return run_local(c, cfg, command)


def run_local(c, cfg: dict[str, str], command: str) -> str:
    """Run a command like `execute`, but do not count it as a change: it only touches files on this machine."""
    announce(command)
    if c.config.run.dry:
        return ""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        done = c.run(command, hide=True, warn=True, env=checked_environment(cfg, command), in_stream=False)
        if done.ok:
            return done.stdout.strip()
        if not any(words in done.stderr for words in TRANSIENT) or time.monotonic() > deadline:
            raise Exit(failure(command, done))
        time.sleep(PAUSE_SECONDS)


def announce(command: str) -> None:
    """Echo a command that can be copied and pasted."""
    print(f"\033[2m{command}\033[0m" if sys.stdout.isatty() else command, flush=True)


def failure(command: str, done) -> str:
    """Return one line on a failed command: its first words, its last line of output, and the fix if it is known."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    last = re.sub(r" --(region|profile) \S+", "", command.rpartition("&& ")[2])
    words = " ".join(last.split()[:3])
    if "PreconditionFailedException" in done.stderr:
        return f"`{words} …` was refused: somebody else has changed the function meanwhile; check it, then run it again"
    fix = next((f"; {fix}" for sign, fix in FIXES if sign in done.stderr), "")
    return f"`{words} …` failed with exit {done.exited}: {lines[-1] if lines else 'it printed nothing'}{fix}"
