"""Fixtures of all tests: the shared local cloud, a Genius stand-in of a test's own, and the checks of the whole run."""

from __future__ import annotations

import os
import uuid
from contextlib import closing, suppress
from pathlib import Path

import oracledb
import pytest
from support import checkout, instantclient
from support.api_recorder import Recorder
from support.closing_jobs import PASSWORD, StandIn
from support.helpers import ROOT, STATE, as_superuser, inv

from handler import oracle, settings

# A real Oracle for the tests of handler/genius.py; tests that inject a fault are then skipped.
REAL = os.environ.get("ORACLE_TEST_CONNECT_STRING")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Under xdist a worker takes one file after the other, those first that use the cloud: each worker has its own.

    The files that need the ZIPs of Instant Client stay together: making these takes seconds.
    """
    in_cloud = {item.path for item in items if "local" in item.fixturenames}
    with_zips = {item.path for item in items if "zips" in item.fixturenames}
    for item in items:
        alone = "zips" if item.path in with_zips - in_cloud else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(alone))
    items.sort(key=lambda item: item.path not in in_cloud)


@pytest.fixture(scope="session", autouse=True)
def checkout_stays_as_it_is():
    """The whole run changes no file of the checkout and adds none."""
    before = checkout.status()
    yield
    changed = sorted(checkout.status() ^ before)
    assert not changed, "a test, or somebody during the run, has changed the checkout: " + ", ".join(changed)


@pytest.fixture(scope="session", autouse=True)
def in_the_copy():
    """A task that runs in this process starts its commands in the folder of the copy, as `inv` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="session", autouse=True)
def recorder():
    """The recorder of all calls of the AWS CLI; no `inv --dry` of the whole run calls an operation that changes."""
    made = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made
    assert not [call for call in made.calls() if call.task.startswith("--dry") and not call.is_query]


@pytest.fixture(scope="session")
def local():
    """The local cloud that the tests of a worker share, up and empty; it goes down at the end of the run."""
    from local import cloud

    there = cloud.Cloud(STATE, report=lambda line: None)
    there.reset()
    there.up()
    yield there
    there.down()


@pytest.fixture(scope="session")
def cfg(local) -> dict[str, str]:
    """The settings of env/local.env with this cloud's ports."""
    from ops import config

    return config.load("local")


@pytest.fixture(scope="session")
def deployed(cfg) -> dict[str, str]:
    """The function deployed from nothing, and its table made, by the operator's own commands."""
    inv("deploy", "--env", "local")
    inv("schema", "--env", "local")
    return cfg


@pytest.fixture
def function_settings(cfg, monkeypatch):
    """handler/'s own modules with the settings that the deployed function gets."""
    from ops import config

    for key, value in config.function_environment(cfg).items():
        monkeypatch.setenv(key, value)
    settings.current.cache_clear()
    yield cfg
    settings.current.cache_clear()


@pytest.fixture
def stand_in(tmp_path):
    if REAL:
        pytest.skip("needs faults, which a real database does not have on demand")
    there = StandIn(tmp_path / "data")
    yield there
    there.stop()


@pytest.fixture
def handler_settings(request, monkeypatch):
    """handler/genius.py as the function has it, with a driver whose defaults are put back."""
    if REAL:
        access = {name: os.environ[f"ORACLE_TEST_{name}"] for name in ("CONNECT_STRING", "USER", "PASSWORD")}
    else:
        dsn = request.getfixturevalue("stand_in").server.dsn()
        access = {"CONNECT_STRING": dsn, "USER": "GENIUS", "PASSWORD": PASSWORD}
    mode = os.environ.get("ORACLE_TEST_CLIENT") or ("thick" if REAL else "thin")
    for name, value in {**access, "CLIENT": mode}.items():
        monkeypatch.setenv(f"ORACLE_{name}", value)
    for name in ("fetch_decimals", "fetch_lobs"):
        monkeypatch.setattr(oracledb.defaults, name, getattr(oracledb.defaults, name))
    settings.current.cache_clear()
    oracle.driver.cache_clear()
    yield
    settings.current.cache_clear()
    oracle.driver.cache_clear()


@pytest.fixture
def owner(handler_settings) -> str:
    """An owner that no job of the database has had, as an invocation's id is."""
    return f"inv_{uuid.uuid4().hex}"


@pytest.fixture
def impatient(monkeypatch):
    """Calls that may take a quarter of a second."""
    monkeypatch.setattr(oracle.connected.__wrapped__, "__defaults__", (0.25,))


@pytest.fixture(scope="session")
def zips(tmp_path_factory) -> dict[str, Path]:
    """ZIPs of Instant Client's shape, one a layout; the folders they were made of stay beside them."""
    if not instantclient.COMPILER:
        pytest.skip("needs a C compiler, to make libraries from")
    base = tmp_path_factory.mktemp("instantclient")
    return {one.version: instantclient.make_zip(one, base / one.version) for one in instantclient.LAYOUTS.values()}


@pytest.fixture(scope="module")
def admin(local):
    """PostgreSQL's superuser in the finance database."""
    connection = as_superuser(local)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def own_schema(cfg, admin):
    """The ledger's own modules at work in a schema with bare tables, so that a test may fill them as it likes."""
    from support import rollup_helpers as rollup_kit

    from handler import schema, settings
    from ops import config

    rollup_kit.make_schema(admin)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**config.function_environment(cfg), "PG_SCHEMA": rollup_kit.SCHEMA}.items():
            patch.setenv(key, value)
        settings.current.cache_clear()
        schema.apply()
        yield
    settings.current.cache_clear()


@pytest.fixture
def other_database(own_schema, local, admin, monkeypatch):
    """other_database(encoding): the ledger's modules at work in a database of that encoding, with our own tables."""
    from handler import schema
    from handler.errors import Refused
    from local import postgres

    name = "other_encoding"

    def make(encoding: str) -> None:
        drop()
        admin.run(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' OWNER finance"
        )
        with closing(postgres.connect_admin(local.settings(), name)) as connection:
            for file in sorted(postgres.SQL.glob("*.sql")):
                connection.execute_simple(file.read_text())
            connection.execute_simple("GRANT ALL ON ALL TABLES IN SCHEMA financial_report TO finance")
            connection.execute_simple("COMMIT")
        now = settings.current()
        monkeypatch.setattr(now, "pg_database", name)
        monkeypatch.setattr(now, "pg_schema", "financial_report")
        with suppress(Refused):
            schema.apply()

    def drop() -> None:
        admin.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    yield make
    drop()
