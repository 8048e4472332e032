"""Measure what a reference adds to a cold start: fresh processes that read a secret and a parameter of the emulator."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import botocore
from support.plugin import UNUSED

from local.cloud import Cloud
from local.services import REGION
from local.state import ROOT

PROCESSES = 15
STORE = (
    "secretsmanager create-secret --name bench --secret-string file:///dev/stdin",
    "ssm put-parameter --name /bench --type SecureString --value file:///dev/stdin",
)
# Prints the milliseconds of each part as JSON, in the order of a cold start.
CODE = """
import json, time
marks = [("", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
from handler import app, secret
mark("import of the function")
app.handler({"ping": True}, None)
mark("ping")
import botocore.session, botocore.config
mark("import of botocore")
secret.fetch("secretsmanager:bench")
mark("first secret: client and call")
secret.fetch("secretsmanager:bench")
mark("next secret: call")
secret.fetch("ssm:/bench")
mark("first parameter: client and call")
print(json.dumps({name: (at - marks[i][1]) * 1000 for i, (name, at) in enumerate(marks[1:])}))
"""


def main() -> None:
    cloud = Cloud(Path(tempfile.mkdtemp(prefix="bench-")) / "state", report=lambda line: None)
    try:
        cloud.start("aws")
        environ = {
            **os.environ,
            **UNUSED,
            "PYTHONPATH": str(ROOT),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{cloud.settings()['LOCAL_AWS_PORT']}",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        for command in STORE:
            line = [str(Path(sys.executable).with_name("aws")), *command.split()]
            subprocess.run(line, env=environ, input="value", text=True, check=True, capture_output=True)
        report([measure(environ) for _ in range(PROCESSES)])
    finally:
        cloud.reset()


def measure(environ: dict[str, str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", CODE], env=environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def report(found: list[dict[str, float]]) -> None:
    print(f"{PROCESSES} fresh processes, botocore {botocore.__version__}, milliseconds")
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"  {name:<34} median {statistics.median(values):6.0f}   largest {max(values):6.0f}")


if __name__ == "__main__":
    main()
