"""The four services of the local cloud: command, environment, ports and readiness probe of each."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from . import identity, processes, tools
from . import postgres as server
from .service import Service, answers
from .state import HOST, LOCAL, PORT_NAMES, ROOT, State

NAMES = ("postgres", "genius", "aws", "restate")
# A service stops after those that call it, so that no call fails.
ENDING_ORDER = ("restate", "aws", "genius", "postgres")
# Service -> the signal that asks for an orderly end, and the seconds to wait before SIGKILL.
# To PostgreSQL SIGINT is `pg_ctl stop -m fast`; SIGTERM would wait for its clients.
ENDINGS = {"postgres": (signal.SIGINT, 30)}
USUAL_ENDING = (signal.SIGTERM, 10)
REGION = "ap-southeast-3"
ACCOUNT = "000000000000"
ORACLE_SERVICE = "GENIUS"
ORACLE_USER = "GENIUS"
LEDGER_SEED = 806
PROCEDURE_SECONDS = "8"
Report = Callable[[str], None]


def build(state: State, settings: Mapping[str, str], report: Report) -> list[Service]:
    """Return all services, in the order of `inv local.status`."""
    return [make(state, settings, report) for make in (postgres, genius, aws, restate)]


def postgres(state: State, settings: Mapping[str, str], report: Report) -> Service:
    """Return PostgreSQL."""
    ports = _ports(settings, "postgres")
    port = ports["LOCAL_PG_PORT"]
    command, options = server.server_command(state, port)
    return Service(
        name="postgres",
        command=command,
        env=_environment(state, "postgres"),
        ports=ports,
        url=f"postgresql://{server.APPLICATION}@{HOST}:{port}/{server.DATABASE}",
        probe=lambda: server.probe(settings),
        prepare=lambda: server.make_cluster(state, settings),
        finish=lambda: server.apply_schema(state, settings, LEDGER_SEED),
        options=options,
    )


def genius(state: State, settings: Mapping[str, str], report: Report) -> Service:
    """Return the Oracle stand-in."""
    ports = _ports(settings, "genius")
    port = ports["LOCAL_ORACLE_PORT"]
    env = _environment(state, "genius")
    env["PYTHONPATH"] = str(ROOT)
    env["PYTHONUNBUFFERED"] = "1"
    env["GENIUS_USERS"] = f"{ORACLE_USER}:{settings['LOCAL_ORACLE_PASSWORD']}"
    command = [_this_python(), "-m", "local.oracle", "--port", str(port), "--data", str(state.path / "genius")]
    command += ["--service", ORACLE_SERVICE, "--seed", str(LEDGER_SEED)]
    command += ["--procedure-seconds", settings.get("LOCAL_PROCEDURE_SECONDS", PROCEDURE_SECONDS)]
    return Service(
        name="genius",
        command=command,
        env=env,
        ports=ports,
        url=f"{HOST}:{port}/{ORACLE_SERVICE}",
        # It listens only after it has opened its books and jobs. A login would fail under an injected fault.
        probe=lambda: _require(answers(port)),
        prepare=lambda: _make_folders(state, "genius"),
    )


def aws(state: State, settings: Mapping[str, str], report: Report) -> Service:
    """Return the Lambda emulator ministack."""
    ports = _ports(settings, "aws")
    port = ports["LOCAL_AWS_PORT"]
    env = _environment(state, "aws")
    # Its functions inherit this environment, so it has only what ministack itself reads.
    env.update(
        GATEWAY_PORT=str(port),
        BIND_HOST=HOST,
        MINISTACK_HOST=HOST,
        MINISTACK_REGION=REGION,
        MINISTACK_ACCOUNT_ID=ACCOUNT,
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        TMPDIR=str(state.path / "aws" / "tmp"),
        PERSIST_STATE="1",
        # Enforce IAM: the key of ops/environment.py is the account's root, and a function has only its role's rights.
        AUTH="true",
        AWS_ACCESS_KEY_ID="local",
        AWS_SECRET_ACCESS_KEY="local",
        STATE_DIR=str(state.path / "aws" / "state"),
        S3_PERSIST="1",
        S3_DATA_DIR=str(state.path / "aws" / "s3"),
    )
    return Service(
        name="aws",
        command=[str(tools.ministack_python()), "-I", str(LOCAL / "run_ministack.py")],
        env=env,
        ports=ports,
        url=f"http://{HOST}:{port}",
        probe=lambda: _ask(port, "/_ministack/ready"),
        install=lambda abandon: tools.install_ministack(state, report, abandon),
        prepare=lambda: _make_folders(state, "aws/tmp", "aws/state", "aws/s3"),
        options={"cwd": str(state.path / "aws")},
    )


def restate(state: State, settings: Mapping[str, str], report: Report) -> Service:
    """Return restate-server."""
    ports = _ports(settings, "restate")
    ingress, admin = ports["LOCAL_RESTATE_INGRESS_PORT"], ports["LOCAL_RESTATE_ADMIN_PORT"]
    node = ports["LOCAL_RESTATE_NODE_PORT"]
    env = _environment(state, "restate")
    env.update(
        RESTATE_CONFIG=str(LOCAL / "restate.toml"),
        RESTATE_BASE_DIR=str(state.path / "restate"),
        TMPDIR=str(state.path / "restate" / "tmp"),
        RESTATE_BIND_PORT=str(node),
        RESTATE_ADVERTISED_ADDRESS=f"http://{HOST}:{node}/",
        RESTATE_INGRESS__BIND_PORT=str(ingress),
        RESTATE_ADMIN__BIND_PORT=str(admin),
        RESTATE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE=str(identity.key_file(state)),
        AWS_ENDPOINT_URL=f"http://{HOST}:{settings['LOCAL_AWS_PORT']}",
        AWS_REGION=REGION,
        AWS_ACCESS_KEY_ID="local",
        AWS_SECRET_ACCESS_KEY="local",
        AWS_EC2_METADATA_DISABLED="true",
    )

    def probe() -> None:
        _ask(ingress, "/restate/health")
        # The ingress answers before the partitions have leaders; only then can state and invocations be read.
        _ask(admin, "/query", b'{"query": "SELECT count(1) FROM state"}')

    return Service(
        name="restate",
        command=[str(tools.restate_server()), "--no-logo"],
        env=env,
        ports=ports,
        url=f"http://{HOST}:{admin}",
        probe=probe,
        install=lambda abandon: tools.install_restate(state, report, abandon),
        prepare=lambda: _prepare_restate(state),
        options={"cwd": str(state.path / "restate")},
    )


def _ports(settings: Mapping[str, str], service: str) -> dict[str, int]:
    return {name: int(settings[name]) for name, owner in PORT_NAMES.items() if owner == service}


def _environment(state: State, service: str) -> dict[str, str]:
    """Return the environment of every service: without credentials, proxies or settings of the user."""
    return {
        "PATH": os.defpath,
        "HOME": str(state.path / "home"),
        "LANG": "C.UTF-8",
        processes.MARK: str(state.path),
        processes.SERVICE_MARK: service,
    }


def _this_python() -> str:
    """Return this environment's interpreter, always by the same name: the fingerprint includes it."""
    usual = Path(sys.prefix) / "bin" / "python"
    return str(usual) if usual.exists() else sys.executable


def _make_folders(state: State, *names: str) -> None:
    for name in ("home", *names):
        state.make(name)


def _prepare_restate(state: State) -> None:
    """Make the folders; restate-server makes new folders for its invoker at each start and removes none."""
    shutil.rmtree(state.path / "restate" / "tmp", ignore_errors=True)
    _make_folders(state, "restate/tmp")


def _ask(port: int, path: str, body: bytes | None = None) -> None:
    """Send a GET, or a POST of JSON; raises an error unless the answer is a success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"content-type": "application/json", "accept": "application/json"}
    opener.open(urllib.request.Request(f"http://{HOST}:{port}{path}", body, headers), timeout=2).close()


def _require(condition: bool) -> None:
    if not condition:
        raise ConnectionError("no connection")
