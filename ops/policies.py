"""inv policies: check policies/ with parliament, with plausible values in the placeholders."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

from invoke import Exit

from ops import references
from ops.shell import ROOT
from ops.task import NOTHING, task

PLAUSIBLE = {
    "ACCOUNT_ID": "123456789012",
    "AWS_REGION": "ap-southeast-3",
    "DEPLOY_BUCKET": "insurer-deploy",
    "ENVIRONMENT": "prod",
    "FUNCTION_NAME": "finance-closing",
    "GITHUB_REPOSITORY": "insurer/finance-closing",
    "LAYER_NAME": "oracle-instantclient",
    "RESTATE_EXTERNAL_ID": "env_201",
    "RESTATE_SERVER_ROLE_ARN": "arn:aws:iam::123456789012:role/restate",
    "ROLE_NAME": "finance-closing-lambda-role",
    "SECRETS_KMS_KEY_ARN": "arn:aws:kms:ap-southeast-3:123456789012:key/0b1c",
    "SECRET_ARNS": '", "'.join(
        references.arns(["secretsmanager:finance/pg", "ssm:/finance/pg"], "ap-southeast-3", "123456789012")
    ),
}
# parliament only checks identity policies: a trust policy has no Resource, and parliament does not know GitHub's
# provider and the claims of its tokens.
TRUSTED = "arn:aws:iam::123456789012:role/trusted"
GITHUB = re.compile(
    r"UNKNOWN_FEDERATION_SOURCE arn:aws:iam::\d{12}:oidc-provider/token\.actions\.githubusercontent\.com"
    r"|UNKNOWN_CONDITION_FOR_ACTION Unknown condition token\.actions\.githubusercontent\.com:(aud|sub) for .*"
)


@task(group="develop", changes=NOTHING)
def policies(c):
    """Check policies/ with parliament: unknown actions, resources that do not fit, malformed documents."""
    found = [
        f"{path.name}: {one}" for path in sorted((ROOT / "policies").glob("*.json")) for one in findings(filled(path))
    ]
    if found:
        raise Exit("\n".join(found))


def filled(path: Path) -> str:
    text = path.read_text()
    for key, value in PLAUSIBLE.items():
        text = text.replace(f"${{{key}}}", value)
    return text


def findings(document: str) -> list[str]:
    """Return parliament's findings for a filled policy or trust, a line each."""
    with warnings.catch_warnings():
        # It loads its data with a deprecated function of setuptools.
        warnings.simplefilter("ignore")
        import parliament
    policy = json.loads(document)
    for statement in policy["Statement"]:
        if "Principal" in statement:
            statement.setdefault("Resource", TRUSTED)
    found = parliament.analyze_policy_string(json.dumps(policy, indent=2)).findings
    lines = [f"{one.issue} {one.detail}" for one in found]
    return [line for line in lines if not GITHUB.fullmatch(line)]
