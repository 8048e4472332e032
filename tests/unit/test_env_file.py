"""env/NAME.env and SECRETS_FILE: each value that a reader would cut, change or misread is a fault with its line."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from invoke import Exit
from support.helpers import INV, ROOT, like_local

from ops import config, env_file

PATH = ROOT / "env" / "testfile.env"
SECRETS = {
    "LOCAL_LAMBDA_RUNTIME": "python3.13",
    "LOCAL_PG_PASSWORD": "p",
    "LOCAL_ORACLE_PASSWORD": "o",
    "LOCAL_RESTATE_IDENTITY_KEY": "",
    **{f"LOCAL_{name}_PORT": "9" for name in ("AWS", "PG", "ORACLE", "RESTATE_ADMIN", "RESTATE_INGRESS")},
}


@pytest.fixture
def load():
    """Return a function that loads a file like env/local.env with other values, or with this content."""

    def load(content: bytes | None = None, shell: dict[str, str] | None = None, **changes: str) -> dict[str, str]:
        text = like_local(SECRETS_FILE="", **changes)
        PATH.write_bytes(text.encode() if content is None else content)
        return config.load("testfile", SECRETS | (shell or {}))

    yield load
    PATH.unlink(missing_ok=True)


def line_of(name: str) -> int:
    return next(n for n, line in enumerate(PATH.read_text().splitlines(), 1) if line.startswith(f"{name}="))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"PG_PASSWORD": "abc #def"}, "PG_PASSWORD has a # that begins a comment"),
        ({"PG_PASSWORD": "# abc"}, "PG_PASSWORD has a # that begins a comment"),
        ({"PG_PASSWORD": '"abc'}, "it is not NAME=value, or its quote does not end"),
        ({"PG_PASSWORD": "'abc"}, "it is not NAME=value, or its quote does not end"),
        ({"PG_PASSWORD": "'abc'def"}, "it is not NAME=value, or its quote does not end"),
        ({"PG_PASSWORD": r'"abc\ndef"'}, "PG_PASSWORD has a control character"),
        ({"TIMEOUT": "900 # seconds"}, "TIMEOUT has a # that begins a comment"),
        ({"PG_HOST": "[::1]"}, "PG_HOST '[::1]' is malformed"),
        ({"PG_HOST": "db:5432"}, "PG_HOST 'db:5432' is malformed"),
        ({"PG_HOST": "<HOST>"}, "PG_HOST still has the placeholder <HOST>"),
        ({"RESTATE_AUTH_TOKEN": "key with spaces"}, "RESTATE_AUTH_TOKEN is malformed"),
        ({"RESTATE_ADMIN_URL": "https://a b:9070"}, "RESTATE_ADMIN_URL 'https://a b:9070' is malformed"),
        ({"RESTATE_ADMIN_URL": "https://host:90700"}, "RESTATE_ADMIN_URL 'https://host:90700' is malformed"),
        ({"AWS_ENDPOINT_URL": "localhost:4566"}, "AWS_ENDPOINT_URL 'localhost:4566' is malformed"),
        ({"AWS_PROFILE": "mine"}, "AWS_PROFILE and AWS_ENDPOINT_URL exclude each other"),
        ({"GITHUB_REPOSITORY": "https://github.com/insurer/closing"}, "GITHUB_REPOSITORY 'https"),
        ({"GITHUB_REPOSITORY": "insurer@1/closing"}, "GITHUB_REPOSITORY 'insurer@1/closing' is malformed"),
        ({"GITHUB_REPOSITORY": "insurer/*"}, "GITHUB_REPOSITORY 'insurer/*' is malformed"),
        ({"VPC_SUBNET_IDS": "subnet-1"}, "VPC_SUBNET_IDS and VPC_SECURITY_GROUP_IDS need each other"),
        ({"VPC_SECURITY_GROUP_IDS": "sg-1"}, "VPC_SUBNET_IDS and VPC_SECURITY_GROUP_IDS need each other"),
        ({"ABORT_TIMEOUT_SECONDS": "900"}, "ABORT_TIMEOUT_SECONDS 900 is less than TIMEOUT 900"),
    ],
)
def test_fault_names_file_and_line_and_no_secret(load, changes, fault):
    with pytest.raises(Exit) as refused:
        load(**changes)
    ((name, value),) = changes.items()
    # A fault of two keys is at the first of them.
    named = "VPC_SUBNET_IDS" if name.startswith("VPC") else name
    assert refused.value.message.startswith(f"env/testfile.env: line {line_of(named)}: {fault}")
    assert refused.value.message.endswith("Nothing was changed.")
    assert name not in ("PG_PASSWORD", "RESTATE_AUTH_TOKEN") or value not in refused.value.message


@pytest.mark.parametrize("ending", ["\n", "\r", "\x00", "\t"])
def test_token_with_the_end_of_a_line_is_refused_and_not_shown(load, ending):
    with pytest.raises(Exit, match="RESTATE_AUTH_TOKEN has a control character") as refused:
        load(RESTATE_AUTH_TOKEN="${RESTATE_AUTH_TOKEN}", shell={"RESTATE_AUTH_TOKEN": f"key_1234{ending}"})
    assert "key_1234" not in refused.value.message


def test_quoted_value_is_taken_whole(load):
    for written, value in (("'abc #def'", "abc #def"), ('"\'abc"', "'abc"), ("abc#def", "abc#def")):
        assert load(PG_PASSWORD=written)["PG_PASSWORD"] == value


@pytest.mark.parametrize("name", ["insurer/finance-closing", "insurer@1234/finance-closing@56789", ""])
def test_repository_with_and_without_ids_is_accepted(load, name):
    assert load(GITHUB_REPOSITORY=name)["GITHUB_REPOSITORY"] == name


@pytest.mark.parametrize(
    ("encoding", "fault"),
    [("utf-16", "it is UTF-16"), ("utf-16-le", "it is UTF-16"), ("cp1252", "line 2: it is not UTF-8, perhaps Windows")],
)
def test_other_encoding_is_one_line(load, encoding, fault):
    text = like_local(SECRETS_FILE="").partition("\n")[2]
    with pytest.raises(Exit, match=fault) as refused:
        load(f"# first\n# Größe\n{text}".encode(encoding))
    assert len(refused.value.message.splitlines()) == 1


def test_utf_8_of_windows_with_mark_and_line_ends_is_read(load):
    text = like_local(SECRETS_FILE="", AWS_REGION='"ap-southeast-3"')
    loaded = load(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert loaded["AWS_REGION"] == "ap-southeast-3"
    assert not any("\r" in value for value in loaded.values())


def test_workflow_gets_the_region_as_the_tasks_read_it(load):
    """ENV_FILE of a GitHub environment can have quotes and the line ends of Windows."""
    load(like_local(SECRETS_FILE="", AWS_REGION='"ap-southeast-3"').replace("\n", "\r\n").encode())
    command = [sys.executable, "-m", "ops.config", "testfile", "AWS_REGION"]
    done = subprocess.run(command, cwd=ROOT, env=SECRETS, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("AWS_REGION=ap-southeast-3\n", "", 0)
    assert " ".join(command[1:3]) in (ROOT / ".github/workflows/deploy-finance-lambda.yml").read_text()


def test_fault_of_the_secrets_file_names_that_file(load, tmp_path):
    secrets = tmp_path / "secrets.env"
    secrets.write_text("A=1\n\n# passwords\nPG_PASSWORD=abc #def\n")
    with pytest.raises(Exit, match=rf"{secrets}: line 4: PG_PASSWORD has a #"):
        text = like_local(SECRETS_FILE=str(secrets))
        load(text.encode())


def test_key_that_is_there_twice_is_a_fault(tmp_path):
    file = tmp_path / "a.env"
    file.write_text("A=1\n\nB=2\n\n\nA=3\nC\n")
    found = env_file.read(file)
    assert found.lines == {"A": 6, "B": 3}
    assert found.faults == ["line 6: A is there twice, first on line 1", "line 7: C has no ="]


def test_untouched_copy_of_the_example_is_refused(load):
    """Also once its secrets are there."""
    text = (ROOT / "env" / "example.env").read_text()
    text = re.sub(r"^SECRETS_FILE=.*$", "SECRETS_FILE=", text, flags=re.MULTILINE)
    secrets = dict.fromkeys(("RESTATE_AUTH_TOKEN", "PG_PASSWORD", "ORACLE_PASSWORD"), "secret")
    with pytest.raises(Exit) as refused:
        load(text.encode(), shell=secrets)
    for name in ("RESTATE_ADMIN_URL", "RESTATE_INGRESS_URL", "PG_HOST", "ORACLE_CONNECT_STRING"):
        assert f"line {line_of(name)}: {name} still has the placeholder" in refused.value.message


def test_reader_that_closes_the_pipe_of_a_task_sees_no_traceback(load):
    load()
    read, write = os.pipe()
    os.close(read)
    command = [INV, "env.check", "--env", "testfile"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | SECRETS, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
