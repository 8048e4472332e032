"""The roles of policies/ on the local cloud."""

from __future__ import annotations

import pytest
from invoke import Context
from support.helpers import ROOT, inv

from ops import roles
from ops.target import Target

OTHER = ROOT / "env" / "testroles.env"
GIVEN = {
    "ROLE_NAME": "test-roles-lambda",
    "VPC_SUBNET_IDS": "subnet-0a,subnet-0b",
    "VPC_SECURITY_GROUP_IDS": "sg-0c",
    "GITHUB_REPOSITORY": "insurer/finance-closing",
    "RESTATE_INVOKE_ROLE_ARN": "arn:aws:iam::000000000000:role/test-roles-restate",
    "RESTATE_EXTERNAL_ID": "env_2",
}


@pytest.fixture
def environment(cfg):
    lines = (ROOT / "env" / "local.env").read_text().splitlines()
    names = [line.partition("=")[0] for line in lines]
    OTHER.write_text("\n".join(f"{name}={GIVEN[name]}" if name in GIVEN else line for name, line in zip(names, lines)))
    yield cfg
    OTHER.unlink()


@pytest.mark.slow
def test_roles_are_made_once_and_none_in_a_dry_run(environment):
    printed = inv("--dry", "roles", "--env", "testroles").stdout
    assert "8 changes would be made" in printed
    assert "8 changes made" in inv("roles", "--env", "testroles").stdout
    assert "0 changes made" in inv("roles", "--env", "testroles").stdout
    target = Target.load(Context(), "testroles")
    trust = roles.find_role(target, target.cfg["DEPLOY_ROLE_NAME"])["AssumeRolePolicyDocument"]["Statement"][0]
    assert trust["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"] == [
        "repo:insurer/finance-closing:ref:refs/heads/main",
        "repo:insurer/finance-closing:environment:testroles",
    ]
    OTHER.write_text(OTHER.read_text().replace("env_2", "env_3"))
    changed = inv("roles", "--env", "testroles").stdout
    assert "the trust of test-roles-restate differs from policies/restate-cloud-trust.json" in changed
    assert "1 change made" in changed
    OTHER.write_text(OTHER.read_text().replace("subnet-0a,subnet-0b", "").replace("sg-0c", ""))
    changed = inv("roles", "--env", "testroles").stdout
    assert "the policy deploy-vpc of finance-closing-deploy is no longer wanted" in changed
    assert "1 change made" in changed


def test_provider_is_made_once(cfg):
    inv("oidc", "--env", "local")
    assert "there already" in inv("oidc", "--env", "local").stdout
