"""Fixtures of the wire's tests: an engine, its server, and the driver connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import oracledb
import pytest
from net_helpers import ConnectableServer, FakeDatabase

from local.oracle.connection import Limits


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "drivers: other versions of the driver, each installed in a venv of its own")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "drivers" in config.getoption("-m"):
        return
    for item in items:
        if "drivers" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="installs another driver; ask for it with -m drivers"))


@pytest.fixture
def database(tmp_path: Path) -> FakeDatabase:
    return FakeDatabase(tmp_path)


@pytest.fixture
def running(database: FakeDatabase) -> Iterator[ConnectableServer]:
    server = ConnectableServer(database, limits=Limits(login_seconds=5, message_bytes=8 * 1024 * 1024))
    yield server
    server.stop()


@pytest.fixture
def connection(running: ConnectableServer) -> Iterator[oracledb.Connection]:
    with running.connect() as connection:
        yield connection


@pytest.fixture
def exact_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read numbers as Decimal, as our handler does."""
    monkeypatch.setattr(oracledb.defaults, "fetch_decimals", True)
