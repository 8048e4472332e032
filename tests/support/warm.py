"""Starts the programs of .venv/bin from a process that has their packages loaded: a fork instead of a new interpreter.

Loading the packages of `inv` and of the AWS CLI is half of the suite's CPU time. Each call is still the whole program,
in a process, environment and folder of its own; only third-party packages are loaded before, never a module of ours.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from support import checkout

BIN = Path(sys.executable).parent
PROGRAMS = {"inv": checkout.CHECKOUT / "ops" / "inv.py", "aws": BIN / "aws"}
PACKAGES = (
    *("invoke.main", "unittest.mock", "dotenv", "rich.console", "rich.table", "rich.live", "jinja2"),
    *("elftools.elf.elffile", "elftools.elf.dynamic", "oracledb", "pg8000.native"),
    *("asyncio", "concurrent.futures.thread", "importlib.metadata", "urllib.request", "zipfile", "zoneinfo", "csv"),
    *("awscli.clidriver", "awscli.handlers", "awscli.customizations.s3.s3", "awscli.customizations.waiters"),
    *("botocore.auth", "botocore.client", "botocore.endpoint", "botocore.parsers", "botocore.signers"),
)
# Without site and the user's environment, this takes 15 ms.
CLIENT = """import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
call = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
server.sendall(call)
code = server.recv(4)
sys.exit(int.from_bytes(code, "big") if code else 137)
"""


class Warm:
    """The process, and `folder`: .venv with other starts of PROGRAMS. stop() ends the one and removes the other."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="warm-"))
        self.bin = self.folder / "bin"
        self.make_venv()
        # It ends at the end of its input, so also when this process is killed.
        command = [sys.executable, "-m", "support.warm", str(self.folder)]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self.process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def make_venv(self) -> None:
        self.bin.mkdir()
        for path in (*BIN.parent.iterdir(), *BIN.iterdir()):
            place = self.folder / path.relative_to(BIN.parent)
            if path != BIN and path.name not in PROGRAMS:
                place.symlink_to(path)
        # As ops/venv.sh has it, so that make does not make this .venv again.
        (self.folder / "made-for").unlink()
        (self.folder / "made-for").write_text(f"{self.folder.resolve()} {(self.bin / 'python').resolve()}\n")
        (self.folder / "client.py").write_text(CLIENT)
        for name, program in PROGRAMS.items():
            words = f'"{sys.executable}" -IS "{self.folder}/client.py" "{self.folder}/socket" "{program}" "$@"'
            (self.bin / name).write_text(f"#!/bin/sh\nexec {words}\n")
            (self.bin / name).chmod(stat.S_IRWXU)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        shutil.rmtree(self.folder)


@functools.cache
def started() -> Warm:
    """Return the process of this run, which ends with it."""
    made = Warm()
    atexit.register(made.stop)
    return made


def serve(folder: Path) -> None:
    """Fork for each call until standard input ends."""
    for name in PACKAGES:
        importlib.import_module(name)
    gc.freeze()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    server.listen(64)
    print("ready", flush=True)
    # The input has only an end.
    while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            answer(connection, folder)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def answer(connection: socket.socket, folder: Path) -> None:
    """Run one call in this process, which is its own, and send its exit code."""
    length, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as call:
        words, where, environ = json.loads(call.read(int.from_bytes(length, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(where)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    # As `python -I` does.
    sys.path = [one for one in sys.path if one not in ("", os.environ["PYTHONPATH"])]
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    sys.argv = words
    sys.executable = str(folder / "bin" / "python")
    if words[0].endswith("aws"):
        # It sets the path of its data in the environment.
        importlib.reload(sys.modules["awscli"])
    code = run(words[0])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    connection.send((code & 0xFF).to_bytes(4, "big"))
    os._exit(0)


def run(program: str) -> int:
    """Run a program to its end; returns its exit code."""
    code = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        code = 1
        sys.excepthook(type(error), error, error.__traceback__)
    threading._shutdown()
    atexit._run_exitfuncs()
    return code


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
