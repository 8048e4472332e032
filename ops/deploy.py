"""inv deploy: bring an environment's function, its role and its log up to date, then release it (release.py).

Each step compares what is there and changes what differs, so a deploy can be repeated at any time.
"""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from shlex import quote as q

from invoke import Exit

from layer import publish as layers
from ops import bundle, config, limits, logs, ping, release, restate, roles, schedule, shell
from ops.alias import bound_to
from ops.bundle import Bundle
from ops.config import ENV_HELP
from ops.shell import ROOT, aws, into
from ops.target import Target
from ops.task import ENVIRONMENT, task

# The settings that can differ between two versions. A version copies them from the function when it is published.
PUBLISHED = ("CodeSha256", "Environment", "Runtime", "Role", "Timeout", "MemorySize", "Handler", "Layers")
# AWS answers with a function's whole environment, which must not appear on the screen of a person who pastes a command.
QUIET = " --query FunctionArn --output text"


@task(
    group="deploy",
    changes=ENVIRONMENT,
    uses=("aws", "restate", "uv"),
    help={**ENV_HELP, "breaking": "accept that handlers are removed or renamed"},
)
def deploy(c, env, breaking=False):
    """Update an environment's function to this checkout and register it with Restate."""
    target = Target.load(c, env)
    print(target.headline)
    before = shell.changes
    target = completed(target)
    limits.check(target)
    # Before any change: a version that cannot be registered is useless.
    restate.deployments(target.cfg)
    target = target.having(LAYER_VERSION_ARN=layers.attached(target))
    shell.announce(f"inv bundle --env {q(env)}")
    made = bundle.make(target.cfg)
    role_arn = roles.ensure_execution_role(target)
    configuration = ensure_function(target, role_arn, made)
    logs.ensure_retention(target)
    version_arn = publish(target, configuration, ping.description(made.digest))
    release.activate(target, version_arn, breaking, before, configuration.get("Tags", {}))
    release.report(target, version_arn, before)
    schedule.remind(target)


@task(group="set up", changes=ENVIRONMENT, uses=("aws",), help=ENV_HELP)
def schema(c, env):
    """Create the missing tables of this service in PostgreSQL, through the function."""
    answer = release.invoke_event(Target.load(c, env), {"schema": True})
    print(f"{env}: closing_runs is in schema {answer['schema']}" if answer else f"{env}: dry run, nothing was changed")


def completed(target: Target) -> Target:
    """Return the target with the values that its file leaves to the function, as in CI, which has no secrets.

    Raises Exit if the function does not have them either. The values are never printed.
    """
    cfg, env = target.cfg, target.env
    names = config.left_out(env)
    if not names:
        return target
    found = target.query_json(get_function(cfg), missing="ResourceNotFoundException")
    present = variables_of(found["Configuration"]) if found else {}
    lacking = [setting.name for setting in config.required(names) if setting.name not in present]
    if lacking:
        cause = f"{cfg['FUNCTION_NAME']} does not have them" if found else f"there is no {cfg['FUNCTION_NAME']} yet"
        raise Exit(
            f"env/{env}.env has no value of {', '.join(lacking)}, and {cause}; deploy once from a machine with them."
            " Nothing was changed."
        )
    return target.having(**{name: present[name] for name in names if name in present})


def ensure_function(target: Target, role_arn: str, made: Bundle) -> dict:
    """Create the function, or update its code and configuration; returns its configuration after that.

    If nothing has changed, the configuration has the function's Tags, too. Under --dry a change returns {}.
    """
    found = target.query_json(get_function(target.cfg), missing="ResourceNotFoundException")
    before = shell.changes
    if found:
        update_function(target, role_arn, made, found)
    else:
        upload(target, made)
        with environment_file(target) as file:
            target.execute(create_function(target.cfg, role_arn, file, made))
        target.execute(wait_until_active(target.cfg))
    if shell.changes == before:
        return {**found["Configuration"], "Tags": found.get("Tags", {})}
    return {} if target.dry else target.query_json(get_function(target.cfg))["Configuration"]


def update_function(target: Target, role_arn: str, made: Bundle, found: dict) -> None:
    """Update what differs: the code, and the configuration. Raises Exit if somebody else changes the function."""
    cfg, configuration = target.cfg, found["Configuration"]
    expected = configuration
    if not carries(found, made):
        upload(target, made)
        target.execute(update_code(cfg, made, save_revision(target, expected)))
        target.execute(wait_until_updated(cfg))
        target.execute(tag_function(cfg, configuration["FunctionArn"], made))
        expected = {"CodeSha256": as_aws(made.sha256)}
    parts = differs(configuration, cfg, role_arn)
    if parts:
        print(f"the configuration differs in {', '.join(parts)}")
        with environment_file(target) as file:
            revision = save_revision(target, expected)
            target.execute(update_configuration(cfg, role_arn, file, revision, in_vpc(configuration)))
        target.execute(wait_until_updated(cfg))
        if in_vpc(configuration) and not cfg["VPC_SUBNET_IDS"]:
            print(
                f"{target.env}: {cfg['ROLE_NAME']} keeps the policy lambda-vpc for the versions that are in the VPC;"
                f" `inv prune --env {target.env} --keep 10` removes it with the last of them"
            )


