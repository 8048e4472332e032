"""Roles of the local cloud's account, which enforces IAM."""

from __future__ import annotations

import json
from pathlib import Path

from support.helpers import output_of

from local.services import ACCOUNT
from ops import roles


def make_invoking_role(cfg: dict[str, str], name: str, folder: Path) -> str:
    """Create a role that this account can assume and that can invoke each function; return its ARN."""
    owner = f"arn:aws:iam::{ACCOUNT}:root"
    trust = {"Action": "sts:AssumeRole", "Principal": {"AWS": owner}}
    rights = {"Action": "lambda:InvokeFunction", "Resource": "*"}
    files = {}
    for kind, statement in (("trust", trust), ("rights", rights)):
        files[kind] = folder / f"{name}.{kind}.json"
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}
        files[kind].write_text(json.dumps(document))
    for command in (
        roles.create_role(cfg, name, str(files["trust"])),
        roles.put_role_policy(cfg, name, "invoke", str(files["rights"])),
    ):
        output_of(cfg, command)
    return roles.role_arn(name, owner)
