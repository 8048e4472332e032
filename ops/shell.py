"""The two doors to the world: look-ups, which are always real, and changes, which `inv --dry` only shows."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from invoke import Exit

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(os.environ.get("FINANCE_CLOSING_TOOLS") or ROOT / ".local" / "tools") / "bin"
ANSWER_SECONDS = 30
# What AWS says while an update, a new role or its own haste is in the way; everything else is an error at once.
PASSING = (
    "An update is in progress",
    "is currently in the following state: Pending",
    "cannot be assumed by Lambda",
    "TooManyRequestsException",
    "(Throttling",
)
PATIENCE_SECONDS, PAUSE_SECONDS = 120, 3
# What AWS and its CLI say that is a person's to mend, and how; the first that fits is told.
MENDS = (
    ("Unable to locate credentials", "sign in, or name a profile as AWS_PROFILE in the env file"),
    ("The config profile", "correct AWS_PROFILE in the env file, or make the profile"),
    ("ExpiredToken", "sign in again"),
    ("iam:PassRole", "policies/deploy.json allows it; an administrator brings it to the role with `inv roles`"),
    ("AccessDenied", "policies/ says who may do what; an administrator brings it to the roles with `inv roles`"),
    ("Throttling", "AWS is asked too often; run it again in a minute"),
    ("TooManyRequestsException", "AWS is asked too often; run it again in a minute"),
    ("ResourceConflictException", "see what else changes the function, then run it again"),
)
# The first CLI of generation 2 that heeds AWS_ENDPOINT_URL.
HEEDS_ENDPOINT = (2, 13)
# Look-ups that have begun, by their command; the first change makes them stale.
AHEAD: dict[str, concurrent.futures.Future] = {}
# How many changes this process has made or, under --dry, has shown.
changes = 0


def aws(cfg: dict[str, str], words: str) -> str:
    """A command of the AWS CLI, as it is pasted."""
    profile = f" --profile {shlex.quote(cfg['AWS_PROFILE'])}" if cfg["AWS_PROFILE"] else ""
    return f"aws --region {shlex.quote(cfg['AWS_REGION'])}{profile} {words}"


def command_environment(cfg: dict[str, str]) -> dict[str, str]:
    """What the AWS and restate CLIs read beside their arguments; tokens travel here and not as arguments."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), str(TOOLS)])
    given = {
        "PATH": path,
        "AWS_PAGER": "",
        "RESTATE_ADMIN_URL": cfg["RESTATE_ADMIN_URL"],
        "RESTATE_AUTH_TOKEN": cfg["RESTATE_AUTH_TOKEN"],
    }
    if cfg["AWS_ENDPOINT_URL"]:
        # An emulator never gets to see the shell's own credentials.
        local = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_SESSION_TOKEN": ""}
        given |= {"AWS_ENDPOINT_URL": cfg["AWS_ENDPOINT_URL"], **local}
    return {name: value for name, value in given.items() if value or name == "AWS_PAGER"}


def checked_environment(cfg: dict[str, str], command: str) -> dict[str, str]:
    """command_environment; Exit where a CLI would send to AWS itself what is meant for another endpoint."""
    environ = command_environment(cfg)
    if cfg["AWS_ENDPOINT_URL"] and "aws --region" in command:
        refuse_deaf_cli(shutil.which("aws", path=environ["PATH"]) or "", cfg["AWS_ENDPOINT_URL"])
    return environ


