"""Users and passwords by reference, in the emulator's Secrets Manager and Parameter Store, and rotations of both."""

from __future__ import annotations

import json
import time

import pytest
from invoke import Context
from support import warm
from support.helpers import STATE, administer, as_superuser, environment_file, inv, output_of, workers
from support.schedule_helpers import wait_for

from local.oracle.faults import Faults
from ops import closings, doctor, secret_tasks, shell
from ops.target import Target

FAULTS = Faults(STATE / "genius")
ENV = "testsecrets"
REFERENCES = {
    "PG_USER": "secretsmanager:test/pg#username",
    "PG_PASSWORD": "secretsmanager:test/pg#password",
    "ORACLE_PASSWORD": "ssm:/test/genius",
}
# So short that a database that stays ahead ends the closing within the test.
OTHERS = {"LOGIN_RETRY_SECONDS": "6", "RETRY_ATTEMPTS": "3", "RETRY_CAP_SECONDS": "1"}
KEY = {"SECRETS_KMS_KEY_ARN": "arn:aws:kms:ap-southeast-3:000000000000:key/0b1c"}
PASSWORDS = iter(f"rotated-{number}" for number in range(1, 100))


def aws(cfg: dict, command: str, typed: str | None = None) -> str:
    """Run a command as an operator pastes it, who types the secret on standard input."""
    path = f"{warm.started().bin}:{shell.command_environment(cfg)['PATH']}"
    return output_of(cfg, f"aws --region {cfg['AWS_REGION']} {command}", typed, PATH=path)


class Rotation:
    """Both passwords, as the databases have them and as they are stored."""

    def __init__(self, local, cfg: dict[str, str]):
        self.local, self.cfg, self.used = local, cfg, []

    def create(self) -> None:
        text = json.dumps({"username": self.cfg["PG_USER"], "password": self.cfg["PG_PASSWORD"]})
        aws(self.cfg, "secretsmanager create-secret --name test/pg --secret-string file:///dev/stdin", text + "\n")
        self.put_genius(self.cfg["ORACLE_PASSWORD"])

    def in_databases(self, password: str) -> None:
        self.used.append(password)
        administer(self.local, f"ALTER USER {self.cfg['PG_USER']} PASSWORD '{password}'")
        FAULTS.inject("password", f"GENIUS:{password}")

    def in_store(self, password: str) -> None:
        text = json.dumps({"username": self.cfg["PG_USER"], "password": password})
        aws(self.cfg, "secretsmanager put-secret-value --secret-id test/pg --secret-string file:///dev/stdin", text)
        self.put_genius(password)

    def put_genius(self, password: str) -> None:
        command = "ssm put-parameter --name /test/genius --type SecureString --overwrite --value file:///dev/stdin"
        aws(self.cfg, command, password + "\n")

    def restore(self) -> None:
        administer(self.local, f"ALTER USER {self.cfg['PG_USER']} PASSWORD '{self.cfg['PG_PASSWORD']}'")
        FAULTS.clear("password")


@pytest.fixture(scope="module")
def rotation(local, deployed):
    """Deploy the function with references; yields, then restores it."""
    made = Rotation(local, deployed)
    made.create()
    try:
        with environment_file(ENV, **REFERENCES, **OTHERS, **KEY) as env:
            inv("deploy", "--env", env)
            yield made
    finally:
        made.restore()
        FAULTS.clear("procedure_seconds")
        inv("deploy", "--env", "local")


@pytest.fixture
def refusals(rotation):
    """Return the logins that each database has refused since the test began; no password is in any log after it."""
    logs = {"postgres": "password authentication failed for user", "genius": "refused   a login of"}
    begin = {name: (STATE / "logs" / f"{name}.log").stat().st_size for name in logs}

    def count() -> dict[str, int]:
        return {
            name: (STATE / "logs" / f"{name}.log").read_bytes()[begin[name] :].decode().count(words)
            for name, words in logs.items()
        }

    yield count
    everything = "".join(path.read_text(errors="replace") for path in (STATE / "logs").glob("aws*.log"))
    for table in ("sys_journal", "sys_journal_events", "sys_invocation"):
        everything += json.dumps(closings.sql(rotation.cfg, f"SELECT * FROM {table}"), default=str)
    assert '"event": "step"' in everything
    assert not [one for one in rotation.used if one in everything]


def assert_refused_once(cfg: dict[str, str], found: dict[str, int], values: int = 1) -> None:
    """Assert that each sandbox of the version was refused at most once for each value; usually there is one sandbox."""
    sandboxes = len(workers(live_version(cfg)))
    assert sandboxes and all(1 <= count <= values * sandboxes for count in found.values()), (found, sandboxes)


