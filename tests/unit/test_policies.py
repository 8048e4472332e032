"""The documents of policies/: who may do what, and no more."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from invoke import Context, Exit
from support.helpers import ROOT

from ops import policies, references, roles
from ops.config import ALL_SETTINGS
from ops.target import Target

NAMES = sorted(path.stem for path in (ROOT / "policies").glob("*.json"))


def statements(name: str) -> list[dict]:
    return json.loads((ROOT / "policies" / f"{name}.json").read_text())["Statement"]


@pytest.mark.parametrize("name", NAMES)
def test_parliament_finds_nothing(name):
    assert policies.findings(policies.filled(ROOT / "policies" / f"{name}.json")) == []


def test_every_placeholder_has_a_value():
    known = {one.name for one in ALL_SETTINGS} | {"ACCOUNT_ID", "ENVIRONMENT", "SECRET_ARNS"}
    for name in NAMES:
        assert set(re.findall(r"\${(\w+)}", (ROOT / "policies" / f"{name}.json").read_text())) <= known, name


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("lambda:CreateAlias", "lambda:MakeAlias", "UNKNOWN_ACTION Unknown action lambda:MakeAlias"),
        (":function:", ":layer:", "RESOURCE_MISMATCH"),
        ("lambda:PublishLayerVersion", "iam:PassRole", "RESOURCE_MISMATCH"),
        ("iam:PassedToService", "iam:PassedTo", "UNKNOWN_CONDITION_FOR_ACTION"),
        ('"Effect": "Allow",', "", "MALFORMED"),
    ],
)
def test_fault_in_a_policy_is_found(old, new, finding):
    document = policies.filled(ROOT / "policies" / "deploy.json").replace(old, new)
    assert any(line.startswith(finding) for line in policies.findings(document))


def test_fault_in_a_trust_is_found():
    document = policies.filled(ROOT / "policies" / "deploy-trust.json")
    for old, new in (("sts:AssumeRoleWithWebIdentity", "sts:AssumeRoles"), (":sub", ":subject")):
        assert policies.findings(document.replace(old, new))


@pytest.mark.parametrize("name", NAMES)
def test_bare_star_is_only_for_actions_without_resource(name):
    """A look-up that AWS cannot narrow; parliament's own finding is any other action on *."""
    for statement in statements(name):
        assert "*" not in str(statement["Action"])
        if statement.get("Resource") == "*":
            assert re.sub(r"\w+:(Describe|List)\w+", "", str(statement["Action"])).strip("[]', ") == ""


def test_only_one_role_is_passed_and_only_to_lambda():
    (passing,) = [one for name in NAMES for one in statements(name) if "iam:PassRole" in one["Action"]]
    assert passing["Resource"] == "arn:aws:iam::${ACCOUNT_ID}:role/${ROLE_NAME}"
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}


@pytest.mark.parametrize("name", ["lambda-execution", "deploy"])
def test_logs_go_only_to_the_group_of_the_function(name):
    own = "arn:aws:logs:${AWS_REGION}:${ACCOUNT_ID}:log-group:/aws/lambda/${FUNCTION_NAME}"
    writing = [one for one in statements(name) if "logs:" in str(one["Action"]) and one["Resource"] != "*"]
    resources = {
        arn for one in writing for arn in ([one["Resource"]] if isinstance(one["Resource"], str) else one["Resource"])
    }
    assert writing and resources <= {own, f"{own}:*"}


def test_deploy_role_cannot_delete_the_function():
    (removing,) = [one for one in statements("deploy") if re.search(r"DeleteFunction\b", str(one["Action"]))]
    assert removing["Action"] == "lambda:DeleteFunction" and removing["Resource"].endswith(":${FUNCTION_NAME}:*")


def test_github_deploys_only_from_main_and_the_environment():
    (trust,) = statements("deploy-trust")
    conditions = trust["Condition"]
    assert list(conditions) == ["StringEquals"]
    assert conditions["StringEquals"] == {
        "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
        "token.actions.githubusercontent.com:sub": [
            "repo:${GITHUB_REPOSITORY}:ref:refs/heads/main",
            "repo:${GITHUB_REPOSITORY}:environment:${ENVIRONMENT}",
        ],
    }


@pytest.mark.parametrize("repository", ["insurer/closing", "insurer@1234/closing@56789"])
def test_github_repository_with_ids_is_the_subject_of_its_tokens(repository):
    """https://docs.github.com/en/actions/concepts/security/openid-connect, immutable subject claims."""
    cfg = {"GITHUB_REPOSITORY": repository, "ENVIRONMENT": "prod"}
    command = roles.fill_policy("deploy-trust", cfg, "000000000000")
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    (statement,) = json.loads(done.stdout)["Statement"]
    subjects = statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert subjects == [f"repo:{repository}:ref:refs/heads/main", f"repo:{repository}:environment:prod"]


