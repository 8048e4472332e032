"""The alias `live`: the version that it points to, and the provisioned concurrency of that version."""

from __future__ import annotations

from shlex import quote as q

from invoke import Exit

from ops import function_url
from ops.restate import function_of
from ops.shell import ROOT, aws, into
from ops.target import Target


def held_by(alias: dict) -> str:
    """Return the ARN of the version that an alias points to."""
    return f"{function_of(alias['AliasArn'])}:{alias['FunctionVersion']}"


def wanted_description(cfg: dict) -> str:
    """Return the alias' description: a list of what is attached to it, so that a deploy queries nothing else."""
    words = ["FUNCTION_URL=on"] if function_url.by_url(cfg) else []
    if int(cfg["PROVISIONED_CONCURRENCY"]):
        words.append(f"PROVISIONED_CONCURRENCY={cfg['PROVISIONED_CONCURRENCY']}")
    return " ".join(words)


def ensure(target: Target, version_arn: str) -> str:
    """Point the alias `live` to a version, so that pings and keep-warm calls reach the version that Restate invokes.

    Returns its description: what must be attached to it, and what was attached before and must perhaps be removed.
    """
    version, wanted = version_arn.rpartition(":")[2], wanted_description(target.cfg)
    found = target.query_json(get_alias(target.cfg), missing="ResourceNotFoundException")
    if not found:
        target.execute(move(target.cfg, "create", version, wanted or None))
        return wanted
    attached = " ".join(sorted({*found.get("Description", "").split(), *wanted.split()}))
    if (found["FunctionVersion"], found.get("Description", "")) != (version, attached):
        update(target, version, attached, found)
    return attached


def update(target: Target, version: str, description: str, found: dict) -> None:
    """Move the alias. found: the alias as it was read; raises Exit if somebody else has moved it since."""
    file = target.scratch("alias-revision")
    target.run_local(save_revision(target.cfg, file))
    if not target.dry and (ROOT / file).read_text().split()[1] != found["FunctionVersion"]:
        raise Exit(
            "somebody else has moved the alias live meanwhile;"
            f" check it with `inv versions --env {target.env}`, then run it again"
        )
    changed = description if description != found.get("Description", "") else None
    target.execute(move(target.cfg, "update", version, changed, file))


def settle(target: Target, attached: str) -> None:
    """Make the alias' description list only what is attached to it now."""
    wanted = wanted_description(target.cfg)
    if attached != wanted:
        found = target.query_json(get_alias(target.cfg))
        update(target, found["FunctionVersion"], wanted, found)


def ensure_concurrency(target: Target, attached: str) -> None:
    """Set the provisioned concurrency of the environment, and wait until it is ready."""
    cfg = target.cfg
    wanted = int(cfg["PROVISIONED_CONCURRENCY"])
    if not wanted and "PROVISIONED_CONCURRENCY=" not in attached:
        return
    found = target.query_json(get_concurrency(cfg), missing="NotFoundException") or {}
    if not wanted:
        if found:
            target.execute(delete_concurrency(cfg))
        return
    if found.get("RequestedProvisionedConcurrentExecutions") != wanted:
        target.execute(put_concurrency(cfg))
    elif found["Status"] == "READY":
        return
    target.execute(wait_for_concurrency(cfg))
    found = target.query_json(get_concurrency(cfg), missing="NotFoundException")
    if found and found["Status"] == "FAILED":
        raise Exit(f"AWS could not provide {wanted} provisioned instances: {found.get('StatusReason')}")


def bound_to(revision: str) -> str:
    """Return the option by which AWS refuses a change unless the revision is still the one in a file."""
    return f' --revision-id "$(cut -f1 {q(revision)})"'


def get_alias(cfg):
    return aws(cfg, f"lambda get-alias --function-name {q(cfg['FUNCTION_NAME'])} --name live")


def save_revision(cfg, file):
    return into(file, f"{get_alias(cfg)} --query '[RevisionId, FunctionVersion]' --output text")


def move(cfg, verb, version, description=None, revision=""):
    """Return the command that creates or updates (verb) the alias; description: None to leave it as it is."""
    described = "" if description is None else f" --description {q(description)}"
    return aws(
        cfg,
        f"lambda {verb}-alias --function-name {q(cfg['FUNCTION_NAME'])} --name live --function-version {q(version)}"
        f"{described}{bound_to(revision) if revision else ''}",
    )


def get_concurrency(cfg):
    return aws(cfg, function_url.of_alias(cfg, "get-provisioned-concurrency-config"))


def put_concurrency(cfg):
    count = q(cfg["PROVISIONED_CONCURRENCY"])
    verb = function_url.of_alias(cfg, "put-provisioned-concurrency-config")
    return aws(cfg, f"{verb} --provisioned-concurrent-executions {count}")


def wait_for_concurrency(cfg):
    """Wait until AWS has provided the instances, usually some minutes; the CLI has no waiter for it."""
    return f"while {get_concurrency(cfg)} --query Status --output text | grep IN_PROGRESS; do sleep 5; done"


def delete_concurrency(cfg):
    return aws(cfg, function_url.of_alias(cfg, "delete-provisioned-concurrency-config"))
