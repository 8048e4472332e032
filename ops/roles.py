"""inv roles and inv oidc: create or update the IAM roles of policies/."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from shlex import quote as q
from typing import NamedTuple

from invoke import Exit

from ops import references, shell
from ops.config import ENV_HELP
from ops.shell import ROOT, aws, into
from ops.target import Target
from ops.task import ENVIRONMENT, task

GITHUB = "token.actions.githubusercontent.com"
# The key under which with_references stores the references in a target's settings, separated by spaces.
REFERENCES = "SECRET_REFERENCES"


def get_role(cfg, role=""):
    return aws(cfg, f"iam get-role --role-name {q(role or cfg['ROLE_NAME'])}")


def create_role(cfg, role, trust):
    return aws(cfg, f"iam create-role --role-name {q(role)} --assume-role-policy-document file://{q(trust)}")


def update_trust(cfg, role, trust):
    return aws(cfg, f"iam update-assume-role-policy --role-name {q(role)} --policy-document file://{q(trust)}")


def get_role_policy(cfg, role, name):
    return aws(cfg, f"iam get-role-policy --role-name {q(role)} --policy-name {name}")


def put_role_policy(cfg, role, name, document):
    return aws(
        cfg,
        f"iam put-role-policy --role-name {q(role)} --policy-name {name} --policy-document file://{q(document)}",
    )


def list_versions(cfg):
    return aws(cfg, f"lambda list-versions-by-function --function-name {q(cfg['FUNCTION_NAME'])}")


def list_role_policies(cfg, role):
    return aws(cfg, f"iam list-role-policies --role-name {q(role)}")


def delete_role_policy(cfg, role, name):
    return aws(cfg, f"iam delete-role-policy --role-name {q(role)} --policy-name {q(name)}")


def delete_role(cfg, role=""):
    return aws(cfg, f"iam delete-role --role-name {q(role or cfg['ROLE_NAME'])}")


def list_providers(cfg):
    return aws(cfg, "iam list-open-id-connect-providers")


def create_provider(cfg):
    return aws(cfg, f"iam create-open-id-connect-provider --url https://{GITHUB} --client-id-list sts.amazonaws.com")


@task(group="set up", changes=ENVIRONMENT, uses=("aws",), help=ENV_HELP)
def roles(c, env):
    """Create or update the roles of an environment as policies/ defines them, and print what differed."""
    target = Target.load(c, env)
    print(f"{env}: roles of {target.cfg['FUNCTION_NAME']} in {target.cfg['AWS_REGION']}")
    account, before = account_of(target, None), shell.changes
    target = with_references(target)
    for role, trust, policies in planned(target.cfg):
        ensure(target, account, role, trust, policies)
        remove_unused_policies(target, role, policies)
    if not target.cfg["GITHUB_REPOSITORY"]:
        print(f"{env}: GITHUB_REPOSITORY is empty, so there is no role for its deploys")
    elif "@" not in target.cfg["GITHUB_REPOSITORY"]:
        print(f"{env}: GITHUB_REPOSITORY has no IDs; AWS refuses the deploys of a repository made since 2026-07-15")
    if not invoked_by_role(target.cfg):
        print(f"{env}: RESTATE_INVOKE_ROLE_ARN or RESTATE_EXTERNAL_ID is empty, so Restate's role is not created here")
    changed = shell.changes - before
    verb = "would be made" if target.dry else "made"
    print(f"{env}: {changed} {'change' if changed == 1 else 'changes'} {verb}")


@task(group="set up", changes=ENVIRONMENT, uses=("aws",), help=ENV_HELP)
def oidc(c, env):
    """Let the account trust GitHub's tokens, once for all of its environments."""
    target = Target.load(c, env)
    print(f"{env}: OIDC provider {GITHUB}")
    found = target.query_json(list_providers(target.cfg))["OpenIDConnectProviderList"]
    if any(one["Arn"].endswith(f"/{GITHUB}") for one in found):
        print(f"{env}: it is there already, nothing was changed")
        return
    target.execute(create_provider(target.cfg))
    print(f"{env}: {'dry run, nothing was changed' if target.dry else 'created'}")


def account_of(target: Target, function: dict | None) -> str:
    """Return the account's number, from the function's ARN if there is a function, else from AWS."""
    if function:
        return function["Configuration"]["FunctionArn"].split(":")[4]
    return target.query_json(shell.get_account(target.cfg))["Account"]


