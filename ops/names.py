"""Check names for `make lint`: keys of env/, placeholders of policies/ and alarms/, names in the deploy workflow; and
the English, see english.py."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from dotenv import dotenv_values

from ops import english
from ops.config import NAMES, ROOT, unknown_keys

WORKFLOW = ".github/workflows/deploy-finance-lambda.yml"
PLACEHOLDERS = {
    "policies": [*NAMES, "ACCOUNT_ID", "ENVIRONMENT", "SECRET_ARNS"],
    "alarms": ["FUNCTION_NAME", "TOPIC_ARN", "ENVIRONMENT"],
}


def unknown_names(root: Path = ROOT) -> Iterator[str]:
    """Yield a line for each name that is neither a setting nor a known placeholder."""
    for path in sorted(root.glob("env/*.env")):
        yield from report(path, root, unknown_keys(dotenv_values(path, interpolate=False)))
    for folder, known in PLACEHOLDERS.items():
        for path in sorted((root / folder).glob("*.json")):
            yield from report(path, root, unknown_keys(re.findall(r"\$\{(\w*)\}", path.read_text()), known))
    path = root / WORKFLOW
    yield from report(path, root, unknown_keys(names_set_by(path.read_text()), [*NAMES, "ENVIRONMENT"]))


def names_set_by(workflow: str) -> list[str]:
    """Return the names that the workflow's jobs set, and those in its example of ENV_FILE."""
    jobs = yaml.safe_load(workflow)["jobs"].values()
    return re.findall(r"^# +([A-Z_]+)=", workflow, re.MULTILINE) + [name for job in jobs for name in job.get("env", {})]


def report(path: Path, root: Path, messages: list[str]) -> list[str]:
    return [f"{path.relative_to(root)}: {one}" for one in dict.fromkeys(messages)]


if __name__ == "__main__":
    found = [*unknown_names(), *english.faults(ROOT)]
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    sys.exit(bool(found))
