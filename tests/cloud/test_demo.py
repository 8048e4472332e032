"""inv demo on the cloud of the tests."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.helpers import INV, ROOT, UNUSED, inv


def demo_until(text: str, then) -> tuple[int, str, str]:
    """Run the demo, do something once it has printed a line with this text, and return exit, stdout and stderr."""
    environ = {key: value for key, value in os.environ.items() if key not in UNUSED}
    command = [INV, "demo"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        lines = []
        for line in run.stdout:
            lines.append(line)
            if text in line:
                then()
                break
        rest, errors = run.communicate(timeout=120)
    return run.returncode, "".join(lines) + rest, errors


@pytest.mark.slow
def test_a_service_that_ends_is_named_and_the_next_demo_continues(local, deployed):
    code, output, errors = demo_until("RUNNING", lambda: local.kill("aws"))
    assert code == 1
    assert errors.startswith("aws ended while the demo ran")
    assert len(errors.strip().splitlines()) == 1
    day = re.search(r"Closing (\S+)", output)[1]
    again = inv("demo").stdout
    assert f"Closing {day}" in again
    for shown in ("Steps", "billed ms", "Trial balance", ": equal", "Metrics", "/ui/invocations/inv_", "Next"):
        assert shown in again
    assert "\033" not in again
    page = Path(again.splitlines()[-1].strip())
    assert page.name == f"local-{day[:7]}.html" and f">{day[8:]} closed<" in page.read_text()


@pytest.mark.slow
def test_two_demos_at_once_close_one_date_after_the_other(local, deployed):
    environ = {key: value for key, value in os.environ.items() if key not in UNUSED}
    runs = [subprocess.Popen([INV, "demo"], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate(timeout=200)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert len({re.search(r"Closing (\S+)", output)[1] for output in outputs}) == 2
    assert sum("waiting for another make demo" in output for output in outputs) == 1
