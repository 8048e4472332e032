"""inv doctor: walks the chain from the credentials to the running closings, a line each. Read only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from invoke import Exit

from ops import config, doctor_aws, doctor_service, limits
from ops.finding import Finding
from ops.task import NOTHING, task


@task(group="watch", changes=NOTHING, help={**config.ENV_HELP, "json": "print JSON, for machines"})
def doctor(c, env, json=False):
    """Check the whole chain, from credentials to closings that wait for a person; exit 1 when anything is wrong."""
    wrong = 0
    found = []
    for finding in walk(c, env):
        wrong += not finding.ok
        found.append(finding)
        if not json:
            print(line(finding), flush=True)
    if json:
        print(as_json(found))
    if wrong:
        raise Exit(code=1) if json else Exit(f"{env}: {wrong} of {len(found)} are wrong")


def as_json(found: list[Finding]) -> str:
    return json.dumps([finding._asdict() for finding in found], indent=2)


def line(finding: Finding) -> str:
    mend = f"; mend it: {finding.mend}" if finding.mend else ""
    return f"{'ok   ' if finding.ok else 'WRONG'} {finding.name:<12} {finding.said}{mend}"


def walk(c, env: str) -> Iterator[Finding]:
    """The env file first: without it nobody knows where to look."""
    try:
        cfg = config.load(env)
        limits.check_environment(config.function_environment(cfg))
    except Exit as error:
        yield Finding("env file", False, str(error.message), f"correct env/{env}.env, then inv env.check --env {env}")
        return
    yield Finding("env file", True, f"env/{env}.env has every key, and each value is one that can be")
    yield from examine(c, cfg, env)


def examine(c, cfg: dict, env: str) -> Iterator[Finding]:
    for name, check in CHECKS.items():
        try:
            for finding in check(c, cfg, env):
                yield finding if finding.name else finding._replace(name=name)
        except Exit as error:
            yield Finding(name, False, str(error.message), MENDS.get(name, "inv logs --env {env}").format(env=env))


CHECKS: dict[str, Callable[..., Iterator[Finding]]] = {
    "cli": doctor_aws.cli,
    "credentials": doctor_aws.credentials,
    "roles": doctor_aws.role,
    "function": doctor_aws.function,
    "network": doctor_aws.network,
    "ping": doctor_service.ping_deep,
    "restate": doctor_service.restate,
    "scheduler": doctor_service.scheduler,
    "warmth": doctor_aws.warmth,
    "periods": doctor_service.periods,
    "paused": doctor_service.paused,
}
MENDS = {
    "credentials": "sign in, or name a profile as AWS_PROFILE in env/{env}.env",
    "roles": "inv roles --env {env}",
    "function": "inv deploy --env {env}",
    "ping": "inv deploy --env {env}, or look with inv logs --env {env} --since 1h",
    "restate": "see that RESTATE_ADMIN_URL of env/{env}.env is right and the server is up",
    "scheduler": "see that RESTATE_ADMIN_URL of env/{env}.env is right and the server is up",
    "periods": "see that RESTATE_ADMIN_URL of env/{env}.env is right and the server is up",
    "paused": "see that RESTATE_ADMIN_URL of env/{env}.env is right and the server is up",
    "warmth": "inv deploy --env {env}",
}
