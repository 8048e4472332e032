"""The layer at AWS: its versions, a new one, and the removal of old ones that nothing uses."""

from __future__ import annotations

import json
from shlex import quote as q

from invoke import Exit

from layer.build import LAYER, ROOT, about_layer
from ops.shell import aws
from ops.target import Target

FILE = LAYER.relative_to(ROOT)
# AWS takes at most this much in a request, and the request is the ZIP in base64.
DIRECT_LIMIT = 50_000_000


def list_layer_versions(cfg):
    return aws(cfg, f"lambda list-layer-versions --layer-name {q(cfg['LAYER_NAME'])}")


def publish_layer_version(cfg, about, content):
    return aws(
        cfg,
        f"lambda publish-layer-version --layer-name {q(cfg['LAYER_NAME'])} {content}"
        f" --description {q(description(about))} --compatible-runtimes {' '.join(about['runtimes'])}"
        " --compatible-architectures x86_64",
    )


def upload_layer(cfg, key):
    return aws(cfg, f"s3 cp --only-show-errors {FILE} s3://{q(cfg['DEPLOY_BUCKET'])}/{key}")


def remove_upload(cfg, key):
    return aws(cfg, f"s3 rm --only-show-errors s3://{q(cfg['DEPLOY_BUCKET'])}/{key}")


def delete_layer_version(cfg, number):
    return aws(cfg, f"lambda delete-layer-version --layer-name {q(cfg['LAYER_NAME'])} --version-number {number}")


def list_all_versions(cfg):
    return aws(cfg, "lambda list-functions --function-version ALL")


def description(about: dict) -> str:
    """At most 256 characters; its end is what tells whether two versions are the same."""
    return f"Instant Client {about['client']} {about['kind']}; zip sha256 {about['zip']}; content {about['content']}"


def content_of(version: dict) -> str:
    return version.get("Description", "").rpartition("; content ")[2]


def versions(target: Target) -> list[dict]:
    """The layer's versions, the newest first; none where there is no such layer."""
    found = target.query_json(list_layer_versions(target.cfg), missing="ResourceNotFoundException") or {
        "LayerVersions": []
    }
    return sorted(found["LayerVersions"], key=lambda one: one["Version"], reverse=True)


def attached(target: Target) -> str:
    """The ARN of the layer version that the function shall have: the pinned or the newest one, "" for thin mode.

    Raises Exit where the function needs one that was never published.
    """
    cfg, env = target.cfg, target.env
    if cfg["LAYER_VERSION_ARN"] or cfg["ORACLE_CLIENT"] != "thick":
        return cfg["LAYER_VERSION_ARN"]
    found = versions(target)
    if not found:
        raise Exit(
            f"{env}: ORACLE_CLIENT=thick needs the layer {cfg['LAYER_NAME']}, and {cfg['AWS_REGION']} has no version of"
            f" it; publish it with `make layer publish ENV={env}`, then deploy. Nothing was touched."
        )
    suits = found[0].get("CompatibleRuntimes") or [cfg["RUNTIME"]]
    if cfg["RUNTIME"] not in suits:
        raise Exit(
            f"{env}: RUNTIME is {cfg['RUNTIME']}, and {found[0]['LayerVersionArn']} was made for {', '.join(suits)};"
            f" publish one for it with `make layer publish ENV={env} RUNTIME={cfg['RUNTIME']}`. Nothing was touched."
        )
    return found[0]["LayerVersionArn"]


def publish(target: Target) -> str:
    """Publish the layer at build/ unless the newest version is the same; returns that version's ARN."""
    cfg, env = target.cfg, target.env
    about = about_layer()
    if cfg["RUNTIME"] not in about["runtimes"]:
        raise Exit(
            f"{env}: RUNTIME is {cfg['RUNTIME']}, and {FILE} needs glibc {about['glibc']}, which it does not have;"
            f" build it again with `inv layer.build --runtime {cfg['RUNTIME']}`. Nothing was published."
        )
    newest = next(iter(versions(target)), None)
    if newest and content_of(newest) == about["content"]:
        print(f"already published, nothing was changed\n{newest['LayerVersionArn']}")
        return newest["LayerVersionArn"]
    if LAYER.stat().st_size > DIRECT_LIMIT:
        said = publish_by_bucket(target, about)
    else:
        said = target.execute(publish_layer_version(cfg, about, f"--zip-file fileb://{FILE}"))
    if not said:
        print(f"{env}: dry run, nothing was published")
        return ""
    arn = json.loads(said)["LayerVersionArn"]
    print(arn)
    return arn


def publish_by_bucket(target: Target, about) -> str:
    """AWS takes a large ZIP from S3 alone; it makes a copy, so ours need not stay."""
    cfg, env = target.cfg, target.env
    if not cfg["DEPLOY_BUCKET"]:
        raise Exit(
            f"{env}: {FILE} has {LAYER.stat().st_size / 1e6:.0f} MB, and above {DIRECT_LIMIT / 1e6:.0f} MB AWS takes it"
            " only through S3; name a bucket in DEPLOY_BUCKET. Nothing was published."
        )
    key = f"{cfg['LAYER_NAME']}/{about['content']}.zip"
    target.execute(upload_layer(cfg, key))
    try:
        content = f"--content S3Bucket={q(cfg['DEPLOY_BUCKET'])},S3Key={key}"
        return target.execute(publish_layer_version(cfg, about, content))
    finally:
        target.execute(remove_upload(cfg, key))


def used(target: Target) -> set[str]:
    """The ARNs of all layer versions that a version of any function of the account and region has attached."""
    functions = (target.query_json(list_all_versions(target.cfg)) or {}).get("Functions", [])
    return {one["Arn"] for function in functions for one in function.get("Layers", [])}


def prune(target: Target, keep: int) -> list[str]:
    """Delete the layer's versions but for the newest ones, the pinned one, and those in use; returns the deleted."""
    in_use = used(target) | {target.cfg["LAYER_VERSION_ARN"]}
    removed = []
    for version in versions(target)[keep:]:
        arn = version["LayerVersionArn"]
        if arn in in_use:
            print(f"{arn} stays: a function version uses it")
            continue
        target.execute(delete_layer_version(target.cfg, version["Version"]))
        removed.append(arn)
    return removed