@functools.lru_cache
def refuse_deaf_cli(cli: str, endpoint: str) -> None:
    if not cli or Path(cli).parent == Path(sys.executable).parent:
        # The one of requirements.txt, which heeds it.
        return
    said = subprocess.run([cli, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"aws-cli/(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < HEEDS_ENDPOINT and version[0] != 1:
        raise Exit(
            f"{cli} is {said.split(' ')[0].strip() or 'of no known version'}, which ignores AWS_ENDPOINT_URL={endpoint}"
            " and would go to AWS itself; take AWS CLI 2.13 or the one that `make .venv/ready` installs. Nothing sent."
        )


def run(c, cfg: dict[str, str], command: str):
    environ = checked_environment(cfg, command)
    return c.run(command, hide=True, warn=True, dry=False, env=environ, in_stream=False)


@contextlib.contextmanager
def looking_ahead(c, cfg: dict[str, str], commands: list[str]):
    """Begin look-ups that `read` will want, all at once: most of each is the CLI's own start."""
    with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
        AHEAD.update({command: pool.submit(run, c, cfg, command) for command in commands})
        try:
            yield
        finally:
            AHEAD.clear()


def query(c, cfg: dict[str, str], command: str, missing: str | None = None) -> str | None:
    """Look something up, also under --dry; None where the service's error is the one named by `missing`."""
    ahead = AHEAD.pop(command, None)
    done = ahead.result() if ahead else run(c, cfg, command)
    if done.ok:
        return done.stdout.strip()
    if missing and missing in done.stderr:
        return None
    raise Exit(failure(command, done))


def query_json(c, cfg: dict[str, str], command: str, missing: str | None = None) -> dict | None:
    found = query(c, cfg, command, missing)
    return None if found is None else json.loads(found)


def execute(c, cfg: dict[str, str], command: str) -> str:
    """Change something: echoed whole, skipped under --dry. What it prints is not shown: it may hold secrets."""
    global changes
    changes += 1
    return run_local(c, cfg, command)


def run_local(c, cfg: dict[str, str], command: str) -> str:
    """execute for a file on this machine, which the next command needs or has needed: that alone is no change."""
    announce(command)
    if c.config.run.dry:
        return ""
    AHEAD.clear()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = c.run(command, hide=True, warn=True, env=checked_environment(cfg, command), in_stream=False)
        if done.ok:
            return done.stdout.strip()
        if not any(words in done.stderr for words in PASSING) or time.monotonic() > deadline:
            raise Exit(failure(command, done))
        time.sleep(PAUSE_SECONDS)


def announce(command: str) -> None:
    """Echo a command as it can be pasted."""
    print(f"\033[2m{command}\033[0m" if sys.stdout.isatty() else command, flush=True)


def failure(command: str, done) -> str:
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    last = re.sub(r" --(region|profile) \S+", "", command.rpartition("&& ")[2])
    words = " ".join(last.split()[:3])
    if "PreconditionFailedException" in done.stderr:
        return f"`{words} …` was refused: somebody else has changed the function meanwhile; look, then run it again"
    mend = next((f"; {mend}" for sign, mend in MENDS if sign in done.stderr), "")
    return f"`{words} …` failed with exit {done.exited}: {said[-1] if said else 'it said nothing'}{mend}"


def needs_token(cfg: dict[str, str], url: str) -> bool:
    """Whether a call carries the token. Restate stores an ingress call's headers and hands them to the function, so
    the ingress gets it only if it asks for it: Restate Cloud's, or one behind a proxy as the env file says."""
    bare = url.strip("\"'")
    host = urllib.parse.urlsplit(bare).hostname or ""
    asked_for = cfg["RESTATE_INGRESS_AUTH"] == "on" or host.endswith(".restate.cloud")
    return bool(cfg["RESTATE_AUTH_TOKEN"]) and (bare.startswith(cfg["RESTATE_ADMIN_URL"]) or asked_for)


def request(cfg: dict[str, str], method: str, url: str, body: object = None) -> tuple[int, object]:
    """One call of Restate's HTTP API: (status, JSON or text); Exit in one line where nobody answers."""
    headers = {"accept": "application/json"} | ({} if body is None else {"content-type": "application/json"})
    if needs_token(cfg, url):
        headers["authorization"] = f"Bearer {cfg['RESTATE_AUTH_TOKEN']}"
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(call, timeout=ANSWER_SECONDS) as answer:
            return answer.status, decoded(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, decoded(error.read())
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Exit(
            f"Restate at {url.split('/', 3)[2]} does not answer: {reason}; is it up, and is the URL right?"
        ) from None


def literal(value: str) -> str:
    """A value as SQL text; Exit unless it looks like a name, key or id, because this API takes no parameters."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", value):
        raise Exit(f"{value!r:.80} is not a name, key or id; nothing was sent to Restate")
    return f"'{value}'"


def decoded(answer: bytes) -> object:
    try:
        return json.loads(answer) if answer else None
    except ValueError:
        return answer.decode(errors="replace")


def sql(cfg: dict[str, str], query: str, *values: str) -> list[dict]:
    """Rows of Restate's introspection tables. Each ? of the query stands for one of the values: a name, key or id."""
    first, *rest = query.split("?")
    query = first + "".join(f"{literal(value)}{text}" for value, text in zip(values, rest, strict=True))
    status, answer = request(cfg, "POST", f"{cfg['RESTATE_ADMIN_URL']}/query", {"query": query})
    if status != 200 or not isinstance(answer, dict):
        raise Exit(f"Restate's query API answered {status}: {answer}")
    return answer["rows"]
