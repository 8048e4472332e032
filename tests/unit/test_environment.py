"""The environment of an operator's machine: what it needs, who installs it, and a ping that installs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from support import checkout as copies
from support import imports

import tasks
from ops import names, roles
from ops.local_tasks import tools

ROOT = Path(__file__).resolve().parents[2]
OPERATOR_TARGETS = ("deploy", "layer", "publish")
# A ping that tried to install a package would fail by this.
OFFLINE = {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Return a copy of the repository without .venv."""
    folder = copies.copy(tmp_path / "finance-closing")
    (folder / ".venv").unlink()
    return folder


def make(folder: Path, *words: str, **extra: str) -> subprocess.CompletedProcess:
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(
        ["make", "-s", *words], cwd=folder, env=environ | extra, capture_output=True, text=True, timeout=300
    )


def own_lines(done: subprocess.CompletedProcess) -> list[str]:
    """Return what was printed on stderr beside make's own line."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def requirements(name: str) -> dict[str, str]:
    """Return {package: version} of a file; fails on a line without an exact version."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line and not line.startswith("-r "):
            match = re.fullmatch(r"([a-z0-9-]+)==([\w.]+)(; python_version .*)?", line)
            assert match, f"{name}: {line} has no exact version"
            found[match[1]] = match[2]
    return found


def link_environment(folder: Path) -> None:
    """Give a copy the packages of this environment, installed just now."""
    environment = Path(sys.prefix)
    (folder / ".venv").mkdir()
    for path in environment.iterdir():
        if path.name not in ("ready", "ready-dev", "made-for"):
            (folder / ".venv" / path.name).symlink_to(path)
    python = (environment / "bin" / "python").resolve()
    (folder / ".venv" / "made-for").write_text(f"{folder / '.venv'} {python}\n")
    shutil.copy(folder / "requirements.txt", folder / ".venv" / "ready")


def test_ping_without_packages_is_one_line_and_installs_nothing(checkout):
    done = make(checkout, "ping", "ENV=local", **OFFLINE)
    (line,) = own_lines(done)
    assert done.returncode and not done.stdout
    assert "has no installed packages" in line and f"`make -C {checkout} .venv/ready`" in line
    assert not (checkout / ".venv").exists()


def test_ping_with_stale_packages_is_one_line_and_installs_nothing(checkout):
    link_environment(checkout)
    before = (checkout / ".venv" / "ready").read_text()
    (checkout / "requirements.txt").write_text(before.replace("invoke==", "invoke==9."))
    done = make(checkout, "ping", "ENV=no-such", **OFFLINE)
    (line,) = own_lines(done)
    assert done.returncode and not done.stdout
    assert "has other packages than requirements.txt lists" in line and f"`make -C {checkout} .venv/ready`" in line
    assert (checkout / ".venv" / "ready").read_text() == before


def test_ping_takes_no_new_time_of_a_file_for_a_change(checkout):
    """Git gives one to each file that it writes."""
    link_environment(checkout)
    os.utime(checkout / "requirements.txt", (time.time() + 60, time.time() + 60))
    (line,) = own_lines(make(checkout, "ping", "ENV=no-such", **OFFLINE))
    assert line.startswith("No environment 'no-such'.")
    assert make(checkout, ".venv/ready", **OFFLINE).stdout == ""


def test_ping_after_a_move_is_one_line(checkout):
    link_environment(checkout)
    moved = checkout.rename(checkout.with_name("elsewhere"))
    (line,) = own_lines(make(moved, "ping", "ENV=no-such", **OFFLINE))
    assert "made for another folder or Python" in line and f"`make -C {moved} .venv/ready`" in line


