"""ops/environment.py: no variable of the operator's shell changes the target or the output of a task's commands."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from invoke import Context, Exit
from support.helpers import INV, ROOT

from ops import config, doctor, environment, progress, restate, shell
from ops import target as targets

CALLER = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    "<Arn>arn:aws:iam::000000000000:root</Arn><UserId>A</UserId><Account>000000000000</Account>"
    "</GetCallerIdentityResult></GetCallerIdentityResponse>"
)
WHO = "sts get-caller-identity"
# Nothing listens on port 9, discard.
NOWHERE = "http://127.0.0.1:9"
CFG = {
    "ENVIRONMENT": "prod",
    "AWS_REGION": "ap-southeast-3",
    "AWS_PROFILE": "",
    "AWS_ENDPOINT_URL": "",
    "RESTATE_ADMIN_URL": "https://restate.invalid:9070",
    "RESTATE_INGRESS_AUTH": "off",
    "RESTATE_AUTH_TOKEN": "",
}
PROXIES = {
    name: NOWHERE for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
}
AWS_SETTINGS = {
    "AWS_PROFILE": "no-such",
    "AWS_DEFAULT_PROFILE": "no-such",
    "AWS_ENDPOINT_URL": NOWHERE,
    "AWS_ENDPOINT_URL_STS": NOWHERE,
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_DEFAULT_OUTPUT": "text",
    "AWS_USE_FIPS_ENDPOINT": "true",
}
CONFIG = f"[default]\noutput = table\nendpoint_url = {NOWHERE}\n[profile named]\noutput = text\n"


class Server(BaseHTTPRequestHandler):
    """AWS's STS, and a proxy that refuses; both record what they are asked for."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.answer(200, CALLER)

    def do_CONNECT(self):
        self.answer(502, "")

    def do_GET(self):
        self.answer(200, '{"deployments": []}')

    def answer(self, code: int, text: str) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("authorization", "")))
        self.send_response(code)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def user(server, monkeypatch, tmp_path):
    """Return a user without credentials and with a config of their own."""
    server.asked = []
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(CONFIG)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def set_all(monkeypatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("given", [{}, PROXIES, AWS_SETTINGS], ids=["config", "proxies", "aws"])
def test_aws_cli_calls_the_endpoint_of_the_file_and_prints_json(server, monkeypatch, given):
    set_all(monkeypatch, given | {"AWS_ACCESS_KEY_ID": "the user's own", "AWS_SECRET_ACCESS_KEY": "secret"})
    cfg = CFG | {"AWS_ENDPOINT_URL": server.url}
    assert shell.query_json(Context(), cfg, shell.aws(cfg, WHO))["Account"] == "000000000000"
    ((_, _, authorization),) = server.asked
    assert "Credential=local/" in authorization


def test_empty_endpoint_of_the_file_is_aws_itself_through_the_users_proxy(server, monkeypatch):
    set_all(monkeypatch, AWS_SETTINGS | {"HTTPS_PROXY": server.url, "AWS_USE_FIPS_ENDPOINT": "false"})
    set_all(monkeypatch, {"AWS_ENDPOINT_URL": server.url, "AWS_ENDPOINT_URL_STS": server.url})
    set_all(monkeypatch, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    monkeypatch.delenv("AWS_DEFAULT_PROFILE")
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(Exit):
        shell.query(Context(), CFG, shell.aws(CFG, WHO))
    assert {(method, path) for method, path, _ in server.asked} == {("CONNECT", "sts.ap-southeast-3.amazonaws.com:443")}


def test_credentials_config_sso_and_proxies_stay_for_aws_itself():
    kept = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
        "AWS_CONFIG_FILE": "/home/a/.aws/config",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AWS_PROFILE": "of-the-shell",
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "internal",
        "HOME": "/home/a",
    }
    given = environment.of_target(CFG, kept)
    assert given | kept | {"NO_PROXY": given["NO_PROXY"]} == given
    assert given["NO_PROXY"] == given["no_proxy"] == "internal,127.0.0.1,localhost,::1"
    assert environment.of_target(CFG | {"AWS_PROFILE": "of-the-file"}, kept)["AWS_PROFILE"] == "of-the-file"


def test_restate_on_this_machine_is_called_without_proxy(server, monkeypatch):
    set_all(monkeypatch, PROXIES)
    assert restate.deployments(CFG | {"RESTATE_ADMIN_URL": server.url}) == []


def test_token_of_the_shell_is_not_sent_for_a_file_without_one(monkeypatch):
    monkeypatch.setenv("RESTATE_AUTH_TOKEN", "of another server")
    assert "RESTATE_AUTH_TOKEN" not in environment.of_target(CFG)


def test_command_prints_nothing_of_the_shell(monkeypatch, tmp_path):
    noise = tmp_path / "noise.sh"
    noise.write_text("echo noise\n")
    hostile = {"BASH_ENV": str(noise), "SHELLOPTS": "braceexpand:xtrace:noclobber", "INVOKE_RUN_PTY": "1"}
    set_all(monkeypatch, hostile | {"BASH_FUNC_aws%%": "() { echo other; }", "PYTHONVERBOSE": "1"})
    assert shell.query_json(Context(), CFG, """printf '{"a": 1}'""") == {"a": 1}
    done = shell.run("aws --version; set -o", shell.command_environment(CFG))
    assert done.stdout.startswith("aws-cli/") and done.stderr == ""
    assert "xtrace         \toff" in done.stdout


def test_command_runs_in_the_folder_of_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT / "policies")
    assert shell.query(Context(), CFG, "ls policies/deploy.json") == "policies/deploy.json"


