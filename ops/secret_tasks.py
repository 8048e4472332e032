"""inv secrets.check: whether the live version can resolve its references and log in with them."""

from __future__ import annotations

from shlex import quote as q

from invoke import Exit

from handler.settings import source_of
from ops import deploy, ping, references
from ops.config import ENV_HELP
from ops.shell import aws
from ops.target import Target
from ops.task import NOTHING, task

# A database's name in the function's answers -> its own name, and the prefix of its settings.
DATABASES = {"postgres": ("PostgreSQL", "PG_"), "oracle": ("Genius", "ORACLE_")}


@task(group="watch", changes=NOTHING, uses=("aws",), help=ENV_HELP)
def check(c, env):
    """Check through the function that all references resolve and that both databases accept the login."""
    target = deploy.completed(Target.load(c, env))
    found = findings(target)
    for passed, message, _ in found:
        if passed:
            print(f"{env}: {message}")
    failures = [f"{env}: {message}; fix: {fix}" for passed, message, fix in found if not passed]
    if failures:
        raise Exit("\n".join(failures))
    if not found:
        print(f"{env}: no user or password is a reference, so there is nothing to check")


def by_reference(cfg: dict, database: str) -> dict[str, str]:
    """Return the settings of a database that are references."""
    prefix = DATABASES[database][1]
    return {name: value for name, value in references.named(cfg).items() if name.startswith(prefix)}


def findings(target: Target) -> list[tuple[bool, str, str]]:
    """Return for each database with references whether it passed, a line, and the fix; asks the live version."""
    used = {name: given for name in DATABASES if (given := by_reference(target.cfg, name))}
    answer = ping.send(target, {"secrets": True})["secrets"] if used else {}
    return [evaluate(given, DATABASES[name][0], answer.get(name), target) for name, given in used.items()]


def evaluate(given: dict[str, str], database: str, answer: dict | None, target: Target) -> tuple[bool, str, str]:
    """Format a database's part of the answer. given: its references by setting."""
    named = " and ".join(f"{name} {value}" for name, value in given.items())
    if answer is None:
        return False, f"the live version has plain values, the file {named}", f"inv deploy --env {target.env}"
    if answer["ok"]:
        return True, f"{named}: resolved, and {database} accepts the login", ""
    return False, f"{', '.join(given)}: {answer['error']}", fix(given, answer, target)


def fix(given: dict[str, str], answer: dict, target: Target) -> str:
    """Return the next command for a failure; the message already names the cause."""
    # The error begins with the reference that it is about.
    source = next((one for one in map(source_of, given.values()) if answer["error"].startswith(one)), "")
    service, _, name = source.partition(":")
    cfg, env = target.cfg, target.env
    correct = f"correct {' or '.join(given)} of env/{env}.env and inv deploy --env {env}"
    if service == "ssm":
        store = create = aws(
            cfg, f"ssm put-parameter --overwrite --type SecureString --name {q(name)} --value file:///dev/stdin"
        )
    else:
        store = aws(cfg, f"secretsmanager put-secret-value --secret-id {q(name)} --secret-string file:///dev/stdin")
        create = aws(cfg, f"secretsmanager create-secret --name {q(name)} --secret-string file:///dev/stdin")
    fixes = {
        "missing": f"{create}, or {correct}",
        "denied": f"inv roles --env {env}, or if that changes nothing, {create}",
        "deleted": aws(cfg, f"secretsmanager restore-secret --secret-id {q(name)}"),
        "key": f"{store}, or {correct}",
        "empty": store,
        "runtime": correct,
        "refused": f"finish the rotation in database and secret, then inv secrets.check --env {env}",
    }
    return fixes.get(answer.get("kind", ""), f"check the network and the endpoints, then inv doctor --env {env}")