def upload(target: Target, made: Bundle) -> None:
    """Copy a bundle that is too large for a direct upload to the bucket, before the command that names it there."""
    if made.size > limits.DIRECT_BYTES:
        target.execute(copy_to_bucket(target.cfg, made))


def save_revision(target: Target, expected: dict) -> str:
    """Return a file with the function's revision: AWS refuses the next command if the revision has changed.

    expected: a configuration of the function, or its CodeSha256 alone; raises Exit if the function has another one.
    """
    file = target.scratch("revision")
    target.run_local(get_revision(target.cfg, file))
    if not target.dry:
        found = dict(zip(("RevisionId", "CodeSha256"), (ROOT / file).read_text().split()))
        if any(expected.get(key, value) != value for key, value in found.items()):
            raise Exit("somebody else has changed the function meanwhile; nothing was published. Run it again")
    return file


@contextlib.contextmanager
def environment_file(target: Target):
    """Write the function's variables to a file of mode 0600 while a command needs it: no secret is ever an argument."""
    file = target.scratch("environment.json")
    try:
        target.run_local(make_environment(target.env, file))
        yield file
    finally:
        target.run_local(f"rm -f {q(file)}")


def publish(target: Target, configuration: dict, description: str) -> str:
    """Publish the function as a numbered version unless the newest version is the same; returns the version's ARN."""
    numbered = versions_of(target)
    if numbered and same(numbered[-1], configuration):
        return numbered[-1]["FunctionArn"]
    published = target.execute(publish_version(target.cfg, description, save_revision(target, configuration)))
    return published or f"{target.cfg['FUNCTION_NAME']}:NEXT"


def versions_of(target: Target) -> list[dict]:
    """Return the numbered versions of the function, the oldest first."""
    found = target.query_json(roles.list_versions(target.cfg), missing="ResourceNotFoundException") or {"Versions": []}
    return sorted((one for one in found["Versions"] if one["Version"] != "$LATEST"), key=lambda v: int(v["Version"]))


def same(version: dict, other: dict) -> bool:
    return all(version.get(key) == other.get(key) for key in PUBLISHED) and network_of(version) == network_of(other)


def carries(found: dict, made: Bundle) -> bool:
    """Return whether a function has a bundle's code: its tags name the digest, and the ZIP that has this digest."""
    tags = found.get("Tags", {})
    unchanged = found["Configuration"]["CodeSha256"] == as_aws(tags.get("bundle-sha256", ""))
    return unchanged and tags.get("bundle-digest") == made.digest


def as_aws(sha256: str) -> str:
    """Return a hexadecimal checksum in the form of AWS."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def differs(configuration: dict, cfg: dict, role_arn: str) -> list[str]:
    """Return the names of what differs between a function's configuration and the environment, never a value."""
    wanted = {
        "Runtime": cfg["RUNTIME"],
        "Role": role_arn,
        "Timeout": int(cfg["TIMEOUT"]),
        "MemorySize": int(cfg["MEMORY"]),
        "Handler": "handler.app.handler",
    }
    parts = [key for key, value in wanted.items() if configuration.get(key) != value]
    parts += ["Layers"] if layers_of(configuration) != listed(cfg["LAYER_VERSION_ARN"]) else []
    network = {"SubnetIds": listed(cfg["VPC_SUBNET_IDS"]), "SecurityGroupIds": listed(cfg["VPC_SECURITY_GROUP_IDS"])}
    parts += ["VpcConfig"] if network_of(configuration) != network_of({"VpcConfig": network}) else []
    present, variables = variables_of(configuration), config.function_environment(cfg)
    return parts + [key for key in sorted({*present, *variables}) if present.get(key) != variables.get(key)]


def network_of(configuration: dict) -> list[list[str]]:
    """Return subnets and security groups, sorted, because AWS does not keep their order."""
    given = configuration.get("VpcConfig") or {}
    return [sorted(given.get(key) or []) for key in ("SubnetIds", "SecurityGroupIds")]


def in_vpc(configuration: dict) -> bool:
    return network_of(configuration) != [[], []]


def differs_from_file(target: Target, configuration: dict) -> list[str]:
    """Return the names of what differs between a version and the file; a layer counts only if the file pins it."""
    layer = target.cfg["LAYER_VERSION_ARN"] or "".join(layers_of(configuration))
    return differs(configuration, target.having(LAYER_VERSION_ARN=layer).cfg, configuration["Role"])


def variables_of(configuration: dict) -> dict[str, str]:
    return configuration.get("Environment", {}).get("Variables", {})


