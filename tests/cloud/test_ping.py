"""Pings as a person and as cron send them, to the deployed function."""

from __future__ import annotations

import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

from support.helpers import ROOT, STATE, environment_file

from ops import ping

README = (ROOT / "README.md").read_text()
CRON_LINE = re.search(r"^\*/\d+ \* \* \* \* (make .*)$", README, re.MULTILINE)


def other_function(name: str):
    """An environment like local whose function nobody has deployed."""
    return environment_file(name, FUNCTION_NAME="nowhere")


def cron(env: str, options: str = "") -> subprocess.CompletedProcess:
    """Run the README's crontab line as cron does, with further options of make."""
    command = CRON_LINE[1].replace("/opt/finance-closing", str(ROOT)).replace("ENV=prod", f"ENV={env} {options}")
    bare = f"env -i PATH=/usr/bin:/bin SHELL=/bin/sh FINANCE_CLOSING_STATE={shlex.quote(str(STATE))} {command}"
    return subprocess.run(["/bin/sh", "-c", bare], cwd="/", capture_output=True, text=True, timeout=60)


def test_ping_from_cron_prints_nothing_on_success(deployed):
    done = cron("local")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ping_from_cron_prints_one_line_on_failure(deployed):
    with other_function("testnowhere") as env:
        done = cron(env)
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode and not done.stdout
    assert len(ours) == 1
    assert "not found" in ours[0].lower() and "inv deploy --env testnowhere" in ours[0]


def test_two_pings_at_once_do_not_disturb_each_other(deployed):
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(cron, ["local", "local"]))
    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [(0, "", "")] * 2


def test_ping_under_make_j_prints_nothing(deployed):
    done = cron("local", "-j 4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_fault_of_each_database_is_in_one_line_without_the_password(function_settings, monkeypatch):
    from handler import health, oracle, settings

    monkeypatch.setenv("PG_PORT", "1")
    monkeypatch.setenv("ORACLE_PASSWORD", "mistyped")
    settings.current.cache_clear()
    oracle.driver.cache_clear()
    answer = health.deep()
    assert answer["ok"] is False
    assert "Connection refused" in answer["postgres"]["error"]
    assert "ORA-01017" in answer["oracle"]["error"] and "ORACLE_PASSWORD" in answer["oracle"]["error"]
    assert "mistyped" not in str(answer)
    assert "postgres: " in ping.find_fault(answer) and "; oracle: " in ping.find_fault(answer)
    assert len(ping.find_fault(answer).splitlines()) == 1