def remove(target: Target, role: str) -> None:
    """Delete a role if it exists, after its policies, because AWS requires that order."""
    found = target.query_json(list_role_policies(target.cfg, role), missing="NoSuchEntity")
    if found is None:
        return
    for name in found["PolicyNames"]:
        target.execute(delete_role_policy(target.cfg, role, name))
    target.execute(delete_role(target.cfg, role))


def remove_unused_policies(target: Target, role: str, policies: list[str]) -> None:
    """Delete the policies of policies/ that a role no longer needs."""
    for name in unused_policies(target, role, policies):
        print(no_longer_wanted(role, name))
        target.execute(delete_role_policy(target.cfg, role, name))


def no_longer_wanted(role: str, policy: str) -> str:
    return f"the policy {policy} of {role} is no longer wanted"


def unused_policies(target: Target, role: str, policies: list[str]) -> list[str]:
    """Return the policies of policies/ that a role has and no longer needs; only leave_vpc deletes lambda-vpc."""
    ours = {path.stem for path in (ROOT / "policies").glob("*.json")} - {"lambda-vpc", *policies}
    if target.cfg.get(REFERENCES) and not references.named(target.cfg):
        # Only existing versions have references, and the file has no reason to name their key any more.
        ours.discard("lambda-secrets-key")
    found = target.query_json(list_role_policies(target.cfg, role), missing="NoSuchEntity") or {"PolicyNames": []}
    return [name for name in found["PolicyNames"] if name in ours]


def leave_vpc(target: Target) -> None:
    """Delete the permission for network interfaces from the function's role.

    Call it only when no version is in a VPC: AWS needs this permission to remove their interfaces.
    """
    if target.query_json(get_role_policy(target.cfg, target.cfg["ROLE_NAME"], "lambda-vpc"), missing="NoSuchEntity"):
        target.execute(delete_role_policy(target.cfg, target.cfg["ROLE_NAME"], "lambda-vpc"))


def planned(cfg) -> list[tuple[str, str, list[str]]]:
    """Return the roles of an environment: (name, trust, policies), the latter two as files of policies/."""
    wanted = [(cfg["ROLE_NAME"], "lambda-trust", execution_policies(cfg))]
    if cfg["GITHUB_REPOSITORY"]:
        wanted.append((cfg["DEPLOY_ROLE_NAME"], "deploy-trust", deploy_policies(cfg)))
    if invoked_by_role(cfg):
        trust = "restate-server-trust" if cfg["RESTATE_SERVER_ROLE_ARN"] else "restate-cloud-trust"
        wanted.append((cfg["RESTATE_INVOKE_ROLE_ARN"].rpartition("/")[2], trust, ["restate-invoke"]))
    return wanted


def execution_policies(cfg) -> list[str]:
    """Return the policies of the function's role.

    Network interfaces only for a function in a VPC; secrets only if with_references has found references.
    """
    vpc = ["lambda-vpc"] if cfg["VPC_SUBNET_IDS"] else []
    secrets = ["lambda-secrets"] if cfg.get(REFERENCES) else []
    key = ["lambda-secrets-key"] if secrets and cfg["SECRETS_KMS_KEY_ARN"] else []
    return ["lambda-execution", *vpc, *secrets, *key]


def with_references(target: Target) -> Target:
    """Return the target with the references that the function's role must be able to read."""
    found = target.query_json(list_versions(target.cfg), missing="ResourceNotFoundException") or {"Versions": []}
    return target.having(**{REFERENCES: " ".join(references.in_use(target, found["Versions"]))})


def invoked_by_role(cfg) -> bool:
    return bool(cfg["RESTATE_INVOKE_ROLE_ARN"] and cfg["RESTATE_EXTERNAL_ID"])


def ensure_execution_role(target: Target) -> str:
    """Create or update the function's role as policies/ defines it; returns its ARN."""
    # A look-up takes half a second, and a policy that is no longer needed is removed by `inv roles`.
    target = with_references(target) if references.named(target.cfg) else target
    return ensure(target, "", target.cfg["ROLE_NAME"], "lambda-trust", execution_policies(target.cfg))