def findings() -> list[tuple[bool, str, str]]:
    return secret_tasks.findings(Target.load(Context(), ENV))


def rows(local, date: str) -> list[dict]:
    """Return a date's rows of closing_runs by the superuser, whose password stays."""
    connection = as_superuser(local)
    found = connection.run(
        "SELECT status, message FROM financial_report.closing_runs WHERE closing_date = CAST(:date AS date)"
        " ORDER BY started_at",
        date=date,
    )
    connection.close()
    return [{"status": status, "message": message} for status, message in found]


def start(cfg: dict[str, str], date: str, seconds: int) -> None:
    """Start a closing and return while its job runs."""
    FAULTS.inject("procedure_seconds", str(seconds))
    inv("close", "--env", ENV, "--date", date)
    wait_for(lambda: closings.state_of(cfg, "ClosingPeriod", date[:7]).get("progress", {}).get("state") == "RUNNING")


def await_end(rotation, date: str) -> dict:
    """Return a date's last row when its closing has ended, so that a check meets a sandbox which is free."""
    wait_for(lambda: [row["status"] for row in rows(rotation.local, date)] not in ([], ["running"]))
    wait_for(lambda: closings.ended(rotation.cfg, date))
    return rows(rotation.local, date)[-1]


def live_version(cfg: dict[str, str]) -> str:
    return json.loads(aws(cfg, f"lambda get-alias --function-name {cfg['FUNCTION_NAME']} --name live"))[
        "FunctionVersion"
    ]


def test_references_resolve_and_log_in_and_no_value_is_shown(rotation):
    done = inv("secrets.check", "--env", ENV)
    assert done.stdout == (
        f"{ENV}: PG_USER secretsmanager:test/pg#username and PG_PASSWORD secretsmanager:test/pg#password:"
        " resolved, and PostgreSQL accepts the login\n"
        f"{ENV}: ORACLE_PASSWORD ssm:/test/genius: resolved, and Genius accepts the login\n"
    )
    shown = json.loads(inv("env.json", "--env", ENV).stdout)["Variables"]
    assert {name: shown[name] for name in REFERENCES} == REFERENCES
    exported = inv("env.shell", "--env", ENV).stdout
    assert "export ORACLE_PASSWORD=ssm:/test/genius\n" in exported
    compared = inv("env.diff", "--env", "local").stdout
    assert "PG_PASSWORD: the function has 'secretsmanager:test/pg#password', the file a plain value\n" in compared
    for password in (rotation.cfg["PG_PASSWORD"], rotation.cfg["ORACLE_PASSWORD"]):
        assert password not in done.stdout + json.dumps(shown) + compared + exported
    ping = json.loads(inv("doctor", "--env", ENV, "--json", check=False).stdout)
    assert [one["passed"] for one in ping if one["name"] in ("roles", "secrets", "postgres", "oracle")] == [True] * 5


def test_role_can_read_exactly_the_references_as_long_as_a_version_has_them(rotation):
    cfg = rotation.cfg

    def resource(policy: str):
        found = aws(cfg, f"iam get-role-policy --role-name {cfg['ROLE_NAME']} --policy-name {policy}")
        return json.loads(found)["PolicyDocument"]["Statement"][0]["Resource"]

    assert resource("lambda-secrets") == [
        f"arn:aws:secretsmanager:{cfg['AWS_REGION']}:000000000000:secret:test/pg-??????",
        f"arn:aws:ssm:{cfg['AWS_REGION']}:000000000000:parameter/test/genius",
    ]
    assert resource("lambda-secrets-key") == KEY["SECRETS_KMS_KEY_ARN"]
    with environment_file("testplain") as env:
        assert "no longer wanted" not in inv("--dry", "roles", "--env", env).stdout, "a version with references exists"


def test_secret_first_closes_on_the_old_version(rotation, refusals):
    date, password, version = "2025-04-14", next(PASSWORDS), live_version(rotation.cfg)
    start(rotation.cfg, date, 5)
    rotation.in_store(password)
    time.sleep(1)
    assert refusals() == {"postgres": 0, "genius": 0}
    assert not all(passed for passed, *_ in findings()), "stored, and not yet accepted by the databases"
    rotation.in_databases(password)
    row = await_end(rotation, date)
    assert (row["status"], live_version(rotation.cfg)) == ("succeeded", version)
    # The check used the new value once, and the closing the old one once.
    assert_refused_once(rotation.cfg, refusals(), values=2)
    # The check keeps off the refused value for LOGIN_RETRY_SECONDS.
    wait_for(lambda: all(passed for passed, *_ in findings()))


