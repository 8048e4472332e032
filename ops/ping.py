"""inv ping: check that the version which Restate invokes answers, for a person and for cron."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from shlex import quote as q

from invoke import Exit

from ops import config, environment, shell
from ops.shell import ROOT, aws, failure
from ops.target import Target
from ops.task import NOTHING, task

# The limit of one command. A ping runs two at most, so it ends within a minute and needs no lock.
LIMIT_SECONDS = 25
# The names of the databases in a deep answer.
DATABASES = ("postgres", "oracle")


def invoke_live(cfg: dict, event_file: str, answer_file: str, seconds: int = LIMIT_SECONDS) -> str:
    bounds = f"--cli-connect-timeout 5 --cli-read-timeout {seconds - 5}"
    return invoke_function(cfg, event_file, answer_file, bounds=bounds)


def invoke_function(cfg, payload_file, answer_file, qualifier="live", bounds="--cli-read-timeout 60"):
    """Return the command that invokes the function; bounds: how long the CLI waits."""
    return aws(
        cfg,
        f"lambda invoke --function-name {q(cfg['FUNCTION_NAME'])}:{q(qualifier)} --payload fileb://{q(payload_file)}"
        f" {bounds} {q(answer_file)}",
    )


def get_configuration(cfg: dict, qualifier: str = "live") -> str:
    return aws(
        cfg, f"lambda get-function-configuration --function-name {q(cfg['FUNCTION_NAME'])} --qualifier {q(qualifier)}"
    )


@task(
    group="watch",
    changes=NOTHING,
    uses=("aws",),
    help={
        **config.ENV_HELP,
        "deep": "connect to PostgreSQL and Genius, too",
        "quiet": "print nothing on success, for cron",
        "closings": "also report closings and a schedule that need a person, and databases that are not reached",
    },
)
def ping(c, env, deep=False, quiet=False, closings=False):
    """Check that the live version answers; exit 1 with one line for each fault and its next command."""
    target = Target.load(c, env)
    lines = []
    try:
        answer = send(target, {"ping": "deep" if deep else "reach" if closings else True})
        fault = find_fault(answer)
        if fault:
            name = target.cfg["FUNCTION_NAME"]
            raise Exit(f"{env}: {name} version {answer.get('version')} failed its ping: {fault}")
        if not quiet:
            print(f"{env}: {format_answer(answer, live_description(target))}")
    except Exit as error:
        lines.append(with_next(error, env))
    if closings:
        lines += attend(target)
    if lines:
        raise Exit("\n".join(lines))


def with_next(error: Exit, env: str) -> str:
    """Return an error with a next command: the doctor, unless it names one already."""
    text = str(error.message)
    return text if re.search(r"\binv \w", text) else f"{text}; next: inv doctor --env {env}"


def attend(target: Target) -> list[str]:
    """Return a line for each finding of attention.py, or one if Restate does not answer."""
    # Imported here: a ping of the function alone starts faster without it.
    from ops import attention

    try:
        return [f"{target.env}: {line}" for line in attention.find(target)]
    except Exit as error:
        return [f"{target.env}: {with_next(error, target.env)}"]


def send(target: Target, event: dict, seconds: int = LIMIT_SECONDS) -> dict:
    """Send an event to the live version and return its answer; a look-up, so it also runs under --dry.

    seconds: how long to wait for the answer.
    """
    name, env = target.cfg["FUNCTION_NAME"], target.env
    with tempfile.TemporaryDirectory() as folder:
        sent, got = Path(folder, "event.json"), Path(folder, "answer.json")
        sent.write_text(json.dumps(event))
        result = query_in_time(target, invoke_live(target.cfg, str(sent), str(got), seconds), seconds)
        answer = json.loads(config.name_environment(got.read_text(), target.env) or "null")
    if "FunctionError" in result:
        error = answer.get("errorMessage", answer) if isinstance(answer, dict) else answer
        raise Exit(f"{env}: {name} failed: {error}; next: inv doctor --env {env}")
    return answer


def query_in_time(target: Target, command: str, seconds: int = LIMIT_SECONDS) -> dict:
    """Return the JSON answer of an AWS CLI command; Exit in one line if it fails or takes longer than `seconds`."""
    name, env = target.cfg["FUNCTION_NAME"], target.env
    environ = {**shell.command_environment(target.cfg), "AWS_MAX_ATTEMPTS": "1"}
    silent = Exit(
        f"{env}: {name} did not answer within {seconds} s; read its log with `inv logs --env {env} --since 1h`"
    )
    try:
        done = shell.run(command, environ, seconds)
    except subprocess.TimeoutExpired:
        raise silent from None
    if done.ok:
        return json.loads(done.stdout)
    # The CLI's own limit comes first; the network is not the cause, because the request was sent.
    if "Read timeout on endpoint URL" in done.stderr:
        raise silent
    fix = f"; run `inv deploy --env {env}`" if "ResourceNotFoundException" in done.stderr else ""
    raise Exit(config.name_environment(f"{env}: {failure(command, done)}{fix}", env))


def description(digest: str) -> str:
    """Return a version's description: the bundle's digest and the commit, with * if files differ from it.

    The commit is not in the bundle, because then each commit would change the bundle, also one that does not touch
    handler/.
    """
    commit = ""
    # A ZIP that was unpacked inside of another repository has no commit.
    if git("ls-files", "--error-unmatch", "tasks.py"):
        commit = git("describe", "--always", "--dirty=*", "--abbrev=10", "--exclude=*")
    return f"{digest[:12]} git {commit or 'unknown'}"


def git(*words: str) -> str:
    """Return what git prints in this checkout; "" if it fails or is not installed."""
    command = ["git", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, env=environment.clean(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def live_description(target: Target) -> str:
    """Return the description of the live version, which names its commit."""
    return query_in_time(target, get_configuration(target.cfg)).get("Description") or "unknown"


def find_fault(answer: dict) -> str:
    """Describe in one line what is wrong with a ping's answer; "" if nothing is."""
    databases = {name: answer[name] for name in DATABASES if name in answer}
    faults = [f"{name}: {one['error']}" for name, one in databases.items() if not one["ok"]]
    faults += [f"schema: {fault}" for one in databases.values() for fault in one.get("faults", [])]
    if faults or answer.get("ok"):
        return "; ".join(faults)
    return f"it answered {json.dumps(answer)[:200]}"


