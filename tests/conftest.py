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
# The longest files that do not use the workers' clouds. They begin first, so that no worker is left alone with one.
LONGEST = ("test_chaos.py", "test_pages.py", "test_simulation.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Order the files under xdist: a worker takes one after the other, first those that use its own cloud.

    The files that need the ZIPs of Instant Client stay together: making these takes seconds.
    """
    in_cloud = {item.path for item in items if "local" in item.fixturenames}
    with_zips = {item.path for item in items if "zips" in item.fixturenames}
    for item in items:
        file, _, test = item.nodeid.partition("::")
        group = "zips" if item.path in with_zips - in_cloud else file
        # A file may have groups of its own; the tests of the simulation share nothing.
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(test if item.path.name == "test_simulation.py" else group))
    items.sort(key=lambda item: (item.path.name not in LONGEST, item.path not in in_cloud))


@pytest.fixture(scope="session", autouse=True)
def checkout_stays_as_it_is():
    """Check that the whole run changes no file of the checkout and adds none."""
    before = checkout.status()
    yield
    changed = sorted(checkout.status() ^ before)
    assert not changed, "a test, or somebody during the run, has changed the checkout: " + ", ".join(changed)


@pytest.fixture(scope="session", autouse=True)
def in_the_copy():
    """Let a task that runs in this process start its commands in the folder of the copy, as `inv` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="session", autouse=True)
def recorder():
    """Record all calls of the AWS CLI; no `inv --dry` of the whole run calls an operation that changes."""
    made = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made
    assert not [call for call in made.calls() if call.task.startswith("--dry") and not call.is_query]


@pytest.fixture(scope="session")
def local():
    """Start the local cloud that the tests of a worker share, up and empty; it goes down at the end of the run."""
    from local import cloud

    there = cloud.Cloud(STATE, report=lambda line: None)
    there.reset()
    there.up()
    yield there
    there.down()


@pytest.fixture(scope="session")
def cfg(local) -> dict[str, str]:
    """Return the settings of env/local.env with this cloud's ports."""
    from ops import config

    return config.load("local")


@pytest.fixture(scope="session")
def deployed(cfg) -> dict[str, str]:
    """Deploy the function from nothing, and make its table, by the operator's own commands."""
    inv("deploy", "--env", "local")
    inv("schema", "--env", "local")
    return cfg


@pytest.fixture
def function_settings(cfg, monkeypatch):
    """Give handler/'s own modules the settings that the deployed function gets."""
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
    """Return handler/genius.py as the function has it; the driver's defaults are restored afterwards."""
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
    """Return an owner that no job of the database has had, as an invocation's id is."""
    return f"inv_{uuid.uuid4().hex}"


@pytest.fixture
def impatient(monkeypatch):
    """Let calls take at most a quarter of a second."""
    monkeypatch.setattr(oracle.connected.__wrapped__, "__defaults__", (0.25,))


@pytest.fixture(scope="session")
def zips(tmp_path_factory) -> dict[str, Path]:
    """Make ZIPs of Instant Client's shape, one per layout; the folders they were made of stay beside them."""
    if not instantclient.COMPILER:
        pytest.skip("needs a C compiler, to make libraries from")
    base = tmp_path_factory.mktemp("instantclient")
    return {one.version: instantclient.make_zip(one, base / one.version) for one in instantclient.LAYOUTS.values()}


@pytest.fixture(scope="module")
def admin(local):
    """Yield a connection of PostgreSQL's superuser to the finance database."""
    connection = as_superuser(local)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def own_schema(cfg, admin):
    """Let the ledger's own modules work in a schema with bare tables, so that a test may fill them as it likes."""
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
    """Return a function of an encoding: the ledger's modules then work in a database of it, with our own tables."""
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
