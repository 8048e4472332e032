"""inv dev on the local cloud: served over HTTP, restarted on each save, with a closing in progress."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import pytest
from support.helpers import INV, ROOT, STATE, UNUSED, inv, starts

from local.oracle.faults import Faults
from ops import closings, restate

DATE = "2025-03-05"


class Dev:
    """A running `inv dev` and its output."""

    def __init__(self):
        environ = {key: value for key, value in os.environ.items() if key not in UNUSED}
        self.process = subprocess.Popen(
            [str(INV), "dev"], cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)

    def await_line(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + 60
        while sum(words in line for line in self.lines) < times:
            assert time.monotonic() < deadline and self.process.poll() is None, "".join(self.lines)
            time.sleep(0.1)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.mark.slow
def test_a_closing_in_flight_survives_a_save_and_a_deploy_puts_lambda_back(deployed):
    before, earlier = restate.newest(deployed), len(starts(DATE[:7], event=None))
    faults = Faults(STATE / "genius")
    faults.inject("procedure_seconds", "12")
    dev = Dev()
    try:
        dev.await_line("serving handler/")
        inv("close", "--env", "local", "--date", DATE, "--skip-sync", "--skip-metrics")
        deadline = time.monotonic() + 60
        while len(starts(DATE[:7], event=None)) == earlier:
            assert time.monotonic() < deadline, "".join(dev.lines)
            time.sleep(0.1)
        saved = ROOT / "handler" / "deadline.py"
        saved.write_bytes(saved.read_bytes())
        dev.await_line("saved deadline.py")
        dev.await_line("serving handler/", times=2)
        assert closings.running(deployed, DATE)
        closings.follow(deployed, DATE)
    finally:
        faults.clear("procedure_seconds")
        code = dev.end()
        put_back = inv("deploy", "--env", "local").stdout
    output = "".join(dev.lines)
    assert code == 0 and "`inv deploy --env local` puts Lambda back" in output
    assert [one["event"] for one in starts(DATE[:7], event=None)[earlier:]] == ["start", "end"]
    assert "  closing_partial" in output and '{"event"' not in output
    assert deployed["PG_PASSWORD"] not in output and deployed["ORACLE_PASSWORD"] not in output
    assert "--force" in put_back and restate.newest(deployed) == before
