"""The bundle's way to AWS: within its limits, and through a bucket where it is too large for a direct upload."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote as q

from ops import bundle as bundles
from ops import config, limits, packages
from ops.bundle import Bundle
from ops.shell import aws
from ops.target import Target
from ops.task import NOTHING, task


@task(group="deploy", changes=NOTHING, help=config.ENV_HELP)
def bundle(c, env):
    """Make build/lambda.zip: handler/ and its dependencies for the environment's runtime."""
    make(config.load(env))


@task(group="develop", changes=NOTHING)
def lock(c):
    """Renew handler/requirements.txt, the pins and hashes of what handler/requirements.in asks for."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with c.cd(str(packages.ROOT)):
        c.run(packages.lock_command(), echo=True, env={"PATH": path})


def copy_to_bucket(cfg, made: Bundle) -> str:
    return aws(cfg, f"s3 cp --only-show-errors {made.file} s3://{q(cfg['DEPLOY_BUCKET'])}/{q(key(cfg, made))}")


def get_layer_version(cfg, arn: str) -> str:
    return aws(cfg, f"lambda get-layer-version-by-arn --arn {q(arn)}")


def code_to_create(cfg, made: Bundle) -> str:
    if made.size > limits.DIRECT_BYTES:
        return f"--code S3Bucket={q(cfg['DEPLOY_BUCKET'])},S3Key={q(key(cfg, made))}"
    return f"--zip-file fileb://{made.file}"


def code_to_update(cfg, made: Bundle) -> str:
    if made.size > limits.DIRECT_BYTES:
        return f"--s3-bucket {q(cfg['DEPLOY_BUCKET'])} --s3-key {q(key(cfg, made))}"
    return f"--zip-file fileb://{made.file}"


def key(cfg, made: Bundle) -> str:
    return f"{cfg['FUNCTION_NAME']}/{made.sha256}.zip"


def make(cfg) -> Bundle:
    """Have the bundle of an environment, within the limits that it must keep alone; raises Exit."""
    made = bundles.make(cfg)
    known_as = f"digest {made.digest[:12]}  {made.remark}, {made.bytecode}"
    print(f"bundle    build/lambda.zip  {made.size / 1e6:.1f} MB  {known_as}")
    limits.check_bundle(made.size, made.unzipped, cfg["DEPLOY_BUCKET"], {})
    return made


def check_with_layers(target: Target, made: Bundle, attached: list[str]) -> None:
    """The limit with the layers that are there while the code is sent, and with the one that comes; raises Exit."""
    coming = [arn for arn in [target.cfg["LAYER_VERSION_ARN"]] if arn]
    sizes = layer_sizes(target, sorted({*attached, *coming}))
    for arns in (attached, coming):
        measured = {arn: sizes[arn] for arn in arns if arn in sizes}
        limits.check_bundle(made.size, made.unzipped, target.cfg["DEPLOY_BUCKET"], measured)


def bring_to_bucket(target: Target, made: Bundle) -> None:
    """What is too large for a direct upload goes ahead of the command that names it."""
    if made.size > limits.DIRECT_BYTES:
        target.execute(copy_to_bucket(target.cfg, made))


def layer_sizes(target: Target, arns: list[str]) -> dict[str, int]:
    """ARN -> bytes unzipped; a layer that cannot be measured is AWS's to check."""
    sizes = {}
    for arn in arns:
        found = target.query_json(get_layer_version(target.cfg, arn), missing="Exception")
        try:
            sizes[arn] = limits.unzipped_behind(found["Content"]["Location"] if found else "")
        except (OSError, ValueError) as error:
            print(f"the size of {arn} cannot be read ({error}): the bundle is checked without it")
    return sizes