def format_start(answer: dict) -> str:
    """Format how long the function's process has been up, as the words after its version."""
    return f"{'cold' if answer['cold'] else 'warm'}, up {answer['uptimeSeconds']:.0f} s"


def format_answer(answer: dict, published: str) -> str:
    """Format a ping's answer in one line; published: the live version's description."""
    line = f"version {answer['version']} ({published}), {format_start(answer)}"
    if "client" not in answer:
        return line
    postgres, oracle, client = answer["postgres"], answer["oracle"], answer["client"]
    driver = f"{client['mode']} mode" + (f", client {client['version']}" if client["version"] else "")
    return (
        f"{line}; PostgreSQL {postgres['version']} in {postgres['seconds'] * 1000:.0f} ms;"
        f" Oracle {oracle['version']} in {oracle['seconds'] * 1000:.0f} ms, {driver}{format_cold_start(answer)}"
    )


def format_cold_start(answer: dict) -> str:
    """Format the parts of a cold start, of which a warm process has only the connects; "" for an older version."""
    if answer.get("importSeconds") is None:
        return ""
    parts = (answer["importSeconds"], answer["client"]["seconds"], *(answer[n]["connectSeconds"] for n in DATABASES))
    imports, driver, *connects = (f"{seconds * 1000:.0f} ms" for seconds in parts)
    return f"; imports {imports}, Oracle driver {driver}, connects {' and '.join(connects)}"
