"""The layer at AWS: list its versions, publish a new one, and delete old ones that nothing uses."""

from __future__ import annotations

import json
from shlex import quote as q

from invoke import Exit

from layer import client
from layer.build import LAYER, ROOT, about_layer
from ops.shell import aws
from ops.target import Target

FILE = LAYER.relative_to(ROOT)
# AWS accepts this much in a request, which has the ZIP in base64.
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
    """Return a version's description, at most 256 characters; its end identifies the content."""
    return f"Instant Client {about['client']} {about['kind']}; zip sha256 {about['zip']}; content {about['content']}"


def content_of(version: dict) -> str:
    return version.get("Description", "").rpartition("; content ")[2]


def versions(target: Target) -> list[dict]:
    """Return the layer's versions, the newest first; [] if there is no such layer."""
    found = target.query_json(list_layer_versions(target.cfg), missing="ResourceNotFoundException") or {
        "LayerVersions": []
    }
    return sorted(found["LayerVersions"], key=lambda one: one["Version"], reverse=True)


def attached(target: Target) -> str:
    """Return the ARN of the layer version for the function: the pinned or the newest one, "" for thin mode.

    Raises Exit if the function needs a layer and none was published.
    """
    cfg, env = target.cfg, target.env
    if cfg["LAYER_VERSION_ARN"] or cfg["ORACLE_CLIENT"] != "thick":
        return cfg["LAYER_VERSION_ARN"]
    found = versions(target)
    if not found:
        raise Exit(
            f"{env}: ORACLE_CLIENT=thick needs the layer {cfg['LAYER_NAME']}, and {cfg['AWS_REGION']} has no version of"
            f" it; publish it with `make layer publish ENV={env}`, then deploy. Nothing was changed."
        )
    suitable = found[0].get("CompatibleRuntimes") or [cfg["RUNTIME"]]
    if cfg["RUNTIME"] not in suitable:
        raise Exit(
            f"{env}: RUNTIME is {cfg['RUNTIME']}, and {found[0]['LayerVersionArn']} was made for {', '.join(suitable)};"
            f" publish one for it with `make layer publish ENV={env} RUNTIME={cfg['RUNTIME']}`. Nothing was changed."
        )
    return found[0]["LayerVersionArn"]


def publish(target: Target) -> str:
    """Publish the layer at build/ unless the newest version is the same; returns that version's ARN."""
    cfg, env = target.cfg, target.env
    about = about_layer()
    if cfg["RUNTIME"] not in about["runtimes"]:
        raise Exit(
            f"{env}: RUNTIME is {cfg['RUNTIME']}, and {FILE} needs a newer glibc, {about['glibc']};"
            f" build it again with `inv layer.build --runtime {cfg['RUNTIME']}`. Nothing was published."
        )
    client.check_committed(about["zip"])
    newest = next(iter(versions(target)), None)
    if newest and content_of(newest) == about["content"]:
        print(f"already published, nothing was changed\n{newest['LayerVersionArn']}")
        return newest["LayerVersionArn"]
    if LAYER.stat().st_size > DIRECT_LIMIT:
        output = publish_by_bucket(target, about)
    else:
        output = target.execute(publish_layer_version(cfg, about, f"--zip-file fileb://{FILE}"))
    if not output:
        print(f"{env}: dry run, nothing was published")
        return ""
    arn = json.loads(output)["LayerVersionArn"]
    print(arn)
    return arn


def publish_by_bucket(target: Target, about) -> str:
    """Publish a large ZIP, which AWS only accepts from S3; AWS copies it, so the upload is removed again."""
    cfg, env = target.cfg, target.env
    if not cfg["DEPLOY_BUCKET"]:
        raise Exit(
            f"{env}: {FILE} has {LAYER.stat().st_size / 1e6:.0f} MB, and above {DIRECT_LIMIT / 1e6:.0f} MB AWS accepts"
            " it only through S3; name a bucket in DEPLOY_BUCKET. Nothing was published."
        )
    key = f"{cfg['LAYER_NAME']}/{about['content']}.zip"
    target.execute(upload_layer(cfg, key))
    try:
        content = f"--content S3Bucket={q(cfg['DEPLOY_BUCKET'])},S3Key={key}"
        return target.execute(publish_layer_version(cfg, about, content))
    finally:
        target.execute(remove_upload(cfg, key))


def used(target: Target) -> set[str]:
    """Return the ARNs of all layer versions that a version of any function of the account and region uses."""
    functions = (target.query_json(list_all_versions(target.cfg)) or {}).get("Functions", [])
    return {one["Arn"] for function in functions for one in function.get("Layers", [])}


def prune(target: Target, keep: int) -> list[str]:
    """Delete old versions, except the pinned one and those in use; returns the ARNs of the deleted ones."""
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
