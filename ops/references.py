"""The secrets that a function reads: references in an environment's file and in the versions that exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from handler.settings import REFERENCE, source_of
from ops.target import Target

NAMES = ("PG_USER", "PG_PASSWORD", "ORACLE_USER", "ORACLE_PASSWORD")


def named(values: Mapping[str, str | None]) -> dict[str, str]:
    """Return the settings whose values are references."""
    return {name: values[name] for name in NAMES if REFERENCE.fullmatch(values.get(name) or "")}


def in_use(target: Target, versions: Iterable[dict]) -> list[str]:
    """Return what the file refers to, and what existing versions still refer to, without JSON keys.

    A closing stays on the version on which it began, so a secret must stay readable as long as such a version exists.
    """
    variables = [one.get("Environment", {}).get("Variables", {}) for one in versions]
    return sorted({source_of(value) for given in (target.cfg, *variables) for value in named(given).values()})


def arns(sources: Iterable[str], region: str, account: str) -> list[str]:
    """Return the ARNs of secrets and parameters for a policy; AWS adds six characters to the ARN of a secret."""
    found = []
    for source in sources:
        parts = REFERENCE.fullmatch(source)
        if parts["parameter"]:
            found.append(f"arn:aws:ssm:{region}:{account}:parameter{parts['parameter']}")
        elif parts["secret"].startswith("arn:"):
            found.append(parts["secret"])
        else:
            found.append(f"arn:aws:secretsmanager:{region}:{account}:secret:{parts['secret']}-??????")
    return found


def services(sources: Iterable[str]) -> list[str]:
    """Return the services that hold the sources."""
    return sorted({source.partition(":")[0] for source in sources})