def test_modules_of_the_user_do_not_replace_ours(tmp_path):
    """PYTHONPATH comes after our folder; but a package without __init__.py would come after every module."""
    for name in ("env", "handler", "layer", "local", "ops", "tasks"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the module of the user')\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([INV, "--list"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    code = "import tasks, handler.settings, layer.build, local.state"
    environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{tmp_path}"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_exports_give_a_shell_the_same_environment(monkeypatch, capsys, tmp_path):
    """`inv env.shell`, evaluated by bash in the operator's environment, against the one of a task's commands."""
    from support.helpers import like_local

    from ops import env_tasks

    run_env = tmp_path / "run.env"
    ports = ("AWS", "PG", "ORACLE", "RESTATE_ADMIN", "RESTATE_INGRESS")
    text = "".join(f"LOCAL_{name}_PORT=9\n" for name in ports)
    run_env.write_text(text + "LOCAL_LAMBDA_RUNTIME=python3.13\nLOCAL_PG_PASSWORD=p\nLOCAL_ORACLE_PASSWORD=o\n")
    (ROOT / "env" / "testexports.env").write_text(
        like_local(SECRETS_FILE=str(run_env), RESTATE_IDENTITY_KEYS="", LAYER_VERSION_ARN="")
    )
    set_all(monkeypatch, PROXIES | AWS_SETTINGS | {"BASH_ENV": "/no/such", "RESTATE_AUTH_TOKEN": "other"})
    try:
        env_tasks.export(Context(), "testexports")
        wanted = shell.command_environment(config.load("testexports"))
    finally:
        (ROOT / "env" / "testexports.env").unlink()
    script = f"{capsys.readouterr().out}\n{sys.executable} -c 'import os, json; print(json.dumps(dict(os.environ)))'"
    environ = {name: value for name, value in os.environ.items() if name != "BASH_ENV"}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    differing = set(environment.difference(found, wanted)) - {"_", "SHLVL", "PWD", "OLDPWD"}
    assert differing <= {"ENV", *(one.name for one in config.DEPLOY_SETTINGS)}, differing
    assert not any(name.startswith("AWS_") for name in differing)


def calls(path: Path):
    """Yield each call of a file that starts a program."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if (owner == "subprocess" and node.func.attr[0] in "rPcg") or (owner in ("c", "target.c", "self.c")):
                yield node
            if owner == "os" and node.func.attr.startswith(("system", "exec", "spawn", "posix_spawn", "popen")):
                yield node


def test_every_program_is_started_in_an_environment_of_this_module():
    """No caller can forget it: each start names its environment, and none of them is the shell's own."""
    files = [path for folder in ("ops", "layer", "local") for path in (ROOT / folder).glob("*.py")]
    starts = 0
    for path in files:
        text = path.read_text()
        if path.name != "run_ministack.py" and path.name not in ("environment.py", "env_tasks.py"):
            assert "**os.environ" not in text and "env=os.environ" not in text, path
        for call in calls(path):
            if ast.unparse(call.func).endswith((".cd", ".prefix")):
                continue
            starts += 1
            names = [keyword.arg for keyword in call.keywords]
            # processes.py and postgres.py get theirs from a caller, or take the clean one.
            assert "env" in names or (path.name == "postgres.py" and None in names), f"{path}: {ast.unparse(call)}"
            if ast.unparse(call.func) == "c.run":
                assert "**PLAIN" in ast.unparse(call), f"{path}: {ast.unparse(call)}"
    assert starts >= 10


SSO = (
    "Error loading SSO Token: Token for prod does not exist",
    "The SSO session associated with this profile has expired or is otherwise invalid. To refresh this SSO session run"
    " aws sso login with the corresponding profile.",
    "Error when retrieving token from sso: Token has expired and refresh failed",
)


@pytest.mark.parametrize("error", SSO)
@pytest.mark.parametrize("profile", ["", "finance-prod"])
def test_missing_sso_session_names_the_command_that_signs_in(error, profile):
    command = shell.aws(CFG | {"AWS_PROFILE": profile}, WHO)
    line = shell.failure(command, shell.Done(255, "", f"\n{error}\n"))
    assert line.endswith(f"{error}; run `aws sso login{' --profile finance-prod' if profile else ''}`")


@pytest.mark.parametrize("profile", ["legacy", "session"])
def test_pinned_aws_cli_without_an_sso_session_is_one_line_with_that_command(monkeypatch, tmp_path, profile):
    common = "sso_account_id = 000000000000\nsso_role_name = admin\n"
    start = "sso_start_url = https://x.invalid/start\nsso_region = ap-southeast-3\n"
    text = (
        f"[profile legacy]\n{common}{start}[profile session]\n{common}sso_session = corp\n[sso-session corp]\n{start}"
    )
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = CFG | {"AWS_PROFILE": profile}
    with pytest.raises(Exit, match=rf"does not exist; run `aws sso login --profile {profile}`$"):
        shell.query(Context(), cfg, shell.aws(cfg, WHO))


def test_service_of_this_machine_that_is_down_names_the_command_that_starts_it():
    """After a restart of the machine nothing of the local cloud runs."""
    cfg = CFG | {"AWS_ENDPOINT_URL": NOWHERE, "RESTATE_ADMIN_URL": NOWHERE}
    for call in (
        lambda: shell.query(Context(), cfg, shell.aws(cfg, WHO)),
        lambda: restate.deployments(cfg),
    ):
        with pytest.raises(Exit, match=r"; if it is the local cloud, run `inv local\.up`$") as refused:
            call()
        assert doctor.fix_of(refused.value, "inv deploy --env local") == "inv local.up"
    assert doctor.fix_of(Exit("another cause"), "inv deploy --env local") == "inv deploy --env local"


@pytest.mark.parametrize("terminal", [True, False])
def test_long_wait_is_reported_to_a_person_while_it_lasts(monkeypatch, capsys, terminal):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(progress, "NEXT_SECONDS", 0.1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    shell.query(Context(), CFG, "true && sleep 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("still waiting for `sleep 0.5 …`: ") for line in lines)
    assert 2 <= len(lines) <= 5 if terminal else lines == []


def test_command_that_does_not_end_in_time_is_left(monkeypatch):
    begin = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        shell.run("true && sleep 30; true", shell.command_environment(CFG), seconds=0.3)
    assert time.monotonic() - begin < 5


def test_output_that_is_no_json_is_one_line_without_it():
    with pytest.raises(Exit, match=r"^`printf 'x' …` printed no JSON; run it yourself") as refused:
        shell.query_json(Context(), CFG, "printf 'x'")
    assert len(refused.value.message.splitlines()) == 1


def test_account_is_printed_once_before_the_first_change(server, monkeypatch, capsys):
    monkeypatch.setattr(targets, "accounts", set())
    cfg = CFG | {"AWS_ENDPOINT_URL": server.url}
    target = targets.Target(Context(), cfg, "prod")
    target.run_local("true")
    for _ in range(2):
        target.execute(shell.aws(cfg, WHO))
    line = f"prod: AWS account 000000000000 in ap-southeast-3 as arn:aws:iam::000000000000:root, endpoint {server.url}"
    change = "aws --region ap-southeast-3 sts get-caller-identity"
    assert capsys.readouterr().out.splitlines() == ["true", line, change, change]


def test_nothing_is_changed_without_an_account(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(targets, "accounts", set())
    cfg = CFG | {"AWS_ENDPOINT_URL": NOWHERE}
    with pytest.raises(Exit, match="`aws sts get-caller-identity"):
        targets.Target(Context(), cfg, "prod").execute(f"touch {tmp_path}/changed && {shell.aws(cfg, WHO)}")
    assert not (tmp_path / "changed").exists() and capsys.readouterr().out == ""


def test_shell_of_the_local_cloud_does_not_reach_aws_with_its_credentials():
    """A shell that has evaluated `inv env.shell --env local`, and then runs a task on prod."""
    exported = environment.of_target(CFG | {"AWS_ENDPOINT_URL": NOWHERE}, {"PATH": "/bin"})
    given = environment.of_target(CFG, exported)
    assert not set(environment.OTHER_ENDPOINT) & set(given) and "AWS_ENDPOINT_URL" not in given
