"""The cloud on this machine, with real services, in state folders of its own beside the one that is in use."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from support import warm
from support.helpers import ROOT

from local import postgres, processes, services, tools
from local.cloud import Cloud
from local.errors import LocalError
from local.oracle import ledger
from local.services import NAMES
from local.state import HOST

UP = "import sys; from local.cloud import Cloud; Cloud().up()"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """Return a cloud that is up; a test that takes a service down brings it up again."""
    made = Cloud(tmp_path_factory.mktemp("cloud"), report=lambda line: None)
    made.up()
    yield made
    made.reset()


@pytest.fixture
def other(cloud):
    """Return a second state, inside the first one's folder as .local/test is in .local."""
    made = Cloud(cloud.state.path / "other", report=lambda line: None)
    yield made
    made.reset()


def test_everything_is_up_and_reported(cloud):
    found = cloud.status()
    assert list(found) == list(NAMES)
    assert all(service["up"] and service["pid"] and service["memory"] > 2**20 for service in found.values())


def test_every_service_listens_only_on_loopback(cloud):
    pids = {process.pid for process in processes.belonging_to(cloud.state.path)}
    ports = {port for service in cloud.status().values() for port in service["ports"].values()}
    assert listeners(pids) == {(HOST, port) for port in ports}


def listeners(pids: set[int]) -> set[tuple[str, int]]:
    """Return (address, port) of each TCP socket on which these processes listen; IPv6 ones as ('::', port)."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            inodes.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = row.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in inodes:
                address, port = local.split(":")
                packed = bytes.fromhex(address)[::-1]
                found.add((".".join(map(str, packed)) if table == "tcp" else "::", int(port, 16)))
    return found


def test_a_running_service_is_reused_at_once(cloud):
    before = {name: service["pid"] for name, service in cloud.status().items()}
    begin = time.monotonic()
    cloud.up()
    assert time.monotonic() - begin < 1
    assert {name: service["pid"] for name, service in cloud.status().items()} == before


def test_secrets_are_in_a_private_file_and_in_no_argument(cloud):
    assert cloud.state.env_file.stat().st_mode & 0o777 == 0o600
    secrets = [value for name, value in cloud.settings().items() if "PASSWORD" in name]
    assert len(set(secrets)) == 3
    for process in processes.belonging_to(cloud.state.path):
        words = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert not any(secret in words for secret in secrets)


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_service_is_reported_and_starts_on_its_old_ports(cloud, name):
    before = cloud.status()
    cloud.kill(name)
    assert [service for service, found in cloud.status().items() if not found["up"]] == [name]
    cloud.start(name)
    after = cloud.status()[name]
    assert after["up"] and after["ports"] == before[name]["ports"]


def test_a_second_cloud_runs_beside_it_and_stops_alone(cloud, other):
    other.up()
    ports = [port for one in (cloud, other) for service in one.status().values() for port in service["ports"].values()]
    assert len(set(ports)) == len(ports)
    assert not set(processes.belonging_to(cloud.state.path)) & set(processes.belonging_to(other.state.path))
    other.down()
    assert processes.belonging_to(other.state.path) == []
    assert all(service["up"] for service in cloud.status().values())


def test_down_stops_what_a_killed_up_started(other):
    env = {**os.environ, "FINANCE_CLOSING_STATE": str(other.state.path)}
    starting = subprocess.Popen([sys.executable, "-c", UP], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    wait_for(lambda: bool(processes.belonging_to(other.state.path, "restate")))
    starting.send_signal(signal.SIGKILL)
    starting.wait()
    assert processes.belonging_to(other.state.path)
    other.down()
    assert processes.belonging_to(other.state.path) == []


def test_a_taken_port_is_named_and_nothing_changes(cloud):
    cloud.stop("genius")
    port = cloud.status()["genius"]["port"]
    before = cloud.settings()
    with (
        socket.create_server((HOST, port)),
        pytest.raises(LocalError, match=rf"genius: its port {port} .* is taken .* local\.reset"),
    ):
        cloud.up()
    assert cloud.settings() == before
    assert not cloud.status()["genius"]["up"]
    cloud.up()


def test_a_service_that_fails_to_start_shows_its_log_and_stops_the_rest(other, monkeypatch, tmp_path_factory):
    broken = tmp_path_factory.mktemp("broken") / "restate-server"
    broken.write_text("#!/bin/sh\necho no disk\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(tools, "restate_server", lambda: broken)
    with pytest.raises(LocalError, match="restate: ended with exit code 3") as caught:
        other.up()
    assert "no disk" in caught.value.detail
    assert processes.belonging_to(other.state.path) == []


def test_an_unknown_service_is_refused(cloud):
    with pytest.raises(LocalError, match=r"No service 'oracle'\. Known: postgres, "):
        cloud.kill("oracle")


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1e9"])
def test_a_malformed_duration_is_refused(cloud, text):
    with pytest.raises(LocalError, match="is not a duration"):
        cloud.up(text)


@pytest.fixture(scope="module")
def echo(cloud, tmp_path_factory) -> str:
    """Create a function with one version, which answers its version's number."""
    bundle = tmp_path_factory.mktemp("echo") / "bundle.zip"
    with zipfile.ZipFile(bundle, "w") as file:
        file.writestr("code.py", "def answer(event, context):\n    return context.function_version\n")
    trust = ROOT / "policies" / "lambda-trust.json"
    aws(cloud, f"create-role --role-name echo --assume-role-policy-document file://{trust}", "iam")
    aws(
        cloud,
        f"create-function --function-name echo --runtime python3.{sys.version_info.minor} --handler code.answer"
        f" --role arn:aws:iam::{services.ACCOUNT}:role/echo --zip-file fileb://{bundle}",
    )
    aws(cloud, "publish-version --function-name echo")
    return "echo"


