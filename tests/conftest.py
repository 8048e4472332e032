"""One local cloud for the whole run, in a state folder of its own."""

from __future__ import annotations

from pathlib import Path

import instantclient
import pytest
from kit import STATE, inv


@pytest.fixture(scope="session")
def local():
    """The cloud on this machine, up and empty; ended with the run."""
    import cloud

    there = cloud.Cloud(STATE, say=lambda line: None)
    there.reset()
    there.up()
    yield there
    there.down()


@pytest.fixture(scope="session")
def cfg(local) -> dict[str, str]:
    """The settings of env/local.env with this cloud's ports."""
    from env import environment

    return environment.load("local")


@pytest.fixture(scope="session")
def deployed(cfg) -> dict[str, str]:
    """The function deployed from nothing, and its table made, by the operator's own commands."""
    inv("deploy", "--env", "local")
    inv("schema", "--env", "local")
    return cfg


@pytest.fixture
def function_settings(cfg, monkeypatch):
    """handler/'s own modules with the settings that the deployed function gets."""
    from env import environment
    from handler import settings

    for key, value in environment.function_environment(cfg).items():
        monkeypatch.setenv(key, value)
    settings.current.cache_clear()
    yield cfg
    settings.current.cache_clear()


@pytest.fixture(scope="session")
def zips(tmp_path_factory) -> dict[str, Path]:
    """ZIPs of Instant Client's shape, one a layout; the folders they were made of stay beside them."""
    if not instantclient.COMPILER:
        pytest.skip("needs a C compiler, to make libraries from")
    base = tmp_path_factory.mktemp("instantclient")
    return {one.version: instantclient.make_zip(one, base / one.version) for one in instantclient.LAYOUTS.values()}
