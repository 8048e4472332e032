"""Users and passwords by reference: when they are read, and how many refused logins a rotation costs."""

from __future__ import annotations

import ast
import itertools
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from invoke import Context
from support.helpers import COMPLETE, ROOT

from handler import secret, settings
from handler.errors import LoginRefused, Unavailable
from handler.secret import SecretError, SecretUnavailable, Stored
from ops import readiness, secret_tasks
from ops.target import Target

REFERENCE = "secretsmanager:finance/pg#password"


class World:
    """A store with versions, and a database with one password; counts reads and refused logins."""

    def __init__(self, monkeypatch):
        self.versions, self.password = ["first"], "first"
        self.made = time.time() - 30 * 86400
        self.reads, self.refused, self.now = [], [], 0.0
        monkeypatch.setattr(secret, "fetch", self.fetch)
        monkeypatch.setattr(secret, "LOGINS", {})
        monkeypatch.setattr(secret.time, "monotonic", lambda: self.now)
        for name, value in COMPLETE.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LOGIN_RETRY_SECONDS", "60")
        settings.current.cache_clear()

    def fetch(self, source: str, before: str = "") -> Stored:
        self.reads.append((source, before))
        number = int(before) - 1 if before else len(self.versions)
        if number < 1:
            raise SecretError(source, "missing")
        text = json.dumps({"username": "finance", "password": self.versions[number - 1]})
        return Stored(text, str(number), self.made)

    def connect(self, user: str, password: str) -> str:
        if password != self.password:
            self.refused.append(password)
            raise LoginRefused("the database refused the login")
        return user

    def log_in(self, user: str = "finance", password: str = REFERENCE) -> str:
        return secret.log_in("PostgreSQL", user, password, self.connect)

    def store(self, value: str) -> None:
        self.versions.append(value)
        self.made = time.time()


@pytest.fixture
def world(monkeypatch):
    yield World(monkeypatch)
    settings.current.cache_clear()


def test_plain_password_reads_nothing(world):
    assert world.log_in(password="first") == "finance"
    with pytest.raises(LoginRefused, match=r"^the database refused the login$"):
        world.log_in(password="wrong")
    assert (world.reads, world.refused) == ([], ["wrong"])


def test_value_is_read_once_for_a_process(world):
    assert [world.log_in() for _ in range(3)] == ["finance"] * 3
    assert world.reads == [("secretsmanager:finance/pg", "")]


def test_user_and_password_come_from_one_read(world):
    assert world.log_in(user="secretsmanager:finance/pg#username") == "finance"
    assert len(world.reads) == 1


def test_changed_value_is_tried_once_after_a_refused_login(world):
    world.log_in()
    world.store("second")
    assert world.log_in() == "finance", "the old value, which the database still accepts"
    world.password = "second"
    assert world.log_in() == "finance"
    assert (world.refused, len(world.reads)) == (["first"], 2)


def test_database_that_stays_ahead_refuses_one_login(world):
    world.log_in()
    world.password = "second"
    for _ in range(10):
        with pytest.raises(Unavailable, match="resolved, but no stored value is accepted"):
            world.log_in()
    assert (world.refused, len(world.reads)) == (["first"], 11)
    world.now = 61.0
    with pytest.raises(LoginRefused, match="refused the login earlier"):
        world.log_in()
    assert world.refused == ["first"]
    world.store("second")
    assert world.log_in() == "finance"
    assert world.refused == ["first"]


def test_cold_process_in_a_rotation_uses_the_version_before(world):
    """The secret comes first and the database later; a process that starts in between knows no older value."""
    world.store("second")
    assert world.log_in() == "finance"
    assert world.refused == ["second"]
    world.password = "second"
    assert world.log_in() == "finance"
    assert world.refused == ["second", "first"]


def test_process_that_was_accepted_does_not_use_the_version_before(world):
    world.store("second")
    world.password = "second"
    world.log_in()
    world.password = "third"
    with pytest.raises(Unavailable):
        world.log_in()
    assert world.refused == ["second"]


def test_version_before_an_old_one_is_not_tried(world):
    world.versions, world.password = ["first", "second"], "third"
    with pytest.raises(Unavailable):
        world.log_in()
    assert world.refused == ["second"]


def test_value_that_is_stored_again_is_tried_again(world):
    """So a database can change to a value that it has refused before."""
    world.versions = ["second"]
    for _ in range(2):
        with pytest.raises(Unavailable):
            world.log_in()
    world.password = "second"
    with pytest.raises(Unavailable):
        world.log_in()
    world.store("second")
    assert world.log_in() == "finance"
    assert world.refused == ["second"]


