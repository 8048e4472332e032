"""The deploy cycle from nothing on a cloud of its own: its calls of AWS, its secrets, its printed commands pasted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from support.api_recorder import Recorder
from support.helpers import INV, ROOT, STATE, like_local, output_of
from support.helpers import inv as shared_inv
from support.instantclient import AIO

from layer import publish
from ops import bundle, config, deploy, logs, release, shell
from ops.alias import get_alias

# A cloud of its own: `make test-slow`.
pytestmark = pytest.mark.slow
OWN = STATE.with_name("test-cycle")
ENV = "testcycle"
FILE = ROOT / "env" / f"{ENV}.env"
TOKEN = "marked-restate-token-5d1f0c7be9"
CHANGED = ROOT / "handler" / "testcycle.py"
DATE = "2025-01-31"
GIVEN = {
    "FUNCTION_NAME": "cycle",
    "ROLE_NAME": "cycle-lambda",
    "LAYER_NAME": "cycle-client",
    "LOG_RETENTION_DAYS": "30",
    "GITHUB_REPOSITORY": "insurer/finance-closing",
    "RESTATE_AUTH_TOKEN": TOKEN,
}
# The tasks that .github/workflows run as the deploy role, or that an operator may run as it. Everything else that asks
# AWS is an administrator's: roles, oidc, destroy, alarms, warm, layer.prune, logs and doctor.
DEPLOY_ROLES = {
    "layer.publish",
    "deploy",
    "schema",
    "ping",
    "status",
    "versions",
    "rollback",
    "prune",
    "env.diff",
    "bucket",
}
SCRATCH = ROOT / "build" / "scratch"
# Actions that AWS also requires: for the role, the layer, the tags and the object that an operation names.
IMPLIED = {
    "lambda:CreateFunction": {"iam:PassRole", "lambda:GetLayerVersion", "lambda:TagResource"},
    # AWS leaves the tags out of its answer without this one.
    "lambda:GetFunction": {"lambda:ListTags"},
    "lambda:UpdateFunctionConfiguration": {"iam:PassRole", "lambda:GetLayerVersion"},
    "s3:PutObject": {"s3:GetObject"},
}


def inv(*words: str, **options):
    return shared_inv(*words, FINANCE_CLOSING_STATE=str(OWN), **options)


class Ran(NamedTuple):
    """A cycle: the output of its tasks, what was seen of them meanwhile, and the results of tasks and of the paste."""

    cfg: dict[str, str]
    output: dict[str, str]
    lines: set[str]
    modes: set[int]
    calls: list
    by_task: dict
    by_paste: dict


def write_env(**changes: str) -> None:
    FILE.write_text(like_local(**{**GIVEN, **changes}))


class Watch:
    """Reads again and again every process's command line, and the mode of files with secrets."""

    def __init__(self):
        self.lines: set[str] = set()
        self.modes: set[int] = set()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        while not self.done.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.lines.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            for path in SCRATCH.glob(f"*.{ENV}.environment.json"):
                with contextlib.suppress(OSError):
                    self.modes.add(path.stat().st_mode & 0o777)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def commands(echo: str) -> list[str]:
    """Return the lines of an echo that are commands, as an operator would choose them."""
    return [line for line in echo.splitlines() if re.match(r"(aws|inv|restate|rm|mkdir|curl|while|\(umask) ", line)]


def asked(cfg: dict, command: str) -> dict:
    return json.loads(output_of(cfg, command))


def state_of_deploy(cfg: dict) -> dict:
    """Return the result of a deploy, without what is new each time."""
    found = asked(cfg, deploy.get_function(cfg))
    configuration = {
        key: value
        for key, value in found["Configuration"].items()
        if key not in ("LastModified", "RevisionId", "LoggingConfig")
    }
    alias = asked(cfg, get_alias(cfg))
    deployment = release.find_deployment(cfg, f"{found['Configuration']['FunctionArn']}:{alias['FunctionVersion']}")
    assert deployment, "the live version is not registered"
    services = sorted(one["name"] for one in deployment["services"])
    groups = asked(cfg, logs.describe_log_groups(cfg))["logGroups"]
    kept = {one["logGroupName"]: one["retentionInDays"] for one in groups}
    return {"configuration": configuration, "tags": found["Tags"], "services": services, "kept": kept}


def paste(lines: list[str]) -> str:
    """Paste lines into a shell as the runbook describes it: one `eval`, then each line."""
    script = "\n".join([f'eval "$({INV} env.shell --env {ENV})"', *lines])
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PG_", "ORACLE_"))}
    environ |= {"FINANCE_CLOSING_STATE": str(OWN)}
    done = subprocess.run(["bash", "-e"], input=script, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout[-500:], done.stderr)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def cycle(zips, recorder):
    """Run a cycle: roles, layer, deploy, closing, another deploy, roll back, prune, destroy, and a deploy by paste."""
    from local import cloud

    there = cloud.Cloud(OWN, report=lambda line: None)
    there.reset()
    there.up("1")
    write_env()
    try:
        yield run(zips["19"], recorder)
    finally:
        CHANGED.unlink(missing_ok=True)
        FILE.unlink()
        there.reset()


