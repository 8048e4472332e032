"""ops/entry.py: an unexpected error is one line and a file without secrets; what is printed comes in its order."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Context, Exit
from support.helpers import INV, ROOT

from ops import entry, terminal
from ops.task import NOTHING, task

SECRET = "s3cret/with+signs='"
# A task's process that fails as a header with the end of a line makes it fail.
BROKEN = f"""
import urllib.request
from ops import entry, terminal
entry.install()
entry.secrets.add({SECRET!r})
print("before")
{{body}}
"""
HEADER = f"""
headers = {{"authorization": "Bearer abcd" + {SECRET!r} + chr(10)}}
urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:9", headers=headers))
"""
THREAD = f"import threading\none = threading.Thread(target=lambda: {{}}[{SECRET!r}])\none.start()\none.join()"


def run(body: str, **extra: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **extra}
    code = BROKEN.replace("{body}", body)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("body", [HEADER, f"raise KeyError({SECRET!r})", THREAD], ids=["header", "error", "thread"])
def test_unexpected_error_is_one_line_and_a_private_file_without_secrets(body):
    done = run(body)
    assert done.stdout == "before\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("Unexpected error: ") and line.endswith("then run the command again.")
    path = ROOT / (line.partition("its traceback is in ")[2].split(".txt")[0] + ".txt")
    text = path.read_text()
    assert text.startswith("Traceback") and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    assert entry.REDACTED in text and entry.REDACTED in line
    for form in ("s3cret", "abcd"):
        assert form not in text + line


def test_secrets_of_the_shell_are_redacted(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr/K7")
    monkeypatch.setenv("RESTATE_AUTH_TOKEN", "key_9876")
    monkeypatch.setenv("HARMLESS", "harmless")
    given = "wJalr/K7 wJalr%2FK7 key_9876 harmless {'Authorization': 'Basic cGc6cHc='}"
    hidden = entry.REDACTED
    assert entry.redacted(given) == f"{hidden} {hidden} {hidden} harmless {{'Authorization': '{hidden}'}}"


def test_without_a_writable_folder_the_line_names_no_file(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(entry, "FOLDER", tmp_path / "file" / "errors")
    monkeypatch.setattr(entry.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    assert entry.stored("text") == "no file, because none could be written"


def test_task_that_changes_something_reports_that_its_reader_has_ended():
    """Without a traceback, but not in silence: it ended half way."""
    read, write = os.pipe()
    os.close(read)
    code = BROKEN.replace("{body}", "")
    command = [sys.executable, "-c", code]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == (
        "The reader of the output has ended, and so has the task, half way; run it again without a pipe.\n"
    )


def test_piped_output_and_errors_keep_their_order():
    """Python holds back what goes into a pipe, but not what goes to stderr."""
    code = BROKEN.replace("{body}", "import sys\nprint('error', file=sys.stderr)\nprint('after')")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.stdout == "before\nerror\nafter\n"


def test_inv_installs_both():
    """In the process of `inv` itself."""
    code = (
        "import sys\nfrom invoke.main import program\n"
        "try: program.run(['inv', 'help'])\nexcept SystemExit: pass\n"
        "from ops import entry\nassert sys.excepthook is entry.report and sys.stdout.line_buffering\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("task", ["status", "deploy", "ping", "env.check", "schedule.start"])
def test_missing_environment_is_one_line_with_those_that_there_are(task):
    done = subprocess.run([INV, task], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{task} needs an environment: inv {task} --env NAME. Known: ") and "local" in line


def test_demo_names_inv_as_the_shell_finds_it(monkeypatch):
    from local import demo

    monkeypatch.setenv("PATH", os.defpath)
    named = Path(ROOT, demo.inv_command())
    assert named.exists() and os.access(named, os.X_OK)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    assert demo.inv_command() == "inv"


@pytest.mark.parametrize(
    ("environ", "styled"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({}, False),
    ],
)
def test_styles_only_on_a_terminal_that_wants_them(monkeypatch, environ, styled):

    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert (terminal.styled("x", terminal.FAINT) != "x") == styled
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert terminal.styled("x", terminal.FAINT) == "x"


@pytest.mark.parametrize("task", ["lock", "chaos"])
def test_command_that_invoke_itself_echoes_has_no_style_in_a_pipe(task):
    environ = {**os.environ, "INVOKE_RUN_PTY": "1", "TERM": "xterm"}
    done = subprocess.run([INV, "--dry", task], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout and "\x1b" not in done.stdout


def test_refusal_of_a_task_shows_no_secret(monkeypatch):
    """It quotes what a server or a database has answered."""

    @task(group="watch", changes=NOTHING)
    def refused(c):
        raise Exit(f"PostgreSQL answered: password {SECRET} of user local is wrong")

    monkeypatch.setattr(entry, "secrets", {SECRET})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "answered")
    with pytest.raises(Exit) as stop:
        refused(Context())
    assert stop.value.message == f"PostgreSQL answered: password {entry.REDACTED} of user local is wrong"


def test_broken_package_is_one_line(tmp_path):
    (tmp_path / "tasks.py").write_text(f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from ops import entry
entry.install()
raise ImportError("half installed")
""")
    done = subprocess.run([INV, "--list"], cwd=tmp_path, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("Unexpected error: ImportError: half installed; its traceback is in ")