def test_threads_share_one_refused_login(world):
    world.log_in()
    world.password = "second"

    def attempt(_):
        with suppress(Unavailable):
            world.log_in()

    slow, world.connect = world.connect, lambda *pair: time.sleep(0.05) or slow(*pair)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, range(4)))
    assert world.refused == ["first"]


def test_check_sees_the_stored_value_that_the_database_does_not_accept_yet(world):
    world.log_in()
    world.store("second")
    for _ in range(2):
        with pytest.raises(LoginRefused):
            secret.check("PostgreSQL", "finance", REFERENCE, world.connect)
    assert world.refused == ["second"]
    assert world.log_in() == "finance"


def test_no_stored_version_is_refused_twice_unless_the_database_has_changed(world):
    """Play five events in each order; at the end, the database's own value is stored again, and accepted."""
    for events in itertools.product(("secret", "database", "login", "wait"), repeat=5):
        secret.LOGINS.clear()
        world.versions, world.password, world.made = ["first"], "first", time.time() - 30 * 86400
        world.refused.clear()
        for number, event in enumerate(events):
            if event == "secret":
                world.store(f"value {number}")
            elif event == "database":
                world.password = world.versions[-1] if world.password != world.versions[-1] else "ahead"
                world.refused.clear()
            else:
                world.now += 100 if event == "wait" else 1
                with suppress(LoginRefused, Unavailable):
                    world.log_in()
            assert len(world.refused) == len(set(world.refused)), events
        world.store(world.password)
        assert world.log_in() == "finance", events


def test_secret_is_in_no_error_and_no_repr(world):
    world.log_in()
    world.password = "second"
    with pytest.raises(Unavailable) as caught:
        world.log_in()
    login = secret.LOGINS["PostgreSQL", "finance", REFERENCE]
    shown = repr(caught.value) + str(caught.value) + repr(vars(login)) + repr(list(login.refused))
    assert "first" not in shown


@pytest.mark.parametrize("text", ["plain", "[]", "{}", '{"password": 1}', '{"password": {"a": "b"}}', '"password"'])
def test_value_without_the_key_is_one_line_without_the_value(text):
    with pytest.raises(SecretError, match="has no text under this JSON key") as caught:
        secret.extract(REFERENCE, Stored(text, "1", 0))
    assert (caught.value.kind, caught.value.__cause__, caught.value.__suppress_context__) == ("key", None, True) or (
        caught.value.kind == "key" and caught.value.__context__ is None
    )


def test_value_without_text_is_one_line():
    with pytest.raises(SecretError, match="holds no text"):
        secret.extract("ssm:/a", Stored("", "1", 0))


class Refusing:
    """A client of both services whose calls raise an error."""

    def __init__(self, error: Exception):
        self.error = error

    def get_secret_value(self, **_):
        raise self.error

    get_parameter = get_secret_value


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ResourceNotFoundException", "missing"),
        ("ParameterNotFound", "missing"),
        ("AccessDeniedException", "denied"),
        ("DecryptionFailure", "denied"),
        ("InvalidRequestException", "deleted"),
        ("ThrottlingException", "unreachable"),
        ("InternalServiceError", "unreachable"),
    ],
)
@pytest.mark.parametrize("source", ["secretsmanager:finance/pg", "ssm:/finance/pg"])
def test_error_of_the_service_is_one_line_with_its_kind(monkeypatch, source, code, kind):
    error = ClientError({"Error": {"Code": code, "Message": "long"}}, "GetSecretValue")
    monkeypatch.setattr(secret, "client", lambda service, region: Refusing(error))
    expected = SecretUnavailable if kind == "unreachable" else SecretError
    with pytest.raises(expected, match=source) as caught:
        secret.fetch(source)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_service_that_is_not_reached_names_the_endpoint(monkeypatch):
    error = EndpointConnectionError(endpoint_url="https://secretsmanager")
    monkeypatch.setattr(secret, "client", lambda service, region: Refusing(error))
    with pytest.raises(Unavailable, match="interface endpoint of secretsmanager"):
        secret.fetch("secretsmanager:finance/pg")


def test_region_of_an_arn_is_used(monkeypatch):
    asked = []
    monkeypatch.setattr(secret, "client", lambda *about: asked.append(about))
    monkeypatch.setattr(secret, "read_secret", lambda *about: about)
    secret.fetch("secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret:pg-AbCdEf")
    secret.fetch("secretsmanager:pg")
    assert asked == [("secretsmanager", "eu-west-1"), ("secretsmanager", "")]