def run(zipped: Path, recorder: Recorder) -> Ran:
    output: dict[str, str] = {}

    def task(*words: str, check: bool = True) -> str:
        done = inv(*words, "--env", ENV, check=check)
        output[words[0]] = output.get(words[0], "") + done.stdout + done.stderr
        return done.stdout

    before = len(recorder.calls())
    with Watch() as watch:
        echo = task("roles")
        cfg = config.load(ENV, {"FINANCE_CLOSING_STATE": str(OWN)})
        libaio = zipped.parent / "system" / AIO
        inv("layer.build", "--runtime", cfg["RUNTIME"], INSTANT_CLIENT=str(zipped), LIBAIO=str(libaio))
        arn = task("layer.publish").splitlines()[-1]
        write_env(LAYER_VERSION_ARN=arn)
        echo += task("deploy")
        by_task = state_of_deploy(cfg)
        for words in (["schema"], ["ping", "--deep"], ["close", "--date", DATE, "--watch"], ["status"], ["env.diff"]):
            task(*words)
        for words in (["doctor"], ["logs"]):
            task(*words, check=False)
        CHANGED.write_text("# Another bundle.\n")
        write_env(LAYER_VERSION_ARN=arn, RETRY_CAP_SECONDS="59", FUNCTION_URL="on", PROVISIONED_CONCURRENCY="2")
        task("deploy")
        task("rollback")
        CHANGED.unlink()
        write_env(LAYER_VERSION_ARN=arn)
        task("deploy")
        task("versions")
        task("prune", "--keep", "1")
        through_the_bucket(cfg)
        calls = recorder.calls()[before:]
        task("destroy", "--yes")
        output["paste"] = paste(commands(echo))
        by_paste = state_of_deploy(cfg)
    return Ran(cfg, output, watch.lines, watch.modes, calls, by_task, by_paste)


def through_the_bucket(cfg: dict) -> None:
    """Return the commands for a bundle and a layer of over 50 MB, with the ones of this cycle."""
    cfg = {**cfg, "DEPLOY_BUCKET": "cycle-bucket"}
    made = bundle.make(cfg)
    layer = deploy.bucket_key(cfg, made)
    for task, command in (
        ("", shell.aws(cfg, "s3 mb s3://cycle-bucket")),
        ("bucket", deploy.copy_to_bucket(cfg, made)),
        ("bucket", publish.upload_layer(cfg, layer)),
        ("bucket", publish.remove_upload(cfg, layer)),
    ):
        output_of(cfg, command, AWS_CSM_CLIENT_ID=task)


def test_the_deploy_role_may_do_what_its_tasks_do_and_no_more(cycle):
    # Nobody needs a right to see who they are.
    called = {call.action for call in cycle.calls if call.task in DEPLOY_ROLES} - {"sts:GetCallerIdentity"}
    assert {call.task for call in cycle.calls} >= DEPLOY_ROLES
    called |= {implied for action in called for implied in IMPLIED.get(action, ())}
    statements = [
        one
        for name in ("deploy", "deploy-bucket")
        for one in json.loads((ROOT / "policies" / f"{name}.json").read_text())["Statement"]
    ]
    allowed = set()
    for one in statements:
        allowed |= {one["Action"]} if isinstance(one["Action"], str) else set(one["Action"])
    assert called - allowed == set(), "missing in policies/deploy.json"
    assert allowed - called == set(), "unused in policies/deploy.json"


def test_the_echo_pasted_does_the_same(cycle):
    assert cycle.by_paste == cycle.by_task


def test_no_secret_is_let_out(cycle):
    secrets = [cycle.cfg["PG_PASSWORD"], cycle.cfg["ORACLE_PASSWORD"], TOKEN]
    assert all(len(secret) > 10 for secret in secrets)
    for task, output in cycle.output.items():
        assert not any(secret in output for secret in secrets), task
    # Of the paste: the tasks run the CLI in their own process.
    assert any("lambda create-function" in line for line in cycle.lines)
    assert not [line[:60] for line in cycle.lines if any(secret in line for secret in secrets)]
    files = [path for folder in (OWN, ROOT / "build") for path in folder.rglob("*") if path.is_file()]
    logs = [path for path in files if path.suffix == ".log" or path.is_relative_to(ROOT / "build")]
    assert len(logs) > 4
    for path in logs:
        content = b"".join(entries(path))
        assert not any(secret.encode() in content for secret in secrets), path


def entries(path: Path) -> list[bytes]:
    """Return a file's content; of a ZIP that of all files in it, too."""
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        return [path.read_bytes(), *(archive.read(name) for name in archive.namelist())]


def test_a_file_with_secrets_is_its_owners_and_goes(cycle):
    assert cycle.modes == {0o600}
    assert not list(SCRATCH.glob("*.environment.json"))
