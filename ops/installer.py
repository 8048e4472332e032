"""Run uv with the certificates and the package index that this machine has for pip, and report a failure in one line.

`python -m ops.installer ARGUMENTS` runs `uv ARGUMENTS`; it installs the uv of requirements.txt first if there is none.
Needs the standard library alone: ops/venv.sh runs it in an empty environment.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ops import environment

ROOT = Path(__file__).resolve().parents[1]
# pip's settings and the variables by which uv and its TLS library get the same.
OF_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
INDEXES = {"UV_DEFAULT_INDEX", "UV_INDEX"}
# An index that the user gave to uv has priority over pip's.
OWN_INDEX = {*INDEXES, "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE", "UV_NO_INDEX"}
# Where Linux systems keep the certificates that they trust; an old pip does not read these files.
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
NETWORK = "the package index does not answer"
# A pattern of an installer's output, and its cause with the next step; the first match is reported.
CAUSES = (
    (
        r"UnknownIssuer|invalid peer certificate|(?i:certificate.verify.failed)|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)",
        "the certificate of the package index is not trusted; add your company's CA to the system's certificates, or"
        " name its file as SSL_CERT_FILE",
    ),
    (r"No space left|os error 28|ENOSPC", "the disk is full; free 2 GB"),
    (
        r"Permission denied|os error 13|EACCES",
        "a folder belongs to another user; give this user the checkout and the caches",
    ),
    (
        r"dns error|[Cc]onnect|[Nn]etwork|timed out|Failed to (fetch|download)|No matching distribution"
        r"|is no version of|not found in the package registry|ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT",
        f"{NETWORK} or lacks a package; check the network and HTTPS_PROXY, or name an index in"
        " pip.conf or as UV_DEFAULT_INDEX (in .npmrc for npm)",
    ),
)


def environ() -> dict[str, str]:
    """Return the environment of uv, and of a pip without settings of its own."""
    given = environment.clean() | {"UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never"}
    return from_pip(pip_settings(), given) | given


@functools.lru_cache
def pip_settings() -> dict[str, str]:
    """Return pip's settings by name; of several sections the one that pip itself uses; {} if there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    done = subprocess.run(command, env=environment.clean(), capture_output=True, text=True, check=False)
    found = dict(re.findall(r"^(\S+?)=(.*)$", done.stdout, re.MULTILINE)) if done.returncode == 0 else {}
    settings = {}
    for section in ("global", "install", ":env:"):
        for name, value in found.items():
            if name.rpartition(".")[0] == section:
                settings[name.rpartition(".")[2]] = ast.literal_eval(value)
    return settings


def from_pip(settings: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return uv's variables for pip's settings, without an index if uv has been given one.

    pip ignores an index folder that is missing, and treats all indexes alike; uv needs a setting for both.
    """
    wanted = {}
    for name, variable in OF_PIP.items():
        words = [word for word in settings.get(name, "").split() if not is_missing(word)]
        if words and not (variable in INDEXES and OWN_INDEX & {*given}):
            wanted[variable] = " ".join(words)
    if "UV_INDEX" in wanted:
        wanted["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return wanted


def is_missing(word: str) -> bool:
    return word.startswith("file://") and not Path(word.removeprefix("file://")).is_dir()


def explain(output: str) -> str:
    """Return the cause of an installer's failure, with the next step if it is known, in one line."""
    return known_cause(output) or " ".join(output.split())[-300:]


def known_cause(output: str) -> str:
    return next((cause for sign, cause in CAUSES if re.search(sign, output)), "")


def run(command: list[str], **more: str) -> None:
    """Run an installer; prints one line and ends this process with exit 1 if it fails."""
    done = subprocess.run(command, env={**environ(), **more}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The packages could not be installed: {explain(done.stderr or done.stdout)}. Then run it again.")


def certificates(given: Mapping[str, str]) -> dict[str, str]:
    """Return PIP_CERT for a pip that has no certificates of the user's."""
    if {"PIP_CERT", "REQUESTS_CA_BUNDLE"} & {*given} or "cert" in pip_settings():
        return {}
    known = next(filter(os.path.isfile, [given.get("SSL_CERT_FILE", ""), *SYSTEM_CERTIFICATES]), "")
    return {"PIP_CERT": known} if known else {}


def main(words: list[str]) -> None:
    """Run uv with these arguments."""
    if find_spec("uv") is None:
        pin = re.search(r"^uv==\S+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[0]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pin]
        run(pip, **certificates(os.environ))
    run([sys.executable, "-m", "uv", *words])


if __name__ == "__main__":
    main(sys.argv[1:])
