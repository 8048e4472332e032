"""Faults of a chaos run, copied into handler/ of the deployed checkout: a file in FOLDER names the fault of a step.

"die before STEP" and "die after STEP": once, the process is gone. "late STEP": once, the process is gone, and another
one does what it was about to do when the file "late effect" is there. "stall STEP": the step has no answer while the
file is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .errors import Unavailable

FOLDER = Path("{folder}")
LATE = """
import importlib, json, sys, time
from pathlib import Path
folder, module, name, arguments = Path(sys.argv[1]), *sys.argv[2:]
while not (folder / "late effect").exists():
    if not folder.exists():
        sys.exit()
    time.sleep(0.05)
try:
    getattr(importlib.import_module(module), name)(**json.loads(arguments))
finally:
    (folder / "late effect is over").touch()
"""


def call(name: str, function, arguments: dict):
    """Call a step's function under the faults of the step."""
    if take(f"die before {name}"):
        os._exit(1)
    if take(f"late {name}"):
        words = [sys.executable, "-c", LATE, str(FOLDER), function.__module__, function.__name__, json.dumps(arguments)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.Popen(words, env=environ, start_new_session=True, **quiet)
        os._exit(1)
    if (FOLDER / f"stall {name}").exists():
        raise Unavailable(f"{name} stalls")
    result = function(**arguments)
    if take(f"die after {name}"):
        os._exit(1)
    return result


def take(fault: str) -> bool:
    """Consume a fault; exactly one caller gets True."""
    try:
        (FOLDER / fault).unlink()
    except FileNotFoundError:
        return False
    return True
