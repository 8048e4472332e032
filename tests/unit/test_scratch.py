"""Scratch files: one process never reads another's, and none remains when its process has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops import scratch

PROGRAM = """
import signal, sys, time
from pathlib import Path
from ops import scratch
scratch.ROOT = Path(sys.argv[1])
file = scratch.ROOT / scratch.path("prod", "environment.json")
file.parent.mkdir(parents=True, exist_ok=True)
file.write_text("a secret")
print(file, flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
"""


def start(root: Path, *words: str, ignore_hangup: bool = False) -> tuple[subprocess.Popen, Path]:
    """Start a process that has written a scratch file; returns it and the file."""
    hangup = signal.SIG_IGN if ignore_hangup else signal.SIG_DFL
    command = [sys.executable, "-c", PROGRAM, str(root), *words]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=scratch.ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
    )
    return process, Path(process.stdout.readline().strip())


def finish(process: subprocess.Popen) -> int:
    process.communicate(timeout=20)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_process_and_removes_its_files(tmp_path, number):
    process, file = start(tmp_path, "wait")
    assert file.read_text() == "a secret"
    process.send_signal(number)
    assert finish(process) == 128 + number
    assert not file.exists()


def test_ignored_hangup_stays_ignored(tmp_path):
    """As under nohup."""
    process, file = start(tmp_path, "wait", ignore_hangup=True)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    assert file.exists()
    process.terminate()
    finish(process)


def test_end_removes_the_files(tmp_path):
    process, file = start(tmp_path, "end")
    assert finish(process) == 0
    assert not file.exists()


def test_files_of_killed_processes_are_removed_at_the_next_start_and_those_of_running_ones_stay(tmp_path):
    killed, stale = start(tmp_path, "wait")
    running, kept = start(tmp_path, "wait")
    killed.kill()
    finish(killed)
    assert stale.exists() and stale != kept
    other, _ = start(tmp_path, "end")
    finish(other)
    assert not stale.exists() and kept.exists()
    running.terminate()
    finish(running)


def test_name_has_process_and_environment():
    assert Path(scratch.path("prod.2", "revision")).name == f"{os.getpid()}.prod.2.revision"
