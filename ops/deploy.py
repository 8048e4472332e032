"""The deploy: each step looks, changes what differs, and is done again without harm."""

from __future__ import annotations

import base64
import contextlib
from shlex import quote as q

from invoke import Exit

from layer import publish as layers
from ops import commands, config, function_url, limits, logs, ping, release, roles, schedule, shell, upload
from ops.config import ENV_HELP
from ops.shell import ROOT
from ops.target import Target
from ops.task import ENVIRONMENT, task


@task(group="deploy", changes=ENVIRONMENT, help={**ENV_HELP, "breaking": "accept that handlers are removed or renamed"})
def deploy(c, env, breaking=False):
    """Bring the function of an environment in step with this checkout and register it with Restate."""
    target = Target.load(c, env)
    print(target.headline)
    before = shell.changes
    target = completed(target)
    limits.check_environment(config.function_environment(target.cfg))
    # Before anything is touched: a version that cannot be registered is none.
    release.deployments(target.cfg)
    with shell.looking_ahead(c, target.cfg, look_ups(target.cfg)):
        target = target.having(LAYER_VERSION_ARN=layers.attached(target))
        shell.announce(f"inv bundle --env {q(env)}")
        made = upload.make(target.cfg)
        role_arn = roles.ensure_execution_role(target)
        configuration = ensure_function(target, role_arn, made)
        ensure_log(target)
        version_arn = ensure_version(target, configuration, ping.description(made.digest))
        release.take(target, version_arn, breaking, before)
    summary(target, version_arn, before)
    schedule.remind(target)


@task(group="set up", changes=ENVIRONMENT, help=ENV_HELP)
def schema(c, env):
    """Create what is missing of the service's own tables, through the function."""
    answer = release.invoke_event(Target.load(c, env), {"schema": True})
    print(f"{env}: closing_runs is in schema {answer['schema']}" if answer else f"{env}: a rehearsal")


def look_ups(cfg) -> list[str]:
    """What a deploy with nothing to change asks of AWS."""
    role = cfg["ROLE_NAME"]
    policies = [roles.get_role_policy(cfg, role, name) for name in roles.execution_policies(cfg)]
    newest = cfg["ORACLE_CLIENT"] == "thick" and not cfg["LAYER_VERSION_ARN"]
    layer = [layers.list_layer_versions(cfg)] if newest else []
    log = [logs.describe_log_groups(cfg)] if cfg["LOG_RETENTION_DAYS"] else []
    ready = [commands.get_concurrency(cfg)] if int(cfg["PROVISIONED_CONCURRENCY"]) else []
    url = [function_url.get_url(cfg), function_url.get_policy(cfg)] if release.by_url(cfg) else []
    function = [commands.get_function(cfg), commands.list_versions(cfg), commands.get_alias(cfg)]
    return [*layer, roles.get_role(cfg, role), *policies, *function, *log, *ready, *url]


def completed(target: Target) -> Target:
    """The settings with what the file leaves to the function, as in CI, where no secret is at hand; never shown."""
    cfg, env = target.cfg, target.env
    names = config.left_out(env)
    if not names:
        return target
    found = target.query_json(commands.get_function(cfg), missing="ResourceNotFoundException")
    there = found["Configuration"].get("Environment", {}).get("Variables", {}) if found else {}
    lacking = [setting.name for setting in config.required(names) if setting.name not in there]
    if lacking:
        whose = f"{cfg['FUNCTION_NAME']} has none to keep" if found else f"there is no {cfg['FUNCTION_NAME']} yet"
        raise Exit(
            f"env/{env}.env has no value of {', '.join(lacking)}, and {whose}; deploy once from where the values are."
            " Nothing was touched."
        )
    return target.having(**{name: there[name] for name in names if name in there})


def summary(target: Target, version_arn, before) -> None:
    env = target.env
    if target.dry:
        print(f"{env}: this was a rehearsal, nothing was changed")
    elif shell.changes > before:
        print(f"{env}: {version_arn} is live")
    else:
        print(f"{env}: nothing changed; {version_arn} is live")


def ensure_function(target: Target, role_arn, made) -> dict:
    """Create the function or bring code and configuration up to date; returns its configuration then.

    Under --dry a changed function has no configuration yet: {}.
    """
    found = target.query_json(commands.get_function(target.cfg), missing="ResourceNotFoundException")
    before = shell.changes
    if found:
        update_function(target, role_arn, made, found)
    else:
        upload.check_with_layers(target, made, [])
        upload.bring_to_bucket(target, made)
        with environment_file(target) as file:
            target.execute(commands.create_function(target.cfg, role_arn, file, made))
        target.execute(commands.wait_until_active(target.cfg))
    if shell.changes == before:
        return found["Configuration"]
    return {} if target.dry else target.query_json(commands.get_function(target.cfg))["Configuration"]


def update_function(target: Target, role_arn, made, found) -> None:
    cfg, env = target.cfg, target.env
    configuration = expected = found["Configuration"]
    shaped, new_code = differs(configuration, cfg, role_arn), not carries(found, made)
    if new_code or "Layers" in shaped:
        upload.check_with_layers(target, made, layers_of(configuration))
    if new_code:
        upload.bring_to_bucket(target, made)
        target.execute(commands.update_code(cfg, made, revision(target, expected)))
        target.execute(commands.wait_until_updated(cfg))
        target.execute(commands.tag_function(cfg, configuration["FunctionArn"], made))
        expected = {"CodeSha256": as_aws(made.sha256)}
    if shaped:
        print(f"the configuration differs in {', '.join(shaped)}")
        with environment_file(target) as file:
            now = revision(target, expected)
            target.execute(commands.update_configuration(cfg, role_arn, file, now, in_vpc(configuration)))
        target.execute(commands.wait_until_updated(cfg))
        if in_vpc(configuration) and not cfg["VPC_SUBNET_IDS"]:
            print(f"{env}: the policy lambda-vpc stays with {cfg['ROLE_NAME']} for the versions that are in the VPC;")
            print(f"{env}: `inv prune` takes it away with the last of them")


