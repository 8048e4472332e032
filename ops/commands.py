"""The AWS and restate commands of a deploy as they are pasted: each function only returns its text."""

from __future__ import annotations

import json
from shlex import quote as q

from ops import upload
from ops.shell import aws

# Of a function AWS answers with its whole environment, which is not to stand on the screen of whoever pastes.
QUIET = " --query FunctionArn --output text"


def get_function(cfg):
    return aws(cfg, f"lambda get-function --function-name {q(cfg['FUNCTION_NAME'])}")


def shape(cfg, role_arn, environment_file):
    # Without a value the option detaches all.
    layer = cfg["LAYER_VERSION_ARN"] and q(cfg["LAYER_VERSION_ARN"])
    return (
        f"--runtime {q(cfg['RUNTIME'])} --handler handler.app.handler --role {q(role_arn)}"
        f" --timeout {q(cfg['TIMEOUT'])} --memory-size {q(cfg['MEMORY'])}"
        f" --environment file://{q(environment_file)} --layers {layer}{network(cfg)}"
    )


def network(cfg):
    """Subnets and groups; without any the option is left out, and update_configuration takes them away."""
    if not cfg["VPC_SUBNET_IDS"]:
        return ""
    return f" --vpc-config SubnetIds={q(cfg['VPC_SUBNET_IDS'])},SecurityGroupIds={q(cfg['VPC_SECURITY_GROUP_IDS'])}"


def create_function(cfg, role_arn, environment_file, made):
    return aws(
        cfg,
        f"lambda create-function --function-name {q(cfg['FUNCTION_NAME'])} {upload.code_to_create(cfg, made)}"
        f" {shape(cfg, role_arn, environment_file)} --tags {tags(made)}{QUIET}",
    )


def update_code(cfg, made, revision):
    """revision: a file with that of the function as it was looked at; where it is another by now, AWS refuses."""
    return aws(
        cfg,
        f"lambda update-function-code --function-name {q(cfg['FUNCTION_NAME'])} {upload.code_to_update(cfg, made)}"
        f"{only(revision)}{QUIET}",
    )


def update_configuration(cfg, role_arn, environment_file, revision, in_vpc=False):
    """in_vpc: the function is in one now, which it leaves where the environment names none."""
    leave = " --vpc-config SubnetIds=[],SecurityGroupIds=[]" if in_vpc else ""
    return aws(
        cfg,
        f"lambda update-function-configuration --function-name {q(cfg['FUNCTION_NAME'])}"
        f" {shape(cfg, role_arn, environment_file)}{'' if network(cfg) else leave}{only(revision)}{QUIET}",
    )


def save_revision(cfg, file):
    look = aws(
        cfg,
        f"lambda get-function --function-name {q(cfg['FUNCTION_NAME'])}"
        " --query 'Configuration.[RevisionId, CodeSha256]' --output text",
    )
    return into(file, look)


def only(revision: str) -> str:
    return f' --revision-id "$(cut -f1 {q(revision)})"'


def tags(made) -> str:
    """The digest of a bundle is the same on every host, and counts only for the very zip it was sent with."""
    return f"bundle-digest={made.digest},bundle-sha256={made.sha256}"


def tag_function(cfg, arn, made):
    return aws(cfg, f"lambda tag-resource --resource {q(arn)} --tags {tags(made)}")


def wait_until_updated(cfg):
    return aws(cfg, f"lambda wait function-updated-v2 --function-name {q(cfg['FUNCTION_NAME'])}")


def wait_until_active(cfg):
    return aws(cfg, f"lambda wait function-active-v2 --function-name {q(cfg['FUNCTION_NAME'])}")


def publish_version(cfg, description, revision):
    return aws(
        cfg,
        f"lambda publish-version --function-name {q(cfg['FUNCTION_NAME'])} --description {q(description)}"
        f"{only(revision)}{QUIET}",
    )


def list_versions(cfg):
    return aws(cfg, f"lambda list-versions-by-function --function-name {q(cfg['FUNCTION_NAME'])}")


def get_alias(cfg):
    return aws(cfg, f"lambda get-alias --function-name {q(cfg['FUNCTION_NAME'])} --name live")


