"""inv ping: whether the version that Restate invokes answers, for a person and for cron."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from shlex import quote as q

from invoke import Exit
from invoke.exceptions import CommandTimedOut

from ops import commands, config, shell
from ops.shell import ROOT, aws, failure
from ops.task import NOTHING, task

# The bound of one command. A ping runs two at most, so it ends within a minute and needs no lock against another one.
BOUND_SECONDS = 25


def invoke_live(cfg: dict, event_file: str, answer_file: str) -> str:
    bounds = f"--cli-connect-timeout 5 --cli-read-timeout {BOUND_SECONDS - 5}"
    return commands.invoke_function(cfg, event_file, answer_file, bounds=bounds)


def get_live(cfg: dict) -> str:
    return aws(cfg, f"lambda get-function-configuration --function-name {q(cfg['FUNCTION_NAME'])} --qualifier live")


@task(
    group="watch",
    changes=NOTHING,
    help={
        **config.ENV_HELP,
        "deep": "open PostgreSQL and Genius too",
        "quiet": "print nothing when all is well, for cron",
    },
)
def ping(c, env, deep=False, quiet=False):
    """Ask the live version whether it is well; exit 1 with one line when it is not."""
    cfg = config.load(env)
    answer = ask(c, cfg, env, {"ping": "deep" if deep else True})
    fault = wrong(answer)
    if fault:
        raise Exit(f"{env}: {cfg['FUNCTION_NAME']} version {answer.get('version')} is not well: {fault}")
    if not quiet:
        print(f"{env}: {told(answer, revision(c, cfg, env))}")


def ask(c, cfg: dict, env: str, event: dict) -> dict:
    """Send an event to the live version and return its answer; a look-up, so real under --dry too."""
    with tempfile.TemporaryDirectory() as folder:
        sent, got = Path(folder, "event.json"), Path(folder, "answer.json")
        sent.write_text(json.dumps(event))
        said = bounded(c, cfg, env, invoke_live(cfg, str(sent), str(got)))
        answer = json.loads(got.read_text() or "null")
    if "FunctionError" in said:
        known = answer.get("errorMessage", answer) if isinstance(answer, dict) else answer
        raise Exit(f"{env}: {cfg['FUNCTION_NAME']} failed: {known}; look with `inv logs --env {env}`")
    return answer


def bounded(c, cfg: dict, env: str, command: str) -> dict:
    """What a command of the AWS CLI answered within the bound; Exit in one line otherwise."""
    environ = {**shell.command_environment(cfg), "AWS_MAX_ATTEMPTS": "1"}
    try:
        done = c.run(command, hide=True, warn=True, dry=False, env=environ, in_stream=False, timeout=BOUND_SECONDS)
    except CommandTimedOut:
        raise Exit(
            f"{env}: {cfg['FUNCTION_NAME']} gave no answer within {BOUND_SECONDS} s;"
            f" see what it does with `inv logs --env {env}`"
        ) from None
    if done.ok:
        return json.loads(done.stdout)
    hint = f"; run `inv deploy --env {env}`" if "ResourceNotFoundException" in done.stderr else ""
    raise Exit(f"{env}: {failure(command, done)}{hint}")


def description(digest: str) -> str:
    """A version's description: the bundle's digest and the commit it was made from, * where files differed.

    It stands here and not in the bundle, whose identity would change with each commit that leaves handler/ alone.
    """
    said = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty=*", "--abbrev=10", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{digest[:12]} git {said.stdout.strip() or 'unknown'}"


def revision(c, cfg: dict, env: str) -> str:
    """What the live version was published from; a version's description keeps it, the bundle does not know it."""
    return bounded(c, cfg, env, get_live(cfg)).get("Description") or "unknown"


def wrong(answer: dict) -> str:
    """What a ping's answer says is wrong, in one line; empty when all is well."""
    databases = {name: answer[name] for name in ("postgres", "oracle") if name in answer}
    faults = [f"{name}: {one['error']}" for name, one in databases.items() if not one["ok"]]
    faults += [f"schema: {fault}" for one in databases.values() for fault in one.get("faults", [])]
    if faults or answer.get("ok"):
        return "; ".join(faults)
    return f"it answered {json.dumps(answer)[:200]}"


def told(answer: dict, published: str) -> str:
    """A ping's answer in one line."""
    temper = "cold" if answer["cold"] else "warm"
    line = f"version {answer['version']} ({published}), {temper}, up {answer['uptimeSeconds']:.0f} s"
    if "postgres" not in answer:
        return line
    postgres, oracle, client = answer["postgres"], answer["oracle"], answer["client"]
    driver = f"{client['mode']} mode" + (f", client {client['version']}" if client["version"] else "")
    return (
        f"{line}; PostgreSQL {postgres['version']} in {postgres['seconds'] * 1000:.0f} ms;"
        f" Oracle {oracle['version']} in {oracle['seconds'] * 1000:.0f} ms, {driver}"
    )