def ensure_log(target: Target) -> None:
    """Keep the function's log as long as the environment says; Lambda's own way keeps it for ever."""
    if not target.cfg["LOG_RETENTION_DAYS"]:
        return
    group = logs.find_log_group(target)
    if not group:
        target.execute(logs.create_log_group(target.cfg))
    if not group or str(group.get("retentionInDays", "")) != target.cfg["LOG_RETENTION_DAYS"]:
        target.execute(logs.put_retention_policy(target.cfg))


def in_vpc(configuration: dict) -> bool:
    return network_of(configuration) != [[], []]


def network_of(configuration: dict) -> list[list[str]]:
    """Subnets and security groups, whose order AWS does not keep."""
    given = configuration.get("VpcConfig") or {}
    return [sorted(given.get(key) or []) for key in ("SubnetIds", "SecurityGroupIds")]


def carries(found: dict, made) -> bool:
    """Whether a function has a bundle: by its digest, as long as the zip that it was written down for is there."""
    tags = found.get("Tags", {})
    there = found["Configuration"]["CodeSha256"] == as_aws(tags.get("bundle-sha256", ""))
    return there and tags.get("bundle-digest") == made.digest


def as_aws(sha256: str) -> str:
    """A checksum in hexadecimal as AWS writes it."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def revision(target: Target, expected: dict) -> str:
    """The file with the function's revision, which the next command is bound to; a finished update changes it.

    expected: a configuration of the function, or its CodeSha256 alone; Exit where it is another one by now.
    """
    file = "build/revision"
    target.run_local(commands.save_revision(target.cfg, file))
    if not target.dry:
        found = dict(zip(("RevisionId", "CodeSha256"), (ROOT / file).read_text().split()))
        if any(expected.get(key, value) != value for key, value in found.items()):
            raise Exit("somebody else has changed the function meanwhile; nothing was published. Run it again")
    return file


@contextlib.contextmanager
def environment_file(target: Target, version=""):
    """The function's environment in a file of mode 0600 while a command needs it: no secret is ever an argument.

    version: the published one that it is taken from; default: as the environment says.
    """
    file = f"build/{target.env}.environment.json"
    make = (
        commands.save_environment(target.cfg, version, file) if version else commands.make_environment(target.env, file)
    )
    try:
        target.run_local(make)
        yield file
    finally:
        target.run_local(f"rm -f {q(file)}")


def differs(configuration: dict, cfg: dict, role_arn: str) -> list[str]:
    """Which parts of a function's configuration are not as the environment says; never a value of them."""
    wanted = {
        "Runtime": cfg["RUNTIME"],
        "Role": role_arn,
        "Timeout": int(cfg["TIMEOUT"]),
        "MemorySize": int(cfg["MEMORY"]),
        "Handler": "handler.app.handler",
    }
    parts = [key for key, value in wanted.items() if configuration.get(key) != value]
    parts += ["Layers"] if layers_of(configuration) != [arn for arn in [cfg["LAYER_VERSION_ARN"]] if arn] else []
    named = {"SubnetIds": listed(cfg["VPC_SUBNET_IDS"]), "SecurityGroupIds": listed(cfg["VPC_SECURITY_GROUP_IDS"])}
    parts += ["VpcConfig"] if network_of(configuration) != network_of({"VpcConfig": named}) else []
    given = configuration.get("Environment", {}).get("Variables", {})
    wanted_variables = config.function_environment(cfg)
    return parts + [key for key in sorted({*given, *wanted_variables}) if given.get(key) != wanted_variables.get(key)]


def layers_of(configuration: dict) -> list[str]:
    return [one["Arn"] for one in configuration.get("Layers") or []]


def listed(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


# What makes two versions different; a version takes all of it from the function at the moment it is published.
PUBLISHED = ("CodeSha256", "Environment", "Runtime", "Role", "Timeout", "MemorySize", "Handler", "Layers")


def ensure_version(target: Target, configuration, description) -> str:
    """Publish the function as a numbered version unless the newest one is the same; returns the version's ARN."""
    numbered = versions_of(target)
    if numbered and same(numbered[-1], configuration):
        return numbered[-1]["FunctionArn"]
    published = target.execute(commands.publish_version(target.cfg, description, revision(target, configuration)))
    return published or f"{target.cfg['FUNCTION_NAME']}:NEXT"


def versions_of(target: Target) -> list[dict]:
    """The numbered versions of the function, the oldest first."""
    found = target.query_json(commands.list_versions(target.cfg), missing="ResourceNotFoundException") or {
        "Versions": []
    }
    return sorted((one for one in found["Versions"] if one["Version"] != "$LATEST"), key=lambda v: int(v["Version"]))


def same(version: dict, other: dict) -> bool:
    return all(version.get(key) == other.get(key) for key in PUBLISHED) and network_of(version) == network_of(other)