def deploy_policies(cfg) -> list[str]:
    """Return the policies of the deploy role: bucket and network only if the environment names them."""
    with_bucket = ["deploy-bucket"] if cfg["DEPLOY_BUCKET"] else []
    return ["deploy", *with_bucket, *(["deploy-vpc"] if cfg["VPC_SUBNET_IDS"] else [])]


def ensure(target: Target, account: str, role: str, trust: str, policies: list[str]) -> str:
    """Create or update a role, its trust and its policies; account "": take it from the ARN. Returns the ARN."""
    found = find_role(target, role)
    if not found:
        target.execute(create_role(target.cfg, role, as_file(target, trust, fill_policy(trust, target.cfg, account))))
        found = find_role(target, role)
    arn = found["Arn"] if found else f"arn:aws:iam::{account or 'ACCOUNT'}:role/{role}"
    for one in differences(target, account, arn, found, trust, policies):
        print(one.message)
        target.execute(one.fix(as_file(target, one.name, one.wanted)))
    return arn


def find_role(target: Target, role: str) -> dict | None:
    found = target.query_json(get_role(target.cfg, role), missing="NoSuchEntity")
    return found and found["Role"]


class Difference(NamedTuple):
    """A part of a role that differs from policies/.

    name: of the file; wanted: the command that prints its filled content; fix: returns the command that applies it.
    """

    message: str
    name: str
    wanted: str
    fix: Callable[[str], str]


def differences(target: Target, account, arn, found, trust, policies) -> Iterator[Difference]:
    """Yield what differs between a role and policies/. found: the role as AWS has it, or None."""
    role, wanted = arn.rpartition("/")[2], fill_policy(trust, target.cfg, account)
    if found and found["AssumeRolePolicyDocument"] != target.query_json(wanted):
        message = f"the trust of {role} differs from policies/{trust}.json"
        yield Difference(message, trust, wanted, functools.partial(update_trust, target.cfg, role))
    for name in policies:
        wanted = fill_policy(name, target.cfg, arn.split(":")[4])
        present = target.query_json(get_role_policy(target.cfg, role, name), missing="NoSuchEntity")
        if not present or present["PolicyDocument"] != target.query_json(wanted):
            message = f"the policy {name} of {role} {'differs from policies/' if present else 'is not there'}"
            yield Difference(message, name, wanted, functools.partial(put_role_policy, target.cfg, role, name))


def fill_policy(name: str, cfg: dict, account: str) -> str:
    """Return the command that prints a policy with its placeholders filled; raises Exit if one has no value."""
    file = f"policies/{name}.json"
    text = (ROOT / file).read_text()
    # The placeholder is one text in a list: its quotes are closed and opened again between two ARNs.
    secrets = '", "'.join(references.arns(cfg.get(REFERENCES, "").split(), cfg.get("AWS_REGION", ""), account))
    server = role_arn(cfg.get("RESTATE_SERVER_ROLE_ARN", ""), f"arn:aws:iam::{account}:root")
    given = {**cfg, "SECRET_ARNS": secrets, "ACCOUNT_ID": account, "RESTATE_SERVER_ROLE_ARN": server}
    words = [key for key in given if f"${{{key}}}" in text]
    empty = [key for key in words if not given[key]]
    if empty:
        raise Exit(f"{file} needs {', '.join(empty)}, which is empty. Nothing of that role was changed.")
    filled = [f"s|\\${{{key}}}|{escaped(given[key])}|g" for key in words]
    return f"sed {' '.join(f'-e {q(one)}' for one in filled)} {file}" if filled else f"cat {file}"


def role_arn(role: str, neighbour: str) -> str:
    """Return the ARN of a role that a setting has as an ARN or as a name; "" for none.

    neighbour: an ARN of the account in which a name is; not read for another role, since a dry run may not have it.
    """
    if not role or role.startswith("arn:"):
        return role
    _, partition, _, _, account, *_ = neighbour.split(":")
    return f"arn:{partition}:iam::{account}:role/{role}"


def escaped(value: str) -> str:
    """Return a text escaped as the replacement of a sed command."""
    return re.sub(r"[\\&|]", r"\\\g<0>", value)


def as_file(target: Target, name: str, command: str) -> str:
    file = target.scratch(f"{name}.json")
    target.run_local(into(file, command))
    return file