def test_database_first_closes_if_the_secret_follows_in_time(rotation, refusals):
    date, password, version = "2025-04-15", next(PASSWORDS), live_version(rotation.cfg)
    start(rotation.cfg, date, 4)
    rotation.in_databases(password)
    wait_for(lambda: refusals()["genius"])
    rotation.in_store(password)
    row = await_end(rotation, date)
    assert (row["status"], live_version(rotation.cfg)) == ("succeeded", version)
    assert_refused_once(rotation.cfg, refusals())


def test_database_that_stays_ahead_pauses_the_closing_after_one_refused_login(rotation, refusals):
    date, password, cfg = "2025-04-16", next(PASSWORDS), rotation.cfg
    start(cfg, date, 2)
    rotation.in_databases(password)
    close = lambda: closings.invocation_of(cfg, "ClosingPeriod", date[:7], "close")  # noqa: E731
    wait_for(lambda: close()["status"] == "paused")
    assert_refused_once(cfg, refusals())
    assert [one[0] for one in findings()] == [False, False]
    assert_refused_once(cfg, refusals())

    rotation.in_store(password)
    assert all(passed for passed, *_ in findings())
    inv("resume", "--env", ENV, "--date", date)
    assert "could not be observed" in await_end(rotation, date)["message"]
    inv("rerun", "--env", ENV, "--date", date, "--adopt", "--yes", "--watch")
    assert rows(rotation.local, date)[-1]["status"] == "succeeded"
    assert_refused_once(cfg, refusals())


@pytest.mark.parametrize(
    ("make", "back", "message", "fix"),
    [
        (
            "secretsmanager delete-secret --secret-id test/pg",
            "secretsmanager restore-secret --secret-id test/pg",
            "secretsmanager:test/pg is marked for deletion",
            "secretsmanager restore-secret --secret-id test/pg",
        ),
        (
            "secretsmanager put-secret-value --secret-id test/pg --secret-string file:///dev/stdin",
            "",
            "secretsmanager:test/pg#username has no text under this JSON key",
            "secretsmanager put-secret-value --secret-id test/pg --secret-string file:///dev/stdin, or correct PG_",
        ),
        (
            "ssm delete-parameter --name /test/genius",
            "",
            "ssm:/test/genius does not exist",
            "ssm put-parameter --overwrite --type SecureString --name /test/genius --value file:///dev/stdin, or",
        ),
    ],
)
def test_reference_that_cannot_be_read_is_one_line_with_its_fix(rotation, make, back, message, fix):
    password = next(PASSWORDS)
    rotation.in_databases(password)
    rotation.in_store(password)
    aws(rotation.cfg, make, '{"user": "u"}')
    try:
        target = Target.load(Context(), ENV)
        (failure,) = [one for one in doctor.secrets(target) if not one.passed]
        done = inv("secrets.check", "--env", ENV, check=False)
    finally:
        if back:
            aws(rotation.cfg, back)
        rotation.in_store(password)
    assert message in failure.message and fix in failure.fix and message in done.stderr
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert all(passed for passed, *_ in findings())


def test_reference_that_the_role_must_not_read_is_one_line_and_inv_roles_permits_it(rotation):
    aws(rotation.cfg, f"iam delete-role-policy --role-name {rotation.cfg['ROLE_NAME']} --policy-name lambda-secrets")
    try:
        denied = findings()
        done = inv("secrets.check", "--env", ENV, check=False)
    finally:
        inv("roles", "--env", ENV)
    assert [passed for passed, *_ in denied] == [False, False]
    assert all(fix.startswith(f"inv roles --env {ENV}, or if that changes nothing, aws ") for *_, fix in denied)
    assert all("must not be read by the function's role" in line for _, line, _ in denied)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert all(passed for passed, *_ in findings())


@pytest.mark.slow
def test_policies_go_when_nothing_refers_to_a_secret(rotation):
    other = {"FUNCTION_NAME": "test-none", "ROLE_NAME": "test-none"}
    with environment_file("testplain", **other, **REFERENCES, **KEY) as env:
        inv("roles", "--env", env)
        assert [one.message for one in doctor.role(Target.load(Context(), env))] == ["test-none agrees with policies/"]
    with environment_file("testplain", **other) as env:
        found = [one.message for one in doctor.role(Target.load(Context(), env)) if not one.passed]
        done = inv("roles", "--env", env).stdout
        names = ("lambda-secrets", "lambda-secrets-key")
        assert found == [f"the policy {name} of test-none is no longer wanted" for name in names]
        assert all(message in done for message in found) and "2 changes made" in done
        assert [one.passed for one in doctor.role(Target.load(Context(), env))] == [True]
