"""The deploy: each step looks, changes what differs, and is done again without harm."""

from __future__ import annotations

import base64
import contextlib
from shlex import quote as q

from invoke import Exit

from layer import publish as layers
from ops import commands, config, function_url, limits, ping, release, roles, schedule, shell, upload
from ops.config import ENV_HELP
from ops.logs import find_group
from ops.shell import ROOT, execute, query_json, run_local
from ops.task import ENVIRONMENT, task


@task(group="deploy", changes=ENVIRONMENT, help={**ENV_HELP, "breaking": "accept that handlers are removed or renamed"})
def deploy(c, env, breaking=False):
    """Bring the function of an environment in step with this checkout and register it with Restate."""
    cfg = config.load(env)
    print(f"{env}: function {cfg['FUNCTION_NAME']} in {cfg['AWS_REGION']}, Restate at {cfg['RESTATE_ADMIN_URL']}")
    before = shell.changes
    cfg = completed(c, cfg, env)
    limits.check_environment(config.function_environment(cfg))
    # Before anything is touched: a version that cannot be registered is none.
    release.deployments(cfg)
    with shell.looking_ahead(c, cfg, look_ups(cfg)):
        cfg["LAYER_VERSION_ARN"] = layers.attached(c, cfg, env)
        shell.announce(f"inv bundle --env {q(env)}")
        made = upload.make(cfg)
        role_arn = roles.ensure_execution_role(c, cfg)
        configuration = ensure_function(c, cfg, env, role_arn, made)
        ensure_log(c, cfg)
        version_arn = ensure_version(c, cfg, configuration, ping.description(made.digest))
        release.take(c, cfg, env, version_arn, breaking, before)
    summary(c, env, version_arn, before)
    schedule.reminder(cfg, env)


@task(group="set up", changes=ENVIRONMENT, help=ENV_HELP)
def schema(c, env):
    """Create what is missing of the service's own tables, through the function."""
    answer = release.invoke_event(c, config.load(env), {"schema": True})
    print(f"{env}: closing_runs is in schema {answer['schema']}" if answer else f"{env}: a rehearsal")


def look_ups(cfg) -> list[str]:
    """What a deploy with nothing to change asks of AWS."""
    role = cfg["ROLE_NAME"]
    policies = [roles.get_role_policy(cfg, role, name) for name in roles.execution_policies(cfg)]
    newest = cfg["ORACLE_CLIENT"] == "thick" and not cfg["LAYER_VERSION_ARN"]
    layer = [layers.list_layer_versions(cfg)] if newest else []
    log = [commands.find_log_group(cfg)] if cfg["LOG_RETENTION_DAYS"] else []
    ready = [commands.get_concurrency(cfg)] if int(cfg["PROVISIONED_CONCURRENCY"]) else []
    url = [function_url.get_url(cfg), function_url.get_policy(cfg)] if release.by_url(cfg) else []
    function = [commands.get_function(cfg), commands.list_versions(cfg), commands.get_alias(cfg)]
    return [*layer, roles.get_role(cfg, role), *policies, *function, *log, *ready, *url]


def completed(c, cfg, env) -> dict:
    """The settings with what the file leaves to the function, as in CI, where no secret is at hand; never shown."""
    names = config.left_out(env)
    if not names:
        return cfg
    found = query_json(c, cfg, commands.get_function(cfg), missing="ResourceNotFoundException")
    there = found["Configuration"].get("Environment", {}).get("Variables", {}) if found else {}
    lacking = [setting.name for setting in config.required(names) if setting.name not in there]
    if lacking:
        whose = f"{cfg['FUNCTION_NAME']} has none to keep" if found else f"there is no {cfg['FUNCTION_NAME']} yet"
        raise Exit(
            f"env/{env}.env has no value of {', '.join(lacking)}, and {whose}; deploy once from where the values are."
            " Nothing was touched."
        )
    return {**cfg, **{name: there[name] for name in names if name in there}}


def summary(c, env, version_arn, before) -> None:
    if c.config.run.dry:
        print(f"{env}: this was a rehearsal, nothing was changed")
    elif shell.changes > before:
        print(f"{env}: {version_arn} is live")
    else:
        print(f"{env}: nothing changed; {version_arn} is live")


def ensure_function(c, cfg, env, role_arn, made) -> dict:
    """Create the function or bring code and configuration up to date; returns its configuration then.

    Under --dry a changed function has no configuration yet: {}.
    """
    found = query_json(c, cfg, commands.get_function(cfg), missing="ResourceNotFoundException")
    before = shell.changes
    if found:
        update_function(c, cfg, env, role_arn, made, found)
    else:
        upload.check_with_layers(c, cfg, made, [])
        upload.bring_to_bucket(c, cfg, made)
        with environment_file(c, cfg, env) as file:
            execute(c, cfg, commands.create_function(cfg, role_arn, file, made))
        execute(c, cfg, commands.wait_until_active(cfg))
    if shell.changes == before:
        return found["Configuration"]
    return {} if c.config.run.dry else query_json(c, cfg, commands.get_function(cfg))["Configuration"]


