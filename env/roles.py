"""The roles of policies/, created or brought up to date."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote as q

from env.doors import ROOT, aws, read_json, write


def get_role(cfg):
    return aws(cfg, f"iam get-role --role-name {q(cfg['ROLE_NAME'])}")


def create_role(cfg):
    return aws(
        cfg,
        f"iam create-role --role-name {q(cfg['ROLE_NAME'])}"
        " --assume-role-policy-document file://policies/lambda-trust.json",
    )


def get_role_policy(cfg):
    return aws(cfg, f"iam get-role-policy --role-name {q(cfg['ROLE_NAME'])} --policy-name lambda-execution")


def put_role_policy(cfg, document):
    return aws(
        cfg,
        f"iam put-role-policy --role-name {q(cfg['ROLE_NAME'])} --policy-name lambda-execution"
        f" --policy-document file://{q(document)}",
    )


def delete_role_policy(cfg):
    return aws(cfg, f"iam delete-role-policy --role-name {q(cfg['ROLE_NAME'])} --policy-name lambda-execution")


def delete_role(cfg):
    return aws(cfg, f"iam delete-role --role-name {q(cfg['ROLE_NAME'])}")


def get_account(cfg):
    return aws(cfg, "sts get-caller-identity")


def found_account(c, cfg, function: dict | None) -> str:
    """The account's number, without a call where an ARN tells it."""
    if function:
        return function["Configuration"]["FunctionArn"].split(":")[4]
    return read_json(c, cfg, get_account(cfg))["Account"]


def remove(c, cfg) -> None:
    """Delete the execution role; its policy goes first, or AWS refuses."""
    if read_json(c, cfg, get_role_policy(cfg), missing="NoSuchEntity"):
        write(c, cfg, delete_role_policy(cfg))
    write(c, cfg, delete_role(cfg))


def ensure_role(c, cfg) -> str:
    """Have the execution role and its policy as policies/ says; returns its ARN."""
    found = read_json(c, cfg, get_role(cfg), missing="NoSuchEntity")
    if not found:
        write(c, cfg, create_role(cfg))
        found = read_json(c, cfg, get_role(cfg), missing="NoSuchEntity")
    arn = found["Role"]["Arn"] if found else f"arn:aws:iam::ACCOUNT:role/{cfg['ROLE_NAME']}"
    wanted = fill_policy("lambda-execution", cfg, arn.split(":")[4])
    present = read_json(c, cfg, get_role_policy(cfg), missing="NoSuchEntity")
    if not present or present["PolicyDocument"] != json.loads(wanted.read_text()):
        write(c, cfg, put_role_policy(cfg, str(wanted.relative_to(ROOT))))
    return arn


def fill_policy(name: str, cfg: dict, account: str) -> Path:
    """A policy of policies/ with its placeholders filled, as a file in build/."""
    text = (ROOT / "policies" / f"{name}.json").read_text()
    for key, value in {**cfg, "ACCOUNT_ID": account}.items():
        text = text.replace(f"${{{key}}}", value)
    path = ROOT / "build" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path
