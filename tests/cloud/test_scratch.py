"""Scratch files of real tasks: two at once do not read each other's, and a killed deploy leaves no secret."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from invoke import Context
from support.fault_proxy import UPDATING, FaultProxy
from support.helpers import ROOT, environment_file, inv

from ops import deploy
from ops.target import Target

SCRATCH = ROOT / "build" / "scratch"
INV = Path(sys.executable).with_name("inv")


def start(*words: str) -> subprocess.Popen:
    command = [INV, "--search-root", ROOT, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def secrets() -> list[Path]:
    return list(SCRATCH.glob("*.environment.json"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_during_a_deploy_leaves_no_file_with_secrets(deployed, number):
    """AWS answers that an update is in progress, so the deploy waits while the file with the variables is there."""
    aws = FaultProxy(deployed["AWS_ENDPOINT_URL"])
    aws.inject("PUT .*/configuration", *[UPDATING] * 50)
    try:
        with environment_file("testscratch", AWS_ENDPOINT_URL=aws.url, DEADLINE_SECONDS="304") as env:
            process = start("deploy", "--env", env)
            deadline = time.monotonic() + 60
            while not any(one.startswith("PUT") for one in aws.requests):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            (file,) = secrets()
            assert file.stat().st_mode & 0o777 == 0o600 and deployed["PG_PASSWORD"] in file.read_text()
            assert file.name.split(".")[:2] == [str(process.pid), env]
            process.send_signal(number)
            process.communicate(timeout=30)
    finally:
        aws.close()
    assert process.returncode == 128 + number
    assert secrets() == []
    assert "nothing changed" in inv("deploy", "--env", "local").stdout


@pytest.mark.slow
def test_two_deploys_at_once_give_each_function_its_own_settings(deployed):
    names = [f"testatonce{number}" for number in (1, 2)]
    files = [
        environment_file(name, FUNCTION_NAME=name, ROLE_NAME=f"{name}-role", DEADLINE_SECONDS=f"30{at}")
        for at, name in enumerate(names)
    ]
    with files[0], files[1]:
        targets = [Target.load(Context(), name) for name in names]
        processes = [start("deploy", "--env", name) for name in names]
        outputs = [process.communicate(timeout=300) for process in processes]
        try:
            assert [process.returncode for process in processes] == [0, 0], outputs
            for at, target in enumerate(targets):
                found = target.query_json(deploy.get_function(target.cfg))["Configuration"]
                assert found["Environment"]["Variables"]["DEADLINE_SECONDS"] == f"30{at}"
                assert found["Role"].endswith(f"/{names[at]}-role")
        finally:
            for name in names:
                inv("destroy", "--env", name, "--yes", check=False)
            inv("deploy", "--env", "local")
    assert secrets() == []