def save_alias_revision(cfg, file):
    return into(file, f"{get_alias(cfg)} --query '[RevisionId, FunctionVersion]' --output text")


def move_alias(cfg, verb, version, description=None, revision=""):
    """verb: create or update; description: None where it stays, or none is needed."""
    described = "" if description is None else f" --description {q(description)}"
    return aws(
        cfg,
        f"lambda {verb}-alias --function-name {q(cfg['FUNCTION_NAME'])} --name live --function-version {q(version)}"
        f"{described}{only(revision) if revision else ''}",
    )


def list_aliases(cfg):
    return aws(cfg, f"lambda list-aliases --function-name {q(cfg['FUNCTION_NAME'])}")


def delete_version(cfg, version):
    return aws(cfg, f"lambda delete-function --function-name {q(cfg['FUNCTION_NAME'])} --qualifier {q(version)}")


def delete_function(cfg):
    return aws(cfg, f"lambda delete-function --function-name {q(cfg['FUNCTION_NAME'])}")


def make_environment(env, file):
    """The variables as the environment says, into a file of mode 0600."""
    return f"(umask 077 && inv env.json --env {q(env)} > {q(file)})"


def save_environment(cfg, version, file):
    """The variables of a published version, from AWS into a file of mode 0600 without a look at them."""
    look = aws(
        cfg,
        f"lambda get-function-configuration --function-name {q(cfg['FUNCTION_NAME'])} --qualifier {q(version)}"
        " --query '{Variables: Environment.Variables}' --output json",
    )
    return f"(umask 077 && {look} > {q(file)})"


def save_code(cfg, version, file):
    """The zip of a published version; its address is a key to it for ten minutes, so it is no argument either."""
    look = aws(
        cfg,
        f"lambda get-function --function-name {q(cfg['FUNCTION_NAME'])} --qualifier {q(version)}"
        " --query Code.Location --output text",
    )
    return f"{look} | sed 's/.*/url = \"&\"/' | curl -sSf -K - -o {q(file)}"


def get_concurrency(cfg):
    return aws(
        cfg,
        f"lambda get-provisioned-concurrency-config --function-name {q(cfg['FUNCTION_NAME'])} --qualifier live",
    )


def put_concurrency(cfg):
    return aws(
        cfg,
        f"lambda put-provisioned-concurrency-config --function-name {q(cfg['FUNCTION_NAME'])} --qualifier live"
        f" --provisioned-concurrent-executions {q(cfg['PROVISIONED_CONCURRENCY'])}",
    )


def wait_for_concurrency(cfg):
    """The CLI has no waiter for it; some minutes are usual."""
    return f"while {get_concurrency(cfg)} --query Status --output text | grep IN_PROGRESS; do sleep 5; done"


def delete_concurrency(cfg):
    return aws(
        cfg,
        f"lambda delete-provisioned-concurrency-config --function-name {q(cfg['FUNCTION_NAME'])} --qualifier live",
    )


def register_url(url, version_arn):
    """A URL does not tell which version is behind it: that is written down beside it."""
    return f"restate deployments register {q(url)} --use-http1.1 --force --metadata arn={q(version_arn)} --yes"


def register(cfg, version_arn, again=False):
    role = f" --assume-role-arn {q(cfg['RESTATE_INVOKE_ROLE_ARN'])}" if cfg["RESTATE_INVOKE_ROLE_ARN"] else ""
    return f"restate deployments register {q(version_arn)}{role}{' --force' if again else ''} --yes"


def save_json(value, file):
    return into(file, f"printf '%s\\n' {q(json.dumps(value))}")


def into(file, command):
    """A command whose answer another one takes from a file in build/."""
    return f"mkdir -p build && {command} > {q(file)}"


def invoke_function(cfg, payload_file, answer_file, qualifier="live", bounds="--cli-read-timeout 60"):
    """bounds: how long the CLI waits."""
    return aws(
        cfg,
        f"lambda invoke --function-name {q(cfg['FUNCTION_NAME'])}:{q(qualifier)} --payload fileb://{q(payload_file)}"
        f" {bounds} {q(answer_file)}",
    )