def layers_of(configuration: dict) -> list[str]:
    return [one["Arn"] for one in configuration.get("Layers") or []]


def listed(names: str) -> list[str]:
    """Return the names of a setting that has commas between them."""
    return [name for name in names.split(",") if name]


def get_function(cfg):
    return aws(cfg, f"lambda get-function --function-name {q(cfg['FUNCTION_NAME'])}")


def create_function(cfg, role_arn, environment_file, made):
    return aws(
        cfg,
        f"lambda create-function --function-name {q(cfg['FUNCTION_NAME'])} {code_to_create(cfg, made)}"
        f" {shape(cfg, role_arn, environment_file)} --tags {tags(made)}{QUIET}",
    )


def update_code(cfg, made, revision):
    """Return the command that uploads the code.

    revision: a file with the revision of the function that was compared; AWS refuses if it has changed since.
    """
    return aws(
        cfg,
        f"lambda update-function-code --function-name {q(cfg['FUNCTION_NAME'])} {code_to_update(cfg, made)}"
        f"{bound_to(revision)}{QUIET}",
    )


def update_configuration(cfg, role_arn, environment_file, revision, in_vpc=False):
    """Return the command that sets the configuration.

    in_vpc: the function is in a VPC now, and leaves it if the environment names none.
    """
    leave = " --vpc-config SubnetIds=[],SecurityGroupIds=[]" if in_vpc else ""
    return aws(
        cfg,
        f"lambda update-function-configuration --function-name {q(cfg['FUNCTION_NAME'])}"
        f" {shape(cfg, role_arn, environment_file)}{'' if network(cfg) else leave}{bound_to(revision)}{QUIET}",
    )


def shape(cfg, role_arn, environment_file):
    # Without a value the option detaches all layers.
    layer = cfg["LAYER_VERSION_ARN"] and q(cfg["LAYER_VERSION_ARN"])
    return (
        f"--runtime {q(cfg['RUNTIME'])} --handler handler.app.handler --role {q(role_arn)}"
        f" --timeout {q(cfg['TIMEOUT'])} --memory-size {q(cfg['MEMORY'])}"
        f" --environment file://{q(environment_file)} --layers {layer}{network(cfg)}"
    )


def network(cfg):
    """Return the option with subnets and security groups, "" without a VPC."""
    if not cfg["VPC_SUBNET_IDS"]:
        return ""
    return f" --vpc-config SubnetIds={q(cfg['VPC_SUBNET_IDS'])},SecurityGroupIds={q(cfg['VPC_SECURITY_GROUP_IDS'])}"


def make_environment(env, file):
    """Return the command that writes the function's variables into a file of mode 0600."""
    return f"mkdir -p {q(str(Path(file).parent))} && (umask 077 && inv env.json --env {q(env)} > {q(file)})"


def copy_to_bucket(cfg, made):
    return aws(cfg, f"s3 cp --only-show-errors {made.file} s3://{q(cfg['DEPLOY_BUCKET'])}/{q(bucket_key(cfg, made))}")


def code_to_create(cfg, made):
    if made.size > limits.DIRECT_BYTES:
        return f"--code S3Bucket={q(cfg['DEPLOY_BUCKET'])},S3Key={q(bucket_key(cfg, made))}"
    return f"--zip-file fileb://{made.file}"


def code_to_update(cfg, made):
    if made.size > limits.DIRECT_BYTES:
        return f"--s3-bucket {q(cfg['DEPLOY_BUCKET'])} --s3-key {q(bucket_key(cfg, made))}"
    return f"--zip-file fileb://{made.file}"


def bucket_key(cfg, made) -> str:
    return f"{cfg['FUNCTION_NAME']}/{made.sha256}.zip"


def tags(made):
    """Return a bundle's tags: the digest is the same on every host, and valid only with this checksum of the ZIP."""
    return f"bundle-digest={made.digest},bundle-sha256={made.sha256}"


def tag_function(cfg, arn, made):
    return aws(cfg, f"lambda tag-resource --resource {q(arn)} --tags {tags(made)}")


def wait_until_updated(cfg):
    return aws(cfg, f"lambda wait function-updated-v2 --function-name {q(cfg['FUNCTION_NAME'])}")


def wait_until_active(cfg):
    return aws(cfg, f"lambda wait function-active-v2 --function-name {q(cfg['FUNCTION_NAME'])}")


def get_revision(cfg, file):
    command = aws(
        cfg,
        f"lambda get-function --function-name {q(cfg['FUNCTION_NAME'])}"
        " --query 'Configuration.[RevisionId, CodeSha256]' --output text",
    )
    return into(file, command)


def publish_version(cfg, description, revision):
    return aws(
        cfg,
        f"lambda publish-version --function-name {q(cfg['FUNCTION_NAME'])} --description {q(description)}"
        f"{bound_to(revision)}{QUIET}",
    )
