"""The roles of policies/, created or brought up to date: inv roles, inv oidc."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote as q

from invoke import Exit, task

from env import doors, environment
from env.doors import ROOT, aws, read_json, write

ENV_HELP = {"env": "a file name in env/, such as local"}
GITHUB = "token.actions.githubusercontent.com"
OF_THE_FUNCTION = ("lambda-execution", "lambda-vpc")


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


def list_role_policies(cfg, role):
    return aws(cfg, f"iam list-role-policies --role-name {q(role)}")


def delete_role_policy(cfg, role, name):
    return aws(cfg, f"iam delete-role-policy --role-name {q(role)} --policy-name {q(name)}")


def delete_role(cfg, role):
    return aws(cfg, f"iam delete-role --role-name {q(role)}")


def get_account(cfg):
    return aws(cfg, "sts get-caller-identity")


def list_providers(cfg):
    return aws(cfg, "iam list-open-id-connect-providers")


def create_provider(cfg):
    return aws(cfg, f"iam create-open-id-connect-provider --url https://{GITHUB} --client-id-list sts.amazonaws.com")


@task(help=ENV_HELP)
def roles(c, env):
    """Create the roles of an environment, or bring them in step with policies/, and say what differed."""
    cfg = environment.load(env)
    print(f"{env}: roles of {cfg['FUNCTION_NAME']} in {cfg['AWS_REGION']}")
    account = found_account(c, cfg, None)
    words, before = {**cfg, "ENVIRONMENT": env}, doors.changes
    ensure_execution_role(c, cfg)
    if cfg["GITHUB_REPOSITORY"]:
        ensure(c, words, account, cfg["DEPLOY_ROLE_NAME"], "deploy-trust", ["deploy"])
    else:
        print(f"{env}: GITHUB_REPOSITORY is empty, so there is no role for its deploys")
    if cfg["RESTATE_INVOKE_ROLE_ARN"] and cfg["RESTATE_EXTERNAL_ID"]:
        trust = "restate-server-trust" if cfg["RESTATE_SERVER_ROLE_ARN"] else "restate-cloud-trust"
        name = cfg["RESTATE_INVOKE_ROLE_ARN"].rpartition("/")[2]
        ensure(c, words, account, name, trust, ["restate-invoke"])
    else:
        print(f"{env}: without RESTATE_INVOKE_ROLE_ARN and RESTATE_EXTERNAL_ID Restate's role is not ours to make")
    changed = doors.changes - before
    verb = "would be made" if c.config.run.dry else "made"
    print(f"{env}: {changed} {'change' if changed == 1 else 'changes'} {verb}")


@task(help=ENV_HELP)
def oidc(c, env):
    """Let the account trust GitHub's tokens, once for all of its environments."""
    cfg = environment.load(env)
    print(f"{env}: OIDC provider {GITHUB}")
    found = read_json(c, cfg, list_providers(cfg))["OpenIDConnectProviderList"]
    if any(one["Arn"].endswith(f"/{GITHUB}") for one in found):
        print(f"{env}: it is there already, nothing was changed")
        return
    write(c, cfg, create_provider(cfg))
    print(f"{env}: {'this was a rehearsal' if c.config.run.dry else 'made'}")


def found_account(c, cfg, function: dict | None) -> str:
    """The account's number, without a call where an ARN tells it."""
    if function:
        return function["Configuration"]["FunctionArn"].split(":")[4]
    return read_json(c, cfg, get_account(cfg))["Account"]


def of_environment(cfg) -> list[str]:
    """The names of the roles that `inv roles` makes for an environment."""
    names = [cfg["ROLE_NAME"]]
    if cfg["GITHUB_REPOSITORY"]:
        names.append(cfg["DEPLOY_ROLE_NAME"])
    if cfg["RESTATE_INVOKE_ROLE_ARN"] and cfg["RESTATE_EXTERNAL_ID"]:
        names.append(cfg["RESTATE_INVOKE_ROLE_ARN"].rpartition("/")[2])
    return names


def remove(c, cfg, role: str) -> None:
    """Delete a role, if it is there; its policies go first, or AWS refuses."""
    found = read_json(c, cfg, list_role_policies(cfg, role), missing="NoSuchEntity")
    if found is None:
        return
    for name in found["PolicyNames"]:
        write(c, cfg, delete_role_policy(cfg, role, name))
    write(c, cfg, delete_role(cfg, role))


def leave_vpc(c, cfg) -> None:
    """Take the permission for network interfaces from the function's role.

    Only once no version is in a VPC: AWS removes the interfaces of one by this very permission.
    """
    if read_json(c, cfg, get_role_policy(cfg, cfg["ROLE_NAME"], OF_THE_FUNCTION[1]), missing="NoSuchEntity"):
        write(c, cfg, delete_role_policy(cfg, cfg["ROLE_NAME"], OF_THE_FUNCTION[1]))


def ensure_execution_role(c, cfg) -> str:
    """Have the function's role as policies/ says; network interfaces only for a function in a VPC. Returns its ARN."""
    policies = list(OF_THE_FUNCTION if cfg["VPC_SUBNET_IDS"] else OF_THE_FUNCTION[:1])
    return ensure(c, cfg, "", cfg["ROLE_NAME"], "lambda-trust", policies)


def ensure(c, cfg, account: str, role: str, trust: str, policies: list[str]) -> str:
    """Have a role with its trust and its policies; account "": as the role's ARN tells. Returns the ARN."""
    found = read_json(c, cfg, get_role(cfg, role), missing="NoSuchEntity")
    trusted = fill_policy(trust, cfg, account)
    if not found:
        write(c, cfg, create_role(cfg, role, relative(trusted)))
        found = read_json(c, cfg, get_role(cfg, role), missing="NoSuchEntity")
    elif found["Role"]["AssumeRolePolicyDocument"] != json.loads(trusted.read_text()):
        print(f"the trust of {role} differs from policies/{trust}.json")
        write(c, cfg, update_trust(cfg, role, relative(trusted)))
    arn = found["Role"]["Arn"] if found else f"arn:aws:iam::{account or 'ACCOUNT'}:role/{role}"
    for name in policies:
        wanted = fill_policy(name, cfg, arn.split(":")[4])
        present = read_json(c, cfg, get_role_policy(cfg, role, name), missing="NoSuchEntity")
        if not present or present["PolicyDocument"] != json.loads(wanted.read_text()):
            print(f"the policy {name} of {role} {'differs from policies/' if present else 'is not there'}")
            write(c, cfg, put_role_policy(cfg, role, name, relative(wanted)))
    return arn


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fill_policy(name: str, cfg: dict, account: str) -> Path:
    """A policy of policies/ with its placeholders filled, as a file in build/; Exit where one has no value."""
    text = (ROOT / "policies" / f"{name}.json").read_text()
    for key, value in {**cfg, "ACCOUNT_ID": account}.items():
        if f"${{{key}}}" in text and not value:
            raise Exit(f"policies/{name}.json needs {key}, which is empty. Nothing of that role was changed.")
        text = text.replace(f"${{{key}}}", value)
    path = ROOT / "build" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path
