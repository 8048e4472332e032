"""inv env.check | diff | json | shell: check an environment's file, and print it in other formats."""

from __future__ import annotations

import json
import os
import re
import sys
from shlex import quote as q

from invoke import Exit

from handler.settings import REFERENCE
from layer import publish as layers
from ops import config, deploy, environment, limits, ping, references, shell
from ops.config import ENV_HELP
from ops.target import Target
from ops.task import NOTHING, task

SECRETS = {setting.name for setting in config.ALL_SETTINGS if setting.secret}
# Variables of bash that no shell can unset.
READ_ONLY = ("BASHOPTS", "SHELLOPTS")
SHAPE = {"Timeout": "TIMEOUT", "MemorySize": "MEMORY", "Runtime": "RUNTIME", "Layers": "LAYER_VERSION_ARN"}


@task(group="set up", changes=NOTHING, name="json", help=ENV_HELP)
def json_(c, env):
    """Print the function's part of an environment as JSON, secrets included, for a file of mode 0600."""
    target = deploy.completed(Target.load(c, env))
    print(json.dumps({"Variables": config.function_environment(target.cfg)}, indent=2))


@task(group="set up", changes=NOTHING, help=ENV_HELP)
def check(c, env):
    """Check an environment's file as a deploy does: keys, values and AWS's limits. It sends nothing."""
    target = Target.load(c, env)
    kept = config.left_out(env)
    variables = {name: value for name, value in config.function_environment(target.cfg).items() if name not in kept}
    limits.check(target)
    beside = f" and keeps its own {', '.join(kept)}" if kept else ""
    print(f"{env}: env/{env}.env is valid; the function gets {len(variables)} variables{beside}")


@task(group="set up", changes=NOTHING, uses=("aws",), help=ENV_HELP)
def diff(c, env):
    """Show the differences between the live version and the file; of a secret only that it differs."""
    target = Target.load(c, env)
    live = target.query_json(ping.get_configuration(target.cfg), missing="ResourceNotFoundException")
    if not live:
        raise Exit(f"{env}: {target.cfg['FUNCTION_NAME']} has no live version; run `inv deploy --env {env}`")
    target = deploy.completed(target)
    parts = deploy.differs_from_file(target, live)
    for part in parts:
        print(describe(part, live, target.cfg))
    print(f"{env}: {len(parts) or 'nothing'} {'differs' if len(parts) < 2 else 'differ'}")


def describe(part: str, there: dict, cfg: dict) -> str:
    """Return one line on a part that differs, never the value of a secret; a reference is no secret."""
    if part in SHAPE:
        return f"{part}: the function has {there.get(part)}, the file {cfg[SHAPE[part]]}"
    given = there.get("Environment", {}).get("Variables", {})
    wanted = config.function_environment(cfg)
    if part in SECRETS:
        if not any(references.named({part: one[part]}) for one in (given, wanted) if part in one):
            return f"{part}: differs"
        present, new = (masked(one.get(part)) for one in (given, wanted))
        return f"{part}: the function has {present}, the file {new}"
    # A variable that is not a setting can be a secret.
    present = "one" if part not in wanted else repr(given.get(part, "nothing"))
    return f"{part}: the function has {present}, the file {wanted.get(part, 'nothing')!r}"


def masked(value: str | None) -> str:
    """Return a reference as it is, and of another secret only that there is one."""
    return "nothing" if not value else repr(value) if REFERENCE.fullmatch(value) else "a plain value"


@task(group="set up", changes=NOTHING, name="shell", help=ENV_HELP)
def export(c, env):
    """Print an environment as exports for copied commands; Restate's API key is among them.

    A shell with them starts its commands in the same environment as the tasks do.
    """
    target = Target.load(c, env)
    known = {setting.name: target.cfg[setting.name] for setting in config.DEPLOY_SETTINGS}
    known |= references.named(target.cfg)
    try:
        known["LAYER_VERSION_ARN"] = layers.attached(target)
    except Exit as error:
        # An empty value would detach the function's layer.
        del known["LAYER_VERSION_ARN"]
        print(f"{error}\nLAYER_VERSION_ARN is left out.", file=sys.stderr)
    # The AWS CLI uses an empty variable of its own as a value.
    given = {name: value for name, value in known.items() if value or not name.startswith("AWS_")}
    wanted = {**os.environ, "ENV": env, **given}
    wanted = environment.of_target(target.cfg, wanted) | {"PATH": shell.command_environment(target.cfg)["PATH"]}
    for name in environment.difference(os.environ, wanted):
        # Functions that bash exports are not variables of the shell; they stay there.
        if re.fullmatch(r"\w+", name, re.ASCII) and name not in READ_ONLY:
            print(f"export {name}={q(wanted[name])}" if name in wanted else f"unset {name}")
