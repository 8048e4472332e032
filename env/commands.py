"""The AWS and restate commands of a deploy as they are pasted: each function only returns its text."""

from __future__ import annotations

from shlex import quote as q

from env import shipping
from env.doors import aws


def get_function(cfg):
    return aws(cfg, f"lambda get-function --function-name {q(cfg['FUNCTION_NAME'])}")


def shape(cfg, role_arn, environment_file):
    # Without a value the option detaches all.
    layer = cfg["LAYER_VERSION_ARN"] and q(cfg["LAYER_VERSION_ARN"])
    return (
        f"--runtime {q(cfg['RUNTIME'])} --handler handler.app.handler --role {q(role_arn)}"
        f" --timeout {q(cfg['TIMEOUT'])} --memory-size {q(cfg['MEMORY'])}"
        f" --environment file://{q(environment_file)} --layers {layer}"
    )


def create_function(cfg, role_arn, environment_file, made):
    return aws(
        cfg,
        f"lambda create-function --function-name {q(cfg['FUNCTION_NAME'])} {shipping.code_to_create(cfg, made)}"
        f" {shape(cfg, role_arn, environment_file)} --tags bundle-digest={made.digest}",
    )


def update_code(cfg, made):
    return aws(
        cfg,
        f"lambda update-function-code --function-name {q(cfg['FUNCTION_NAME'])} {shipping.code_to_update(cfg, made)}",
    )


def update_configuration(cfg, role_arn, environment_file):
    return aws(
        cfg,
        f"lambda update-function-configuration --function-name {q(cfg['FUNCTION_NAME'])}"
        f" {shape(cfg, role_arn, environment_file)}",
    )


def tag_function(cfg, arn, digest):
    return aws(cfg, f"lambda tag-resource --resource {q(arn)} --tags bundle-digest={digest}")


def wait_until_updated(cfg):
    return aws(cfg, f"lambda wait function-updated-v2 --function-name {q(cfg['FUNCTION_NAME'])}")


def wait_until_active(cfg):
    return aws(cfg, f"lambda wait function-active-v2 --function-name {q(cfg['FUNCTION_NAME'])}")


def publish_version(cfg, digest):
    return aws(
        cfg,
        f"lambda publish-version --function-name {q(cfg['FUNCTION_NAME'])} --description {digest[:12]}",
    )


def list_versions(cfg):
    return aws(cfg, f"lambda list-versions-by-function --function-name {q(cfg['FUNCTION_NAME'])}")


def get_alias(cfg):
    return aws(cfg, f"lambda get-alias --function-name {q(cfg['FUNCTION_NAME'])} --name live")


def move_alias(cfg, verb, version):
    return aws(
        cfg,
        f"lambda {verb}-alias --function-name {q(cfg['FUNCTION_NAME'])} --name live --function-version {q(version)}",
    )


def register(cfg, version_arn):
    role = f" --assume-role-arn {q(cfg['RESTATE_INVOKE_ROLE_ARN'])}" if cfg["RESTATE_INVOKE_ROLE_ARN"] else ""
    return f"restate deployments register {q(version_arn)}{role} --yes"


def invoke_function(cfg, payload_file, answer_file):
    return aws(
        cfg,
        f"lambda invoke --function-name {q(cfg['FUNCTION_NAME'])}:live --payload fileb://{q(payload_file)}"
        f" --cli-read-timeout 60 {q(answer_file)}",
    )