def test_restate_assumes_its_role_only_for_our_environment():
    cloud, tag = statements("restate-cloud-trust")
    assert cloud["Condition"]["StringEquals"] == {
        "sts:ExternalId": "${RESTATE_EXTERNAL_ID}",
        "aws:PrincipalArn": "arn:aws:iam::654654156625:role/RestateCloud",
    }
    assert tag["Principal"] == cloud["Principal"] == {"AWS": "arn:aws:iam::654654156625:root"}
    (server,) = statements("restate-server-trust")
    assert server["Principal"] == {"AWS": "${RESTATE_SERVER_ROLE_ARN}"}
    assert server["Condition"] == {"StringEquals": {"sts:ExternalId": "${RESTATE_EXTERNAL_ID}"}}
    (invoke,) = statements("restate-invoke")
    assert invoke["Action"] == "lambda:InvokeFunction"


def test_values_are_inserted_unchanged(monkeypatch):
    """By sed, whose own signs they may hold; an empty one is refused by name."""
    cfg = {**policies.PLAUSIBLE, "RESTATE_EXTERNAL_ID": "a&b|c"}
    command = roles.fill_policy("restate-server-trust", cfg, "123456789012")
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    (statement,) = json.loads(done.stdout)["Statement"]
    assert statement["Condition"] == {"StringEquals": {"sts:ExternalId": "a&b|c"}}
    with pytest.raises(Exit, match=r"restate-server-trust\.json needs RESTATE_EXTERNAL_ID, which is empty"):
        roles.fill_policy("restate-server-trust", {**cfg, "RESTATE_EXTERNAL_ID": ""}, "123456789012")


@pytest.mark.parametrize("given", ["restate", "arn:aws:iam::123456789012:role/restate"])
def test_role_of_a_restate_server_can_be_a_name_of_the_account(given):
    cfg = {**policies.PLAUSIBLE, "RESTATE_SERVER_ROLE_ARN": given}
    command = roles.fill_policy("restate-server-trust", cfg, "123456789012")
    (statement,) = json.loads(subprocess.check_output(command, shell=True, cwd=ROOT))["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::123456789012:role/restate"}


def test_deploy_role_gets_bucket_and_network_only_if_settings_name_them():
    bare = {"DEPLOY_BUCKET": "", "VPC_SUBNET_IDS": ""}
    assert roles.deploy_policies(bare) == ["deploy"]
    assert roles.deploy_policies({"DEPLOY_BUCKET": "b", "VPC_SUBNET_IDS": "subnet-1"}) == [
        "deploy",
        "deploy-bucket",
        "deploy-vpc",
    ]


KEY = "arn:aws:kms:ap-southeast-3:123456789012:key/0b1c"
ARN = "arn:aws:secretsmanager:eu-west-1:210987654321:secret:genius-AbCdEf"


@pytest.mark.parametrize(
    ("found", "key", "expected"),
    [("", KEY, []), ("ssm:/pg", "", ["lambda-secrets"]), ("ssm:/pg", KEY, ["lambda-secrets", "lambda-secrets-key"])],
)
def test_secrets_are_readable_only_if_references_are_used(found, key, expected):
    cfg = {"VPC_SUBNET_IDS": "", roles.REFERENCES: found, "SECRETS_KMS_KEY_ARN": key}
    assert roles.execution_policies(cfg) == ["lambda-execution", *expected]


def test_policy_has_exactly_the_referenced_secrets():
    cfg = {"AWS_REGION": "ap-southeast-3", roles.REFERENCES: f"secretsmanager:finance/pg secretsmanager:{ARN} ssm:/a/b"}
    command = roles.fill_policy("lambda-secrets", cfg, "123456789012")
    filled = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(filled)["Statement"][0]["Resource"] == [
        "arn:aws:secretsmanager:ap-southeast-3:123456789012:secret:finance/pg-??????",
        ARN,
        "arn:aws:ssm:ap-southeast-3:123456789012:parameter/a/b",
    ]


def test_references_of_existing_versions_stay_readable():
    target = Target(Context(), {"PG_PASSWORD": "secretsmanager:new#password", "PG_USER": "finance"}, "test")
    versions = [{"Environment": {"Variables": {"PG_PASSWORD": "secretsmanager:old#p", "PG_HOST": "h"}}}, {}]
    assert references.in_use(target, versions) == ["secretsmanager:new", "secretsmanager:old"]
