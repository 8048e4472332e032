"""A real Instant Client, where there is one: INSTANT_CLIENT=path/to/the.zip make test."""

from __future__ import annotations

import os

import pytest
from support.instantclient import check_loads, run_with, unzip

from layer import build, client

REAL = os.environ.get("INSTANT_CLIENT", "")
pytestmark = pytest.mark.skipif(not REAL, reason="needs a real Instant Client ZIP: INSTANT_CLIENT=path")


def test_a_real_client_loads_and_starts(tmp_path):
    target = tmp_path / "build" / "layer.zip"
    build.build(REAL, "python3.13", True, target)
    lib = unzip(target, tmp_path / "opt") / "lib"
    check_loads(lib, next(name for name in client.DATA_LIBRARIES if (lib / name).exists()))
    done = run_with(lib, "import oracledb; oracledb.init_oracle_client(); print(oracledb.clientversion())")
    assert done.returncode == 0, done.stderr


def test_a_real_client_gives_the_same_bytes_twice(tmp_path):
    made = [tmp_path / name / "layer.zip" for name in ("one", "two")]
    for target in made:
        build.build(REAL, "python3.13", True, target)
    assert made[0].read_bytes() == made[1].read_bytes()
