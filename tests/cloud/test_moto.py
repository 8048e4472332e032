"""A second pass of the AWS commands, against moto: `make moto`.

moto is stricter than the local cloud with policy documents, roles, aliases and revisions, and has other gaps. It runs
no function and has no provisioned concurrency, and a version's code cannot be fetched: only the local cloud's tests use
these. So two parts are replaced here: Restate, which could call nothing, and the answer of a ping.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from invoke import Context
from support.checkout import CHECKOUT
from support.helpers import ROOT
from support.helpers import inv as real_inv

from local.state import hold_free_port
from ops import config, deploy, function_url, roles, shell
from ops.target import Target

pytestmark = pytest.mark.moto
MOTO = CHECKOUT / ".local" / "moto" / "bin" / "moto_server"
OTHER = ROOT / "env" / "testmoto.env"
C = Context()
GIVEN = {
    "SECRETS_FILE": "",
    "RUNTIME": f"python3.{sys.version_info.minor}",
    "BUNDLE_PLATFORM": "",
    "ORACLE_CLIENT": "thin",
    "AWS_REGION": "ap-southeast-3",
    "GITHUB_REPOSITORY": "insurer/finance-closing",
    "RESTATE_INVOKE_ROLE_ARN": "arn:aws:iam::123456789012:role/finance-closing-restate",
    "RESTATE_EXTERNAL_ID": "env_1",
    "RESTATE_AUTH_TOKEN": "a-token",
    "RESTATE_IDENTITY_KEYS": "publickeyv1_9JFvpqGS3BYqAtoGKe4UT48kjfCQShvyFR9i9ftjVkd3",
    "PG_HOST": "pg.invalid",
    "PG_DATABASE": "finance",
    "PG_USER": "finance",
    "PG_PASSWORD": "secret-pg-password",
    "ORACLE_USER": "genius",
    "ORACLE_PASSWORD": "secret-oracle-password",
    "ORACLE_CONNECT_STRING": "genius.invalid:1521/GENIUS",
}
SERVICES = [{"name": "DailyClosing", "deployment_id": "dp_1", "handlers": [{"name": "run"}]}]


class Restate(BaseHTTPRequestHandler):
    """A stand-in for Restate's admin API: it lists what was registered and accepts all registrations."""

    deployments: ClassVar[list[dict]] = []
    tokens: ClassVar[set[str]] = set()

    def do_GET(self):
        newest = self.deployments[-1]["id"] if self.deployments else ""
        known = {
            "/deployments": {"deployments": self.deployments},
            "/services": {"services": []},
            "/services/DailyClosing": {"deployment_id": newest},
            "/services/ClosingPeriod/handlers/close": {"public": False},
        }
        self.answer(known[self.path])

    def do_DELETE(self):
        gone = self.path.split("/")[2].partition("?")[0]
        self.deployments[:] = [one for one in self.deployments if one["id"] != gone]
        self.answer({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.tokens.add(self.headers["authorization"])
        if self.path == "/query":
            drained = [{"id": one["id"]} for one in self.deployments[:-1]]
            self.answer({"rows": drained if "sys_deployment" in body["query"] else []})
            return
        if not body.get("dry_run"):
            self.deployments.append({"id": f"dp_{body['arn'].rpartition(':')[2]}", "services": SERVICES, **body})
        self.answer({"services": SERVICES})

    def answer(self, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words) -> None:
        pass


# The CLI's way to that stand-in; it takes the words that the real one takes.
CLI = f"""#!{sys.executable}
import argparse, json, os, urllib.request
words = argparse.ArgumentParser()
words.add_argument("verb", nargs=2)
words.add_argument("arn")
words.add_argument("--assume-role-arn", dest="assume_role_arn")
words.add_argument("--yes", action="store_true")
given = vars(words.parse_args())
body = json.dumps({{key: given[key] for key in ("arn", "assume_role_arn")}}).encode()
token = {{"authorization": "Bearer " + os.environ["RESTATE_AUTH_TOKEN"]}}
urllib.request.urlopen(urllib.request.Request(os.environ["RESTATE_ADMIN_URL"] + "/v3/deployments", body, token))
"""


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    """Start moto; returns its URL. Its Lambda answers from a list instead of asking Docker."""
    holder = hold_free_port()
    port = holder.getsockname()[1]
    holder.close()
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    environ = {"PATH": os.environ["PATH"], "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    server = subprocess.Popen([MOTO, "-H", "127.0.0.1", "-p", str(port)], env=environ, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(150):
            with suppress(OSError):
                configure(url, "config", {"lambda": {"use_docker": False}})
                break
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


def configure(url: str, what: str, body: dict) -> None:
    headers = {"content-type": "application/json"}
    call = urllib.request.Request(f"{url}/moto-api/{what}", json.dumps(body).encode(), headers)
    urllib.request.urlopen(call, timeout=10).close()


@pytest.fixture(scope="module")
def cfg(moto, tmp_path_factory):
    """Return an environment whose AWS is moto and whose Restate is the stand-in."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "restate").write_text(CLI)
    (folder / "restate").chmod(0o755)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Restate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    admin = f"http://127.0.0.1:{server.server_port}"
    given = {**GIVEN, "AWS_ENDPOINT_URL": moto, "RESTATE_ADMIN_URL": admin, "RESTATE_INGRESS_URL": admin}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        write(given)
        yield config.load("testmoto")
    OTHER.unlink()
    server.shutdown()


def write(given: dict[str, str]) -> None:
    lines = [f"{one.name}={given.get(one.name, one.default)}" for one in config.ALL_SETTINGS]
    OTHER.write_text("\n".join(lines))


def inv(cfg: dict, *words: str, version: int = 0) -> str:
    """Run a task on that environment; version: the one that is expected to answer the task's ping."""
    if version:
        answer = json.dumps({"ok": True, "version": str(version)})
        configure(
            cfg["AWS_ENDPOINT_URL"], "static/lambda-simple/response", {"results": [answer], "region": cfg["AWS_REGION"]}
        )
    done = real_inv(*words, "--env", "testmoto").stdout
    assert "secret-" not in done
    return done


def aws(cfg: dict, words: str) -> dict:
    return shell.query_json(C, cfg, shell.aws(cfg, f"{words} --output json"))


def test_roles_are_made_and_their_documents_taken(cfg):
    assert "6 changes made" in inv(cfg, "roles")
    assert "0 changes made" in inv(cfg, "roles")
    inv(cfg, "oidc")
    assert "there already" in inv(cfg, "oidc")


def test_policies_of_references_are_taken_and_removed(cfg):
    key = "arn:aws:kms:ap-southeast-3:123456789012:key/0b1c2d3e-0000-4000-8000-000000000000"
    write({**cfg, "PG_PASSWORD": "secretsmanager:finance/pg#password", "SECRETS_KMS_KEY_ARN": key})
    try:
        assert "2 changes made" in inv(cfg, "roles")
        assert "0 changes made" in inv(cfg, "roles")
    finally:
        write(cfg)
    done = inv(cfg, "roles")
    assert "2 changes made" in done and "the policy lambda-secrets-key of" in done


def test_a_deploy_from_nothing_and_once_more(cfg):
    done = inv(cfg, "deploy", version=1)
    assert ":1 is live" in done and "put-retention-policy" in done
    assert "--assume-role-arn arn:aws:iam::123456789012:role/finance-closing-restate" in done
    assert Restate.deployments[0]["assume_role_arn"] == cfg["RESTATE_INVOKE_ROLE_ARN"]
    assert Restate.tokens == {"Bearer a-token"}
    assert "nothing changed" in inv(cfg, "deploy")


@pytest.mark.parametrize(
    ("version", "key", "value"), [(2, "MEMORY", "2048"), (3, "TIMEOUT", "800"), (4, "PG_PORT", "1")]
)
def test_a_change_of_shape_alone_publishes_and_registers_a_version(cfg, version, key, value):
    write({**cfg, key: value})
    try:
        assert f":{version} is live" in inv(cfg, "deploy", version=version)
    finally:
        write(cfg)
    assert Restate.deployments[-1]["arn"].endswith(f":{version}")


def test_into_a_vpc_and_out_of_it(cfg):
    vpc = aws(cfg, "ec2 create-vpc --cidr-block 10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = aws(cfg, f"ec2 create-subnet --vpc-id {vpc} --cidr-block 10.0.0.0/24")["Subnet"]["SubnetId"]
    group = aws(cfg, f"ec2 describe-security-groups --filters Name=vpc-id,Values={vpc}")["SecurityGroups"][0]["GroupId"]
    write({**cfg, "VPC_SUBNET_IDS": subnet, "VPC_SECURITY_GROUP_IDS": group})
    try:
        done = inv(cfg, "deploy", version=5)
        assert "--policy-name lambda-vpc" in done and f"SubnetIds={subnet}" in done
        assert "nothing changed" in inv(cfg, "deploy")
    finally:
        write(cfg)
    assert ":6 is live" in inv(cfg, "deploy", version=6)
    assert not deploy.in_vpc(shell.query_json(C, cfg, deploy.get_function(cfg))["Configuration"])


def test_the_urls_two_permissions_and_their_end(cfg):
    address = function_url.ensure(Target(C, cfg, "local"))
    assert address.startswith("https://") and ".lambda-url." in address
    statements = json.loads(shell.query_json(C, cfg, function_url.get_policy(cfg))["Policy"])["Statement"]
    assert {one["Action"] for one in statements} == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    function_url.remove(Target(C, cfg, "local"))
    assert shell.query_json(C, cfg, function_url.get_url(cfg), missing="ResourceNotFound") is None
    assert not function_url.permissions(Target(C, cfg, "local")) & set(function_url.STATEMENTS)


def test_keep_warm_alarms_and_prune_work(cfg):
    inv(cfg, "keep-warm", "on")
    assert "keeps the live version warm" in inv(cfg, "keep-warm", "status")
    files = list((ROOT / "alarms").glob("*.json"))
    assert inv(cfg, "alarms", "--to", "ops@example.com").count("put-metric-alarm") == len(files)
    assert "put-" not in inv(cfg, "alarms", "--to", "ops@example.com")
    pruned = inv(cfg, "prune", "--keep", "1")
    assert "5 deleted" in pruned and "--policy-name lambda-vpc" in pruned
    assert shell.query_json(C, cfg, roles.list_role_policies(cfg, cfg["ROLE_NAME"]))["PolicyNames"] == [
        "lambda-execution"
    ]


def test_nothing_is_left(cfg):
    assert "nothing is left" in inv(cfg, "destroy", "--yes")
    for words, name in {
        "lambda list-functions": "Functions",
        "iam list-roles": "Roles",
        "logs describe-log-groups": "logGroups",
        "events list-rules": "Rules",
        "cloudwatch describe-alarms": "MetricAlarms",
        "sns list-topics": "Topics",
    }.items():
        assert aws(cfg, words)[name] == [], words
    assert Restate.deployments == []
    assert "nothing was there" in inv(cfg, "destroy", "--yes")
