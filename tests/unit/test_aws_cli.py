"""ops/aws_cli.py: a command in this process has the result of a shell, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.helpers import ROOT

from ops import aws_cli, shell

CFG = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_PROFILE": "",
    "AWS_REGION": "eu-west-1",
    "RESTATE_ADMIN_URL": "http://127.0.0.1:9",
    "RESTATE_AUTH_TOKEN": "",
}


@pytest.fixture(scope="module", autouse=True)
def its_own_botocore():
    """Forget the botocore that other tests have imported: the CLI brings its own, as its program shows."""
    before = loaded()
    aws_cli._shared.clear()
    for name in before:
        del sys.modules[name]
    yield
    aws_cli._shared.clear()
    for name in loaded():
        del sys.modules[name]
    sys.modules.update(before)


def loaded() -> dict[str, object]:
    packages = {"awscli", "botocore", "s3transfer"}
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}


@pytest.fixture
def environ() -> dict[str, str]:
    return shell.command_environment(CFG) | {"AWS_MAX_ATTEMPTS": "1"}


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def silent(environ, server):
    """Return the environment of a CLI whose endpoint accepts connections and never answers."""
    return environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}


@pytest.fixture
def signalling(server, silent):
    """Return signalling(number): the environment of a CLI whose endpoint sends this process a signal when it is called.

    The CLI then waits for the answer. An error that a signal raises in a destructor would be lost.
    """

    def make(number: int) -> dict[str, str]:
        def serve() -> None:
            with server.accept()[0] as called:
                called.recv(1 << 16)
                signal.pthread_kill(threading.main_thread().ident, number)
                # Until the CLI hangs up.
                while called.recv(1 << 16):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        return silent

    return make


def surroundings() -> tuple:
    log = logging.getLogger("awscli")
    alarm = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    return dict(os.environ), os.getcwd(), sys.argv, alarm, log.level, [*log.handlers]


@pytest.mark.parametrize(
    "words",
    [
        "configure list",
        "lambda get-function",
        "--region eu-west-1 lambda invoke --function-name f --payload fileb://no/such/file build/answer.json",
        "--region eu-west-1 lambda get-alias --function-name f --name live --query '[RevisionId, Nàme]' --output text",
        "--profile no-such sts get-caller-identity",
    ],
)
def test_result_is_that_of_a_shell(words, environ):
    command = f"aws {words}"
    assert aws_cli.parse(command, environ, ROOT)
    before = surroundings()
    assert shell.run(command, environ) == shell.in_bash(command, environ, 60)
    assert surroundings() == before


def test_output_goes_into_a_file_and_a_field_comes_from_one_as_in_a_shell(environ):
    """The two forms of bash that a deploy needs."""
    file = ROOT / "build" / "testcli" / "out"
    field = file.with_name("field")
    file.parent.mkdir(parents=True, exist_ok=True)
    field.write_text("no such  service\tsecond\n")
    name = str(field.relative_to(ROOT))
    command = f'mkdir -p build/testcli && aws --region "$(cut -f1 {name})" configure list > build/testcli/out'
    refused = f'aws --region eu-west-1 lambda get-alias --function-name "$(cut -f1 {name})" --name live'
    try:
        found = []
        for run in (shell.run, lambda *words: shell.in_bash(*words, 60)):
            file.write_text("before")
            found.append((run(command, environ), file.read_text(), run(refused, environ)))
        assert aws_cli.parse(command, environ, ROOT) == (
            ["--region", "no such  service", "configure", "list"],
            "build/testcli/out",
        )
        assert aws_cli.parse(refused, environ, ROOT) and found[0] == found[1]
        assert "AWS_DEFAULT_REGION" in found[0][1] and found[0][0] == (0, "", "")
    finally:
        shutil.rmtree(file.parent)


@pytest.mark.parametrize(
    "command",
    [
        "restate deployments list",
        "aws sts get-caller-identity > build/x",
        'aws lambda publish-version --revision-id "$(cut -f1 build/no-such)"',
        'aws lambda publish-version --revision-id "$(cut -f2 README.md)"',
        "mkdir -p other && aws --version > build/x",
        "aws lambda update-function-configuration --vpc-config SubnetIds=[],SecurityGroupIds=[]",
        "aws sts get-caller-identity; aws --version",
        "aws s3 ls s3://*",
        "aws s3 cp ~/a b",
        "mkdir -p build && aws --version",
        "aws x --name 'it'\"'\"'s'",
        "awsome --version",
        "aws lambda invoke --name $NAME",
        "aws --version\naws --version",
        "aws --version & aws --version",
        "aws x #y",
    ],
)
def test_command_that_needs_a_shell_gets_one(command, environ):
    assert aws_cli.parse(command, environ, ROOT) is None


def test_other_aws_cli_on_path_is_started_as_a_program(environ, tmp_path):
    (tmp_path / "aws").write_text("#!/bin/sh\necho other\n")
    (tmp_path / "aws").chmod(0o755)
    environ["PATH"] = f"{tmp_path}{os.pathsep}{environ['PATH']}"
    assert shell.run("aws --version", environ).stdout == "other\n"


def test_thread_starts_a_program(environ):
    """The environment of a process is that of all its threads."""
    found = []
    thread = threading.Thread(target=lambda: found.append(aws_cli.parse("aws --version", environ, ROOT)))
    thread.start()
    thread.join()
    assert found == [None]


def test_options_of_one_command_do_not_change_the_next(silent):
    """A session keeps the time-outs that it was given."""
    first = shell.run("aws lambda get-alias --function-name f --name live --cli-read-timeout 1", silent)
    assert "Read timeout" in first.stderr
    with pytest.raises(subprocess.TimeoutExpired):
        shell.run("aws lambda get-alias --function-name f --name live", silent, seconds=2.5)


def test_command_ends_in_time_and_leaves_nothing_behind(silent):
    before = surroundings()
    with pytest.raises(subprocess.TimeoutExpired):
        shell.run("aws lambda get-alias --function-name f --name live", silent, seconds=1)
    assert surroundings() == before


def test_interrupt_ends_the_task_and_not_the_command_alone(signalling):
    # In the background of a script, Python starts with SIGINT ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    environ = signalling(signal.SIGINT)
    before = surroundings()
    try:
        with pytest.raises(KeyboardInterrupt):
            shell.run("aws lambda get-alias --function-name f --name live", environ)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert surroundings() == before


def test_cli_that_something_else_has_imported_finds_its_models(environ, monkeypatch):
    import awscli  # noqa: F401

    monkeypatch.setattr(aws_cli, "_shared", {})
    assert shell.run("aws --version", environ).stdout.startswith("aws-cli/")


def test_signal_that_ends_the_task_is_no_exit_of_the_command(signalling):
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    environ = signalling(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            shell.run("aws lambda get-alias --function-name f --name live", environ)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM


def test_files_of_a_command_are_those_of_the_repository(environ, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = shell.run("aws lambda invoke --function-name f --payload fileb://README.md answer.json", environ)
    assert (ROOT / "README.md").exists() and not Path("README.md").exists()
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9' in done.stderr