def update_function(c, cfg, env, role_arn, made, found) -> None:
    configuration = expected = found["Configuration"]
    shaped, new_code = differs(configuration, cfg, role_arn), not carries(found, made)
    if new_code or "Layers" in shaped:
        upload.check_with_layers(c, cfg, made, layers_of(configuration))
    if new_code:
        upload.bring_to_bucket(c, cfg, made)
        execute(c, cfg, commands.update_code(cfg, made, revision(c, cfg, expected)))
        execute(c, cfg, commands.wait_until_updated(cfg))
        execute(c, cfg, commands.tag_function(cfg, configuration["FunctionArn"], made))
        expected = {"CodeSha256": as_aws(made.sha256)}
    if shaped:
        print(f"the configuration differs in {', '.join(shaped)}")
        with environment_file(c, cfg, env) as file:
            now = revision(c, cfg, expected)
            execute(c, cfg, commands.update_configuration(cfg, role_arn, file, now, in_vpc(configuration)))
        execute(c, cfg, commands.wait_until_updated(cfg))
        if in_vpc(configuration) and not cfg["VPC_SUBNET_IDS"]:
            print(f"{env}: the policy lambda-vpc stays with {cfg['ROLE_NAME']} for the versions that are in the VPC;")
            print(f"{env}: `inv prune` takes it away with the last of them")


def ensure_log(c, cfg) -> None:
    """Keep the function's log as long as the environment says; Lambda's own way keeps it for ever."""
    if not cfg["LOG_RETENTION_DAYS"]:
        return
    group = find_group(c, cfg)
    if not group:
        execute(c, cfg, commands.create_log_group(cfg))
    if not group or str(group.get("retentionInDays", "")) != cfg["LOG_RETENTION_DAYS"]:
        execute(c, cfg, commands.keep_log(cfg))


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


def revision(c, cfg, expected: dict) -> str:
    """The file with the function's revision, which the next command is bound to; a finished update changes it.

    expected: a configuration of the function, or its CodeSha256 alone; Exit where it is another one by now.
    """
    file = "build/revision"
    run_local(c, cfg, commands.save_revision(cfg, file))
    if not c.config.run.dry:
        found = dict(zip(("RevisionId", "CodeSha256"), (ROOT / file).read_text().split()))
        if any(expected.get(key, value) != value for key, value in found.items()):
            raise Exit("somebody else has changed the function meanwhile; nothing was published. Run it again")
    return file


@contextlib.contextmanager
def environment_file(c, cfg, env, version=""):
    """The function's environment in a file of mode 0600 while a command needs it: no secret is ever an argument.

    version: the published one that it is taken from; default: as the environment says.
    """
    file = f"build/{env}.environment.json"
    make = commands.save_environment(cfg, version, file) if version else commands.make_environment(env, file)
    try:
        run_local(c, cfg, make)
        yield file
    finally:
        run_local(c, cfg, f"rm -f {q(file)}")


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
    target = config.function_environment(cfg)
    return parts + [key for key in sorted({*given, *target}) if given.get(key) != target.get(key)]


def layers_of(configuration: dict) -> list[str]:
    return [one["Arn"] for one in configuration.get("Layers") or []]


def listed(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


# What makes two versions different; a version takes all of it from the function at the moment it is published.
PUBLISHED = ("CodeSha256", "Environment", "Runtime", "Role", "Timeout", "MemorySize", "Handler", "Layers")


def ensure_version(c, cfg, configuration, description) -> str:
    """Publish the function as a numbered version unless the newest one is the same; returns the version's ARN."""
    numbered = versions_of(c, cfg)
    if numbered and same(numbered[-1], configuration):
        return numbered[-1]["FunctionArn"]
    published = execute(c, cfg, commands.publish_version(cfg, description, revision(c, cfg, configuration)))
    return published or f"{cfg['FUNCTION_NAME']}:NEXT"


def versions_of(c, cfg) -> list[dict]:
    """The numbered versions of the function, the oldest first."""
    found = query_json(c, cfg, commands.list_versions(cfg), missing="ResourceNotFoundException") or {"Versions": []}
    return sorted((one for one in found["Versions"] if one["Version"] != "$LATEST"), key=lambda v: int(v["Version"]))


def same(version: dict, other: dict) -> bool:
    return all(version.get(key) == other.get(key) for key in PUBLISHED) and network_of(version) == network_of(other)
