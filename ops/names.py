"""Names that have to be known, for `make lint`: each key of env/ and placeholder of policies/ and alarms/, and what the
deploy workflow sets or has in its example of ENV_FILE."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from dotenv import dotenv_values

from ops.config import NAMES, ROOT, unknown_keys

WORKFLOW = ".github/workflows/deploy-finance-lambda.yml"
PLACEHOLDERS = {
    "policies": [*NAMES, "ACCOUNT_ID", "ENVIRONMENT"],
    "alarms": ["FUNCTION_NAME", "TOPIC_ARN"],
}


def faults(root: Path = ROOT) -> Iterator[str]:
    """A line for each name that nothing knows."""
    for path in sorted(root.glob("env/*.env")):
        yield from told(path, root, unknown_keys(dotenv_values(path, interpolate=False)))
    for folder, known in PLACEHOLDERS.items():
        for path in sorted((root / folder).glob("*.json")):
            yield from told(path, root, unknown_keys(re.findall(r"\$\{(\w*)\}", path.read_text()), known))
    path = root / WORKFLOW
    yield from told(path, root, unknown_keys(set_by(path.read_text()), [*NAMES, "ENVIRONMENT"]))


def set_by(workflow: str) -> list[str]:
    jobs = yaml.safe_load(workflow)["jobs"].values()
    return re.findall(r"^# +([A-Z_]+)=", workflow, re.MULTILINE) + [name for job in jobs for name in job.get("env", {})]


def told(path: Path, root: Path, said: list[str]) -> list[str]:
    return [f"{path.relative_to(root)}: {one}" for one in dict.fromkeys(said)]


if __name__ == "__main__":
    found = list(faults())
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    sys.exit(bool(found))
