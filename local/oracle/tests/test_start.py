"""`python -m local.oracle`, as the local cloud starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import oracledb
import pytest

from local.oracle import ledger

FOLDER = Path(__file__).parents[3]


def start(tmp_path: Path, *words: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "local.oracle", "--data", tmp_path / "data", "--branch-count", "2", *words],
        cwd=FOLDER,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text("# who may come in\nadm:se:cret\n")
    return path


def test_stand_in_starts_prints_its_port_and_ends(tmp_path: Path, user_file: Path):
    server = start(tmp_path, "--user-file", str(user_file))
    line = server.stdout.readline()
    found = re.fullmatch(r"Genius stand-in, not an Oracle database: listening on 127\.0\.0\.1:(\d+)/GENIUS\n", line)
    assert found, line
    with oracledb.connect(user="ADM", password="se:cret", dsn=f"127.0.0.1:{found[1]}/genius") as connection:
        version = connection.cursor().execute("select banner from v$version").fetchone()[0]
        assert "stand-in" in version.lower()
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        with pytest.raises(oracledb.Error):
            connection.ping()
    assert server.stderr.read() == ""


def test_books_follow_the_options(tmp_path: Path, user_file: Path):
    server = start(tmp_path, "--user-file", str(user_file), "--periods", "2030-02, 2030-03", "--seed", "7")
    port = server.stdout.readline().rpartition(":")[2].strip()
    with oracledb.connect(user="ADM", password="se:cret", dsn=f"127.0.0.1:{port}") as connection:
        query = """select glyear || '-' || glmonth, branch, sum(debit) from acpdb.ac_gljournal
            group by glyear, glmonth, branch"""
        found = {tuple(row[:2]): row[2] for row in connection.cursor().execute(query)}
    server.terminate()
    assert server.wait(10) == 0
    entries = ledger.journal(7, "2030-02", 2)
    assert set(found) == {(period, branch) for period in ("2030-02", "2030-03") for branch in ("001", "002")}
    assert float(found["2030-02", "002"]) == pytest.approx(float(sum(e.debit for e in entries if e.branch == "002")))


def test_users_may_come_from_the_environment(tmp_path: Path):
    server = start(tmp_path, GENIUS_USERS="adm:x")
    assert "listening" in server.stdout.readline()
    server.terminate()
    assert server.wait(10) == 0


def test_wrong_options_are_one_line(tmp_path: Path, user_file: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, expected in (
            (["--user-file", str(user_file), "--port", port], "address already in use"),
            (["--user-file", str(tmp_path / "none")], "No such file"),
            (["--user-file", str(user_file), "--periods", "2025-01,2025-13"], "'2025-13' is not a period"),
            ([], "no users; give lines of USER:password"),
        ):
            server = start(tmp_path, *words, GENIUS_USERS="")
            _, errors = server.communicate(timeout=30)
            assert (server.returncode, len(errors.splitlines())) == (1, 1), errors
            assert expected in errors