def test_functions_and_versions_outlive_a_killed_lambda_service(cloud, echo, tmp_path):
    answer = tmp_path / "answer"
    wait_for(lambda: f"{echo}:1" in (cloud.state.path / "aws" / "state" / "lambda.json").read_text())
    cloud.kill("aws")
    cloud.start("aws")
    aws(cloud, f"invoke --function-name {echo} --qualifier 1 {answer}")
    assert answer.read_text() == '"1"'


def test_functions_are_listed_with_all_versions(cloud, echo):
    every = aws(cloud, "list-functions --function-version ALL")["Functions"]
    assert [(one["FunctionName"], one["Version"]) for one in every] == [(echo, "$LATEST"), (echo, "1")]
    newest = aws(cloud, "list-functions")["Functions"]
    assert [one["Version"] for one in newest] == ["$LATEST"]


def test_a_function_url_is_reachable(cloud, echo):
    made = aws(cloud, f"create-function-url-config --function-name {echo} --auth-type NONE")
    assert aws(cloud, f"get-function-url-config --function-name {echo}")["FunctionUrl"] == made["FunctionUrl"]
    (listed,) = aws(cloud, f"list-function-url-configs --function-name {echo}")["FunctionUrlConfigs"]
    assert listed["FunctionUrl"] == made["FunctionUrl"]
    with urllib.request.urlopen(f"{made['FunctionUrl']}path", timeout=20) as answer:
        assert answer.read() == b"$LATEST"


def aws(cloud: Cloud, words: str, service: str = "lambda") -> dict:
    """Run a command of the AWS CLI and return its answer."""
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    place = ["--region", services.REGION, "--endpoint-url", cloud.status()["aws"]["url"], "--output", "json"]
    command = [warm.started().bin / "aws", *place, service, *words.split()]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout or "{}")


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            if condition():
                return
        time.sleep(0.02)
    raise AssertionError(f"not so within {seconds} s")


@pytest.fixture
def books(cloud):
    """Yield a connection of the application's user, and undo its changes."""
    connection = postgres.connect(cloud.settings(), "finance", "LOCAL_PG_PASSWORD", "finance")
    yield connection
    connection.rollback()
    connection.close()


def balances(connection, amounts: dict[str, str]) -> None:
    """Return one branch's end balances of 2025-01, debit minus credit, by account group."""
    for code, amount in amounts.items():
        connection.cursor().execute(
            "INSERT INTO financial_report.legacy_trial_balances"
            " (chart_of_account_code, branch_code, year, month, end_balance) VALUES (%s, '001', 2025, 1, %s)",
            (code, Decimal(amount)),
        )


def metrics(connection) -> dict[str, Decimal | None]:
    cursor = connection.cursor()
    run = str(uuid.uuid4())
    cursor.execute("SELECT financial_report.calculate_financial_metrics(%s::uuid, 2025, 1)", (run,))
    assert "metrics for 2025-01" in cursor.fetchone()[0]
    cursor.execute("SELECT metric, value FROM financial_report.financial_metrics WHERE run_id = %s::uuid", (run,))
    return dict(cursor.fetchall())


def test_metrics_are_the_insurers_ratios(books):
    balances(books, {"1": "160", "11": "60", "12": "100", "21": "-50", "22": "-20", "31": "-60"})
    balances(books, {"41": "-80", "42": "-5", "51": "30", "52": "10", "53": "8", "54": "7"})
    found = metrics(books)
    # The class '1' is the sum of 11 and 12 and must not count twice.
    assert found["total_assets"] == 160
    assert found["net_income"] == 30
    assert found["equity"] == 90
    assert found["claims_ratio"] == Decimal("0.375")
    assert found["combined_ratio"] == Decimal("0.6")
    assert found["current_ratio"] == 3
    assert found["investment_yield"] == Decimal("0.05")
    assert found["return_on_equity"] == Decimal("0.333333")


def test_a_ratio_over_nothing_is_null_and_a_warning(books):
    balances(books, {"11": "10", "31": "-10"})
    assert metrics(books)["claims_ratio"] is None
    cursor = books.cursor()
    cursor.execute("SELECT status, completed_steps = total_steps, warning_count > 0, metadata -> 'warnings' ? %s FROM "
                   "financial_report.calculation_runs", ("claims_ratio: division by zero",))  # fmt: skip
    assert cursor.fetchall() == (["completed", True, True, True],)


def test_a_later_run_replaces_the_metrics_of_its_period(books):
    balances(books, {"11": "10", "31": "-10"})
    first, second = metrics(books), metrics(books)
    assert first == second
    cursor = books.cursor()
    cursor.execute("SELECT count(*) FROM financial_report.financial_metrics WHERE year = 2025 AND month = 1")
    assert cursor.fetchone()[0] == len(second)


def test_a_period_without_balances_has_no_metrics(books):
    from pg8000.dbapi import DatabaseError

    with pytest.raises(DatabaseError, match="no trial balance for 2025-01"):
        metrics(books)


def test_the_chart_is_that_of_the_stand_in(books):
    cursor = books.cursor()
    cursor.execute("SELECT code, parent_code, level, name FROM financial_report.legacy_chart_of_accounts")
    assert sorted(map(list, cursor.fetchall())) == sorted(map(list, ledger.accounts(services.LEDGER_SEED)))
    cursor.execute("SELECT code, name FROM financial_report.branches")
    assert sorted(map(list, cursor.fetchall())) == sorted(map(list, ledger.branches(services.LEDGER_SEED)))


def test_the_service_may_make_its_own_tables(books):
    books.cursor().execute("CREATE TABLE financial_report.closing_runs (day date)")
