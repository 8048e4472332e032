"""The Instant Client layer as tasks: inv layer.build | publish | list | prune."""

from __future__ import annotations

import os

from invoke import Exit

from layer import build as builds
from layer import publish as publishing
from ops import config
from ops.config import ENV_HELP
from ops.target import Target
from ops.task import ENVIRONMENT, NOTHING, task

DEFAULT_RUNTIME = next(one.default for one in config.DEPLOY_SETTINGS if one.name == "RUNTIME")


@task(group="layer", changes=NOTHING, help={"runtime": f"the function's runtime; default {DEFAULT_RUNTIME}"})
def build(c, runtime=DEFAULT_RUNTIME):
    """Make build/oracle-instantclient-layer.zip from the ZIP that INSTANT_CLIENT names, or from the pinned one."""
    insist = os.environ.get("INSTANT_CLIENT_ANY") == "1"
    builds.build(os.environ.get("INSTANT_CLIENT", ""), runtime, insist)


@task(group="layer", changes=ENVIRONMENT, uses=("aws",), help=ENV_HELP)
def publish(c, env):
    """Publish the layer at build/ as a new version, unless the newest version is the same."""
    target = Target.load(c, env)
    print(f"{env}: layer {target.cfg['LAYER_NAME']} in {target.cfg['AWS_REGION']}")
    publishing.publish(target)


@task(group="layer", changes=NOTHING, uses=("aws",), name="list", help=ENV_HELP)
def list_(c, env):
    """Show the layer's versions, the newest first, and which of them a function version uses."""
    target = Target.load(c, env)
    found = publishing.versions(target)
    if not found:
        print(f"{env}: {target.cfg['AWS_REGION']} has no version of {target.cfg['LAYER_NAME']}")
        return
    in_use = publishing.used(target)
    for one in found:
        mark = "used  " if one["LayerVersionArn"] in in_use else "unused"
        print(f"{one['LayerVersionArn']}  {one['CreatedDate'][:19]}  {mark}  {one.get('Description', '')}")


@task(
    group="layer",
    changes=ENVIRONMENT,
    uses=("aws",),
    help={**ENV_HELP, "keep": "how many of the newest versions stay in any case"},
)
def prune(c, env, keep):
    """Delete old versions of the layer; never one that a version of a function uses."""
    if not keep.isdigit() or int(keep) < 1:
        raise Exit(f"--keep {keep!r}: expected a number from 1; the newest version always stays. Nothing was deleted.")
    target = Target.load(c, env)
    print(f"{env}: layer {target.cfg['LAYER_NAME']} in {target.cfg['AWS_REGION']}")
    removed = publishing.prune(target, int(keep))
    done = "would be deleted" if target.dry else "deleted"
    print(f"{env}: {len(removed)} {done}")
