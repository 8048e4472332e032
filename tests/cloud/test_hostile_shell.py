"""Tasks on the local cloud work from a shell whose variables would change their target or their output."""

from __future__ import annotations

import os
import subprocess

import pytest
from support.helpers import INV, ROOT, UNUSED
from support.schedule_helpers import wait_for

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("env", "handler", "layer", "local", "ops", "tasks"):
        (folder / f"{name}.py").write_text("raise RuntimeError('the module of the user')\n")
    (folder / "noise.sh").write_text("echo noise\n")
    (folder / "config").write_text(f"[default]\noutput = table\nendpoint_url = {NOWHERE}\n")
    proxies = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    return {key: value for key, value in os.environ.items() if key not in UNUSED} | {
        **dict.fromkeys(proxies, NOWHERE),
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_PROFILE": "no-such",
        "AWS_ENDPOINT_URL": NOWHERE,
        "AWS_ENDPOINT_URL_LAMBDA": NOWHERE,
        "AWS_ENDPOINT_URL_IAM": NOWHERE,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_DEFAULT_OUTPUT": "text",
        "PYTHONPATH": str(folder),
        "BASH_ENV": str(folder / "noise.sh"),
        "INVOKE_RUN_PTY": "1",
        "RESTATE_AUTH_TOKEN": "of another server",
        "RESTATE_ENVIRONMENT": "other",
    }


@pytest.mark.parametrize("words", ["ping", "versions", "roles", "deploy", "status", "env.diff"])
def test_task_works_from_a_hostile_shell_in_a_subfolder(deployed, hostile, words):
    command = [INV, *words.split(), "--env", "local"]
    done = subprocess.run(
        command,
        cwd=ROOT / "policies",
        env=hostile,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "local: " in done.stdout and "noise" not in done.stdout


def test_copied_commands_work_from_a_hostile_shell(deployed, hostile):
    """This covers the restate CLI and curl, which the tasks above do not call."""
    script = f'eval "$({INV} env.shell --env local)" && restate deployments list && {{}} && {{}}'.format(
        'aws --region "$AWS_REGION" lambda get-alias --function-name "$FUNCTION_NAME" --name live',
        'curl --silent --show-error --fail "$RESTATE_ADMIN_URL/deployments"',
    )
    environ = {name: value for name, value in hostile.items() if name != "BASH_ENV"}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "DailyClosing" in done.stdout and '"FunctionVersion": ' in done.stdout and '"deployments":' in done.stdout


def test_restarts_of_restate_leave_the_folders_of_one_start(local):
    """restate-server makes a folder for each invoker, by default in /tmp, and deletes none."""
    folder = local.state.path / "restate" / "tmp"

    def folders() -> set[str]:
        return {path.name for path in folder.iterdir()}

    # restate-server is ready before it has made its folders.
    wait_for(lambda: len(folders()) == 2)
    before = folders()
    local.stop("restate")
    local.start("restate")
    wait_for(lambda: len(folders()) == 2 and not folders() & before)
