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
from collections.abc import Mapping
from pathlib import Path
from shlex import quote as q
from typing import NamedTuple

from invoke import Exit

from ops import aws_cli, config, environment, terminal
from ops.progress import waiting_for

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
# A restart of this machine ends its services.
START = "if it is the local cloud, run `inv local.up`"
# Errors of AWS and its CLI that a person can fix, and how; the first match is reported.
FIXES = (
    ("aws sso login", "run `aws sso login{profile}`"),
    ("Error loading SSO Token", "run `aws sso login{profile}`"),
    ("Token has expired and refresh failed", "run `aws sso login{profile}`"),
    ("Error when retrieving token from sso", "run `aws sso login{profile}`"),
    ('Could not connect to the endpoint URL: "http://127.0.0.1', START),
    ("Unable to locate credentials", "sign in, or name a profile as AWS_PROFILE in the env file"),
    ("The config profile", "correct AWS_PROFILE in the env file, or make the profile"),
    ("ExpiredToken", "sign in again"),
    ("iam:PassRole", "policies/deploy.json allows it; an administrator applies it with `inv roles --env ENV`"),
    ("AccessDenied", "policies/ lists who may do what; an administrator applies it with `inv roles --env ENV`"),
    ("Throttling", "AWS received too many requests; run it again in a minute"),
    ("TooManyRequestsException", "AWS received too many requests; run it again in a minute"),
    ("ResourceConflictException", "find out what else changes the function, then run it again"),
    ("Unzipped size", "remove packages from handler/requirements.in, or use a smaller layer"),
)
# The first AWS CLI of generation 2 that reads AWS_ENDPOINT_URL.
READS_ENDPOINT = (2, 13)
# Options of Invoke's own `run`, for commands whose output goes to the screen: neither INVOKE_… nor a style changes it.
PLAIN = {"pty": False, "echo_format": "{command}", "replace_env": True}
# The number of changes that this process has made or, under --dry, has printed.
changes = 0


def aws(cfg: dict[str, str], words: str) -> str:
    """Return a command of the AWS CLI that can be copied and pasted."""
    profile = f" --profile {q(cfg['AWS_PROFILE'])}" if cfg["AWS_PROFILE"] else ""
    return f"aws --region {q(cfg['AWS_REGION'])}{profile} {words}"


def is_aws(command: str) -> bool:
    """Return whether a command calls AWS."""
    return "aws --region " in command


def get_account(cfg: dict[str, str]) -> str:
    return aws(cfg, "sts get-caller-identity")


def into(file: str, command: str) -> str:
    """Return a command that stores another one's output in a file of build/."""
    return f"mkdir -p {q(str(Path(file).parent))} && {command} > {q(file)}"


def save_json(value: object, file: str) -> str:
    """Return a command that stores a value without secrets as JSON in a file of build/."""
    return into(file, f"printf '%s\\n' {q(json.dumps(value))}")


def command_environment(cfg: dict[str, str]) -> dict[str, str]:
    """Return the environment of every command of a task; tokens travel here and not as arguments."""
    given = environment.of_target(cfg)
    return given | {"PATH": search_path(given)}


def search_path(given: Mapping[str, str]) -> str:
    """Return the PATH of commands: the pinned AWS CLI first, the restate CLI of `inv local.tools` last."""
    folders = [str(Path(sys.executable).parent), *given.get("PATH", os.defpath).split(os.pathsep), str(TOOLS)]
    return os.pathsep.join(dict.fromkeys(folders))


def checked_environment(cfg: dict[str, str], command: str) -> dict[str, str]:
    """Return command_environment; raises Exit if the AWS CLI would call AWS instead of AWS_ENDPOINT_URL."""
    environ = command_environment(cfg)
    if cfg["AWS_ENDPOINT_URL"] and is_aws(command):
        refuse_old_cli(shutil.which("aws", path=environ["PATH"]) or "", cfg["AWS_ENDPOINT_URL"])
    return environ


class Done(NamedTuple):
    """A command that has ended: its exit code, and its output as text."""

    exited: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.exited == 0


def run(command: str, environ: dict[str, str], seconds: float | None = None) -> Done:
    """Run a command line in bash, in the repository's folder and without input; TimeoutExpired after `seconds`.

    Not Invoke's own `run`: its settings, such as INVOKE_RUN_PTY, come from the user and would change the output.
    """
    with waiting_for(f"`{first_words(command)} …`"):
        parsed = aws_cli.parse(command, environ, ROOT)
        return Done(*aws_cli.run(parsed, environ, ROOT, seconds)) if parsed else in_bash(command, environ, seconds)


def in_bash(command: str, environ: dict[str, str], seconds: float | None) -> Done:
    process = subprocess.Popen(
        [bash(environ), "-c", command],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except BaseException:
        # Not `with`, which would wait for a command that does not end.
        process.kill()
        raise
    return Done(process.returncode, output, errors)


def bash(environ: dict[str, str]) -> str:
    return shutil.which("bash", path=environ["PATH"]) or "/bin/bash"


@functools.lru_cache
def refuse_old_cli(cli: str, endpoint: str) -> None:
    """Raise Exit if an AWS CLI ignores AWS_ENDPOINT_URL; the one of requirements.txt reads it."""
    if not cli or Path(cli).parent == Path(sys.executable).parent:
        return
    output = subprocess.run([cli, "--version"], env=environment.clean(), capture_output=True, text=True).stdout
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
    done = run(command, checked_environment(cfg, command))
    if done.ok:
        return done.stdout.strip()
    if missing and missing in done.stderr:
        return None
    raise Exit(config.name_environment(failure(command, done), cfg.get("ENVIRONMENT", "ENV")))


def query_json(c, cfg: dict[str, str], command: str, missing: str | None = None) -> dict | None:
    """Return the answer of `query` parsed as JSON."""
    found = query(c, cfg, command, missing)
    try:
        return None if found is None else json.loads(found)
    except ValueError:
        # Its text can have secrets.
        raise Exit(
            f"`{first_words(command)} …` printed no JSON; run it yourself with the variables of"
            f" `inv env.shell --env {cfg['ENVIRONMENT']}`"
        ) from None


def execute(c, cfg: dict[str, str], command: str) -> str:
    """Change something: echoed in full, skipped under --dry. Its output is not printed, because it can have secrets."""
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
        done = run(command, checked_environment(cfg, command))
        if done.ok:
            return done.stdout.strip()
        if not any(words in done.stderr for words in TRANSIENT) or time.monotonic() > deadline:
            raise Exit(config.name_environment(failure(command, done), cfg.get("ENVIRONMENT", "ENV")))
        time.sleep(PAUSE_SECONDS)


def announce(command: str) -> None:
    """Echo a command that can be copied and pasted."""
    print(terminal.styled(command, terminal.FAINT), flush=True)


def failure(command: str, done: Done) -> str:
    """Return one line on a failed command: its first words, its last line of output, and the fix if it is known."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    words = first_words(command)
    if "PreconditionFailedException" in done.stderr:
        return f"`{words} …` was refused: somebody else has changed the function meanwhile; check it, then run it again"
    profile = re.search(r" --profile \S+", command)
    fix = next((fix for sign, fix in FIXES if sign in done.stderr), "")
    fix = f"; {fix.format(profile=profile[0] if profile else '')}" if fix else ""
    return f"`{words} …` failed with exit {done.exited}: {lines[-1] if lines else 'it printed nothing'}{fix}"


def first_words(command: str) -> str:
    """Return the first three words of a command's last part, without region and profile."""
    last = re.sub(r" --(region|profile) \S+", "", command.rpartition("&& ")[2])
    return " ".join(last.split()[:3])