def test_ping_whose_python_is_gone_is_one_line(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/no/such/python3")
    (checkout / ".venv" / "made-for").write_text(f"{checkout / '.venv'} /no/such/python3\n")
    (checkout / ".venv" / "ready").touch()
    (line,) = own_lines(make(checkout, "ping", "ENV=no-such", **OFFLINE))
    assert "made for another folder or Python" in line


def test_variables_of_the_shell_do_not_change_make(checkout):
    link_environment(checkout)
    (checkout / "noise.sh").write_text("echo noise\n")
    (checkout / "user").mkdir()
    (checkout / "user" / "invoke.py").write_text("raise RuntimeError('the module of the user')\n")
    hostile = {"BASH_ENV": str(checkout / "noise.sh"), "PYTHONPATH": str(checkout / "user"), "INVOKE_RUN_PTY": "1"}
    (line,) = own_lines(make(checkout, "deploy", "ENV=no-such", **OFFLINE, **hostile))
    assert line.startswith("No environment 'no-such'.")


def test_ping_with_installed_packages_reaches_the_task(checkout):
    link_environment(checkout)
    for words in (["ping"], ["-j", "4", "ping"]):
        (line,) = own_lines(make(checkout, *words, "ENV=no-such", **OFFLINE))
        assert line.startswith("No environment 'no-such'.")


@pytest.mark.parametrize("state", ["missing", "moved", "gone"])
def test_other_targets_make_the_environment_again(checkout, state):
    if state != "missing":
        link_environment(checkout)
        assert "venv.sh" not in make(checkout, "-n", "deploy").stdout
    if state == "moved":
        checkout = checkout.rename(checkout.with_name("elsewhere"))
    if state == "gone":
        (checkout / ".venv" / "bin").unlink()
    assert "ops/venv.sh install .venv/ready requirements.txt" in make(checkout, "-n", "deploy", "ENV=no-such").stdout


def test_python_without_venv_is_one_line_that_names_the_package(checkout):
    """Debian ships Python without venv."""
    python = checkout / "python3"
    python.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = make(checkout, ".venv/ready", f"PYTHON={python}")
    (line,) = own_lines(done)
    assert done.returncode and "apt-get install python3-venv" in line
    assert not (checkout / ".venv").exists()


def test_operator_targets_install_requirements_txt_alone(checkout):
    """And what cron runs installs nothing; all others that run something install both files."""
    shown = make(checkout, "help").stdout
    for target in [line.split()[0] for line in shown.splitlines()]:
        plan = make(checkout, "-n", target, "ENV=no-such").stdout
        files = re.findall(r"ops/venv\.sh install \S+ (\S+)", plan)
        if target in ("help", "ping"):
            assert files == [], target
        else:
            both = ["requirements.txt", "requirements-dev.txt"]
            assert files == (both[:1] if target in OPERATOR_TARGETS else both), target


@pytest.mark.parametrize("words", [["layer", "publish"], ["deploy"]])
def test_environment_of_make_is_the_only_one_and_is_asked_for_among_several(checkout, words):
    """`make layer publish` builds the layer for it, too."""
    none = make(checkout, "-n", *words)
    assert none.returncode and "copy env/example.env" in none.stderr and len(none.stderr.splitlines()) == 1
    shutil.copy(checkout / "env" / "local.env", checkout / "env" / "prod.env")
    one = make(checkout, "-n", *words)
    assert one.returncode == 0 and one.stdout.splitlines()[0] == "ENV=prod, the only environment beside local"
    assert '--env "prod"' in one.stdout
    assert [line for line in one.stdout.splitlines() if "layer.build" in line] == [".venv/bin/inv layer.build "] * (
        "layer" in words
    )
    shutil.copy(checkout / "env" / "local.env", checkout / "env" / "dev.env")
    several = make(checkout, "-n", *words)
    assert several.returncode and not several.stdout and "ENV=NAME, one of: dev prod" in several.stderr
    assert '--env "dev"' in make(checkout, "-n", *words, "ENV=dev").stdout


@pytest.mark.parametrize(("version", "fits"), [((3, 9), False), ((3, 10), True), ((3, 14), True), ((3, 15), False)])
def test_python_without_wheels_is_one_line(checkout, version, fits):
    python = checkout / "python3"
    pretend = f"import sys; sys.version_info = {(*version, 0, 'final', 0)}; "
    python.write_text(
        f"""#!/bin/sh
case "$1 $2" in
--version*) echo Python {version[0]}.{version[1]}.0 ;;
*ensurepip*) exit 1 ;;
-c*) exec {sys.executable} -c "{pretend}$2" ;;
esac
"""
    )
    python.chmod(0o755)
    (line,) = own_lines(make(checkout, ".venv/ready", f"PYTHON={python}"))
    assert ("has no venv" if fits else "name Python 3.10 to 3.14") in line
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("name", ["a $HOME", "a`id`", 'a"b', "a\\b", "a:b"])
def test_folder_whose_name_programs_change_is_one_line(checkout, name):
    moved = checkout.rename(checkout.with_name(name))
    (line,) = own_lines(make(moved, ".venv/ready"))
    assert str(moved) in line and "rename it" in line
    assert not (moved / ".venv").exists()


def test_requirements_have_exact_versions():
    assert set(requirements("requirements.txt")) & set(requirements("requirements-dev.txt")) == set()
    locked = re.findall(r"^(\S+)==(\S+) \\$", (ROOT / "handler" / "requirements.txt").read_text(), re.MULTILINE)
    for package, version in requirements("requirements.txt").items():
        assert dict(locked).get(package, version) == version, f"{package}: handler/requirements.txt has another version"


def test_operator_needs_only_packages_of_requirements_txt():
    """Imports inside functions count too; the standard library is free."""
    everything = [tasks.namespace[name] for name in tasks.namespace.task_names]
    modules = {one.body.__module__ for one in everything if one.group not in ("local", "develop")}
    ours = {"ops", "layer", "handler", "tasks"}
    used = imports.top_level(imports.closure(modules)) - set(sys.stdlib_module_names) - ours
    installed = set(requirements("requirements.txt"))
    providers = metadata.packages_distributions()
    unknown = {name for name in used if not installed & {one.lower() for one in providers.get(name, [])}}
    assert unknown == set(), "add them to requirements.txt, or import them in a task of the groups local or develop"


def test_restate_cli_is_installed_with_packages_of_requirements_txt():
    """`inv local.tools` runs in the deploy workflow."""
    assert tools.body.__module__ == "ops.local_tasks"
    files = imports.closure(["local.tools", "local.state"])
    used = imports.top_level(files) - set(sys.stdlib_module_names)
    assert used <= {"local", "ops"}


def test_workflow_deploys_on_a_change_of_what_a_deploy_imports():
    text = yaml.safe_load((ROOT / names.WORKFLOW).read_text())
    # YAML 1.1 reads the key `on` as true.
    given = set(text[True]["push"]["paths"])
    imported = {str(path.relative_to(ROOT)) for path in imports.closure(["ops.deploy"])}
    expected = {path for path in imported if not path.startswith("handler/")}
    expected |= {"handler/**", "tasks.py", "requirements.txt", names.WORKFLOW}
    everything = {"VPC_SUBNET_IDS": "subnet-1", roles.REFERENCES: "ssm:/pg", "SECRETS_KMS_KEY_ARN": "arn"}
    policies = ["lambda-trust", *roles.execution_policies(everything)]
    expected |= {f"policies/{name}.json" for name in policies}
    assert sorted(given) == sorted(expected), "correct `paths` in the workflow"
    # The files that Python itself loads: the search through the text misses none.
    code = (
        "import ops.deploy, sys; print(*(getattr(one, '__file__', '') for one in list(sys.modules.values())), sep='|')"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = {str(Path(one).relative_to(ROOT)) for one in loaded.strip().split("|") if one.startswith(f"{ROOT}/")}
    code_files = {one for one in ours if one.startswith(("ops/", "layer/", "handler/")) and "__init__" not in one}
    assert "ops/deploy.py" in code_files and code_files <= imported


def test_workflow_installs_requirements_txt_alone():
    steps = yaml.safe_load((ROOT / names.WORKFLOW).read_text())["jobs"]["deploy"]["steps"]
    commands = [line for step in steps for line in step.get("run", "").splitlines()]
    targets = {word for line in commands if line.startswith("make ") for word in line.split()[1:] if "=" not in word}
    assert targets <= {".venv/ready", "-s", "ping", *OPERATOR_TARGETS}
    assert not any("requirements-dev" in line or "pip install" in line for line in commands)


@pytest.mark.slow
def test_environment_for_deploy_is_completed_for_demo_and_made_again_after_a_move(checkout):
    """With real packages, which uv has in its cache or downloads."""
    assert make(checkout, ".venv/ready").returncode == 0
    listed = subprocess.run([checkout / ".venv/bin/inv", "--list"], cwd=checkout, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    for package in ("pytest", "restate", "pg8000"):
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is not None)"
        assert subprocess.run([checkout / ".venv/bin/python", "-c", code], cwd=checkout).returncode == 0, package
    refused = subprocess.run([checkout / ".venv/bin/inv", "demo"], cwd=checkout, capture_output=True, text=True)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "make .venv/ready-dev" in refused.stderr

    python = (checkout / ".venv" / "bin" / "python").lstat().st_ino
    assert make(checkout, ".venv/ready-dev").returncode == 0
    assert (checkout / ".venv" / "bin" / "python").lstat().st_ino == python, "it was made again, not completed"
    assert subprocess.run([checkout / ".venv/bin/python", "-c", "import pytest, restate"]).returncode == 0
    assert make(checkout, "-q", ".venv/ready-dev").returncode == 0

    moved = checkout.rename(checkout.with_name("elsewhere"))
    assert make(moved, ".venv/ready").returncode == 0
    listed = subprocess.run([moved / ".venv/bin/inv", "--list"], cwd=moved, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