def test_runtime_without_botocore_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    with pytest.raises(SecretError, match="botocore is missing") as caught:
        secret.fetch("secretsmanager:pg")
    assert caught.value.kind == "runtime"


def test_handler_imports_botocore_only_inside_functions():
    for path in (ROOT / "handler").glob("*.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert "botocore" not in " ".join(map(ast.unparse, top)), path.name
    requirements = (ROOT / "handler" / "requirements.txt").read_text()
    assert "boto" not in requirements


def test_ping_and_login_without_references_import_no_botocore():
    code = (
        "import sys; from handler import app, secret; app.handler({'ping': True}, None);"
        " secret.log_in('x', 'u', 'p', lambda u, p: None); print('botocore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "value",
    [
        "secretsmanager:finance/pg",
        "secretsmanager:finance/pg#password",
        "secretsmanager:arn:aws:secretsmanager:ap-southeast-3:123456789012:secret:finance/pg-AbCdEf#password",
        "ssm:/finance/pg",
        "a plain: value",
    ],
)
def test_reference_and_plain_value_are_accepted(value):
    assert settings.parse({**COMPLETE, "PG_PASSWORD": value}).pg_password == value


@pytest.mark.parametrize(
    "value",
    ["secretsmanager:", "secretsmanager:a b", "secretsmanager:a#", "SSM:/a", "ssm:finance", "ssm:/a#b", "ssm:/a\n"],
)
def test_malformed_reference_is_named_without_its_value(value):
    with pytest.raises(
        settings.SettingsError, match="PG_PASSWORD is malformed: expected a password, secretsm"
    ) as caught:
        settings.parse({**COMPLETE, "PG_PASSWORD": value})
    assert str(caught.value).count(value) <= str(caught.value).count("secretsmanager:")


def test_key_of_restate_is_no_variable_of_the_function_and_a_secret_of_github():
    assert "RESTATE_AUTH_TOKEN" not in [one.name for one in settings.SETTINGS]
    workflow = (ROOT / ".github" / "workflows" / "deploy-finance-lambda.yml").read_text()
    assert "RESTATE_AUTH_TOKEN: ${{ secrets.RESTATE_AUTH_TOKEN }}" in workflow


REACHABLE = {"PG_HOST": "pg", "PG_PORT": "5432", "ORACLE_CONNECT_STRING": "g/G", "AWS_REGION": "ap-southeast-3"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"PG_PASSWORD": "secretsmanager:pg", "ORACLE_PASSWORD": "ssm:/g"}, ["secretsmanager", "ssm"]),
        ({"PG_PASSWORD": "secretsmanager:pg"}, ["secretsmanager"]),
        ({"PG_PASSWORD": "plain"}, []),
    ],
)
def test_doctor_names_the_endpoints_of_a_vpc(changed, expected):
    cfg = {**REACHABLE, "VPC_SUBNET_IDS": "subnet-1", "VPC_SECURITY_GROUP_IDS": "sg-1", **changed}
    found = readiness.reachability(cfg)
    assert re.findall(r"com\.amazonaws\.ap-southeast-3\.(\w+)", found) == expected


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("denied", "inv roles --env prod"),
        ("missing", "secretsmanager create-secret --name finance/pg --secret-string file:///dev/stdin, or correct PG_"),
        ("deleted", "secretsmanager restore-secret --secret-id finance/pg"),
        ("key", "secretsmanager put-secret-value --secret-id finance/pg --secret-string file:///dev/stdin, or correct"),
        ("empty", "secretsmanager put-secret-value --secret-id finance/pg --secret-string file:///dev/stdin"),
        ("runtime", "correct PG_PASSWORD of env/prod.env and inv deploy --env prod"),
    ],
)
def test_each_fault_of_a_reference_is_one_line_with_its_fix(kind, fix):
    cfg = {"AWS_REGION": "ap-southeast-3", "AWS_PROFILE": "finance", "AWS_ENDPOINT_URL": ""}
    answer = {"ok": False, "error": str(SecretError(REFERENCE, kind)), "kind": kind}
    target = Target(Context(), cfg, "prod")
    passed, line, found = secret_tasks.evaluate({"PG_PASSWORD": REFERENCE}, "PostgreSQL", answer, target)
    assert not passed and line.startswith(f"PG_PASSWORD: {REFERENCE} ") and "\n" not in line
    assert fix in found
