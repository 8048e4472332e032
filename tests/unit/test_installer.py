"""The installers: the index and certificates of pip are also uv's, and a failure is one line."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import checkout as copies
from support.helpers import ROOT

from local import state, tools
from local.errors import LocalError
from ops import installer, packages


@pytest.fixture
def index():
    """Serve an index of packages without any package; yields its address, and the paths that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def without_settings(**extra: str) -> dict[str, str]:
    """Return this environment without indexes of pip and uv."""
    names = ("PIP_INDEX", "PIP_EXTRA", "PIP_FIND", "PIP_CONFIG", "UV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(names)} | extra


def run(*words: str, **extra: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ops.installer", *words],
        cwd=ROOT, env=without_settings(**extra), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("key", ["index-url", "extra-index-url"])
def test_uv_asks_the_index_of_pip_conf_and_a_failure_is_one_line(key, index, tmp_path):
    url, asked = index
    config = tmp_path / "pip.conf"
    other = "index-url = http://127.0.0.1:9/\n" if "extra" in key else ""
    config.write_text(f"[global]\n{key} = {url}/simple\n{other}")
    words = ["pip", "install", "--target", str(tmp_path / "into"), "no-such-package-of-ours==1"]
    done = run(*words, PIP_CONFIG_FILE=str(config), UV_HTTP_RETRIES="0")
    assert "/simple/no-such-package-of-ours/" in asked
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "could not be installed: the package index does not answer or lacks a package" in done.stderr


def test_an_index_that_uv_was_given_wins_over_that_of_pip():
    settings = {"index-url": "https://pip.invalid/simple", "cert": "/ca.pem"}
    assert installer.from_pip(settings, {"UV_INDEX_URL": "https://uv.invalid"}) == {"SSL_CERT_FILE": "/ca.pem"}
    assert installer.from_pip({"extra-index-url": "file:///no/such"}, {}) == {}


def test_strongest_setting_of_pip_counts(tmp_path, monkeypatch):
    (tmp_path / "pip.conf").write_text(
        "[install]\nindex-url = https://b.invalid\n[global]\nindex-url = https://a.invalid\n"
    )
    monkeypatch.setattr(os, "environ", without_settings(PIP_CONFIG_FILE=str(tmp_path / "pip.conf")))
    for expected in ("https://b.invalid", "https://c.invalid"):
        installer.pip_settings.cache_clear()
        assert installer.pip_settings()["index-url"] == expected
        os.environ["PIP_INDEX_URL"] = "https://c.invalid"
    installer.pip_settings.cache_clear()


def test_certificates_of_the_system_are_used_by_uv_and_by_an_old_pip(monkeypatch, tmp_path):
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(installer, "pip_settings", dict)
    system = tmp_path / "system.crt"
    system.touch()
    monkeypatch.setattr(installer, "SYSTEM_CERTIFICATES", ("/no/such", str(system)))
    assert installer.environ()["UV_SYSTEM_CERTS"] == "true"
    assert installer.certificates({}) == {"PIP_CERT": str(system)}
    assert installer.certificates({"PIP_CERT": "/mine"}) == {}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("error: client error (Connect)\n  caused by: invalid peer certificate: UnknownIssuer", "is not trusted"),
        ("error: dns error: failed to lookup address information", "does not answer"),
        ("error: failed to write: No space left on device (os error 28)", "the disk is full"),
        ("npm error code EAI_AGAIN", "does not answer"),
    ],
)
def test_causes_of_failures(output, words):
    assert words in installer.explain(output)
    platform = packages.Platform("python3.13", "", "thick")
    assert words in packages.explain(output, platform) and "\n" not in packages.explain(output, platform)


@pytest.mark.long
def test_first_run_without_network_is_one_line(tmp_path):
    folder = copies.copy(tmp_path / "checkout")
    (folder / ".venv").unlink()
    done = subprocess.run(
        ["make", "-s", ".venv/ready"],
        cwd=folder,
        env=without_settings(PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode and "the package index does not answer" in line and "pip.conf" in line


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return a function: the npm and node on PATH are then scripts; it returns the state folder for an installation."""
    monkeypatch.setenv("FINANCE_CLOSING_TOOLS", str(tmp_path / "tools"))

    def make(script: str) -> state.State:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("npm", "node"):
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return state.State(tmp_path / "state")

    return make


# The effect of npm here: it makes the program of this platform, but only if it may install optional dependencies.
NPM = """case "$*" in *--include=optional*) ;; *) exit 0 ;; esac
for name in restate-server restate; do
  for arch in x64 arm64; do
    bin=node_modules/@restatedev/$name-linux-$arch/bin
    mkdir -p $bin && touch $bin/$name
  done
done"""


def test_npm_installs_the_programs_whatever_its_configuration_leaves_out(npm, monkeypatch):
    monkeypatch.setenv("npm_config_omit", "optional")
    tools.install_restate(npm(NPM), lambda line: None, threading.Event())
    assert tools.restate_server().exists() and tools.restate_cli().exists()


@pytest.mark.parametrize("broken", ["echo broken >&2; exit 1", "exit 0"])
def test_npm_of_the_python_package_is_used_if_that_on_path_fails(broken, npm, tmp_path, monkeypatch):
    own = Path(shutil.copytree(npm(broken).path.parent / "bin", tmp_path / "own")) / "npm"
    own.write_text(f"#!/bin/sh\n{NPM}\n")
    monkeypatch.setattr(tools, "_own_npm", lambda runner, report: [str(own)])
    lines = []
    tools.install_restate(state.State(tmp_path / "state"), lines.append, threading.Event())
    assert tools.restate_server().exists()
    assert len(lines) == 2 and "npm" in lines[1]


@pytest.mark.parametrize("code", [0, 1])
def test_a_failed_installation_is_one_line_with_its_log(code, npm, monkeypatch):
    """npm succeeds if it cannot download what is optional."""
    there = npm(
        f"echo npm http fetch GET https://registry.npmjs.org/x attempt 1 failed with ENOTFOUND >&2; exit {code}"
    )
    monkeypatch.setattr(tools, "_own_npm", lambda runner, report: [str(shutil.which("npm"))])
    lines = []
    with pytest.raises(LocalError, match="the package index does not answer") as caught:
        tools.install_restate(there, lines.append, threading.Event())
    assert len(lines) == 1, "another npm would not reach it either"
    assert not caught.value.detail and str(there.log("restate-install")) in str(caught.value)
