"""The deploy: each step looks, changes what differs, and is done again without harm."""

from __future__ import annotations

import contextlib
import json
from shlex import quote as q

from invoke import Exit, task

from env import commands, doors, environment, limits, roles, schedule, shipping
from env.doors import ROOT, read_json, request, write
from layer import publish as layers

ENV_HELP = {"env": "a file name in env/, such as local"}


@task(help=ENV_HELP)
def deploy(c, env):
    """Bring the function of an environment in step with this checkout and register it with Restate."""
    cfg = environment.load(env)
    print(f"{env}: function {cfg['FUNCTION_NAME']} in {cfg['AWS_REGION']}, Restate at {cfg['RESTATE_ADMIN_URL']}")
    before = doors.changes
    limits.check_environment(environment.function_environment(cfg))
    cfg["LAYER_VERSION_ARN"] = layers.attached(c, cfg, env)
    made = shipping.make(cfg)
    role_arn = roles.ensure_role(c, cfg)
    configuration = ensure_function(c, cfg, env, role_arn, made)
    version_arn = ensure_version(c, cfg, configuration, made.digest)
    ensure_registered(c, cfg, version_arn)
    ensure_alias(c, cfg, version_arn.rpartition(":")[2])
    if c.config.run.dry:
        print(f"{env}: this was a rehearsal, nothing was changed")
    elif doors.changes > before:
        print(f"{env}: {version_arn} is live")
    else:
        print(f"{env}: nothing changed; {version_arn} is live")
    schedule.reminder(cfg, env)


def ensure_function(c, cfg, env, role_arn, made) -> dict:
    """Create the function or bring code and configuration up to date; returns its configuration then.

    Under --dry a changed function has no configuration yet: {}.
    """
    found = read_json(c, cfg, commands.get_function(cfg), missing="ResourceNotFoundException")
    before = doors.changes
    if found:
        update_function(c, cfg, env, role_arn, made, found)
    else:
        shipping.prepare(c, cfg, made, [])
        with environment_file(c, cfg, env) as file:
            write(c, cfg, commands.create_function(cfg, role_arn, file, made))
        write(c, cfg, commands.wait_until_active(cfg))
    if doors.changes == before:
        return found["Configuration"]
    return {} if c.config.run.dry else read_json(c, cfg, commands.get_function(cfg))["Configuration"]


def update_function(c, cfg, env, role_arn, made, found) -> None:
    configuration = found["Configuration"]
    if found.get("Tags", {}).get("bundle-digest") != made.digest:
        shipping.prepare(c, cfg, made, configuration.get("Layers") or [])
        write(c, cfg, commands.update_code(cfg, made))
        write(c, cfg, commands.wait_until_updated(cfg))
        write(c, cfg, commands.tag_function(cfg, configuration["FunctionArn"], made.digest))
    shaped = differs(configuration, cfg, role_arn)
    if shaped:
        print(f"the configuration differs in {', '.join(shaped)}")
        with environment_file(c, cfg, env) as file:
            write(c, cfg, commands.update_configuration(cfg, role_arn, file))
        write(c, cfg, commands.wait_until_updated(cfg))


@contextlib.contextmanager
def environment_file(c, cfg, env):
    """The function's environment in a file of mode 0600 while a command needs it: no secret is ever an argument."""
    file = f"build/{env}.environment.json"
    write(c, cfg, f"(umask 077 && inv env-json --env {q(env)} > {q(file)})")
    try:
        yield file
    finally:
        write(c, cfg, f"rm -f {q(file)}")


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
    layer_arns = [one["Arn"] for one in configuration.get("Layers", [])]
    parts += ["Layers"] if layer_arns != [arn for arn in [cfg["LAYER_VERSION_ARN"]] if arn] else []
    given = configuration.get("Environment", {}).get("Variables", {})
    target = environment.function_environment(cfg)
    return parts + [key for key in sorted({*given, *target}) if given.get(key) != target.get(key)]


# What makes two versions different; a version takes all of it from the function at the moment it is published.
PUBLISHED = ("CodeSha256", "Environment", "Runtime", "Role", "Timeout", "MemorySize", "Handler", "Layers")


def ensure_version(c, cfg, configuration, digest) -> str:
    """Publish the function as a numbered version unless the newest one is the same; returns the version's ARN."""
    found = read_json(c, cfg, commands.list_versions(cfg), missing="ResourceNotFoundException") or {"Versions": []}
    numbered = sorted(
        (one for one in found["Versions"] if one["Version"] != "$LATEST"), key=lambda v: int(v["Version"])
    )
    if numbered and all(numbered[-1].get(key) == configuration.get(key) for key in PUBLISHED):
        return numbered[-1]["FunctionArn"]
    published = write(c, cfg, commands.publish_version(cfg, digest))
    return json.loads(published)["FunctionArn"] if published else f"{cfg['FUNCTION_NAME']}:NEXT"


def ensure_registered(c, cfg, version_arn) -> None:
    """Register a version's ARN with Restate and read it back: to Restate an option it does not know is no error."""
    if find_deployment(cfg, version_arn):
        return
    write(c, cfg, commands.register(cfg, version_arn))
    if c.config.run.dry:
        return
    deployment = find_deployment(cfg, version_arn)
    if not deployment:
        raise Exit(f"Restate does not list {version_arn} after its registration; run the deploy again")
    role = deployment.get("assume_role_arn") or ""
    if role != cfg["RESTATE_INVOKE_ROLE_ARN"]:
        raise Exit(f"Restate registered {version_arn} with role {role!r}, not {cfg['RESTATE_INVOKE_ROLE_ARN']!r}")


def find_deployment(cfg, version_arn) -> dict | None:
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")
    if status != 200:
        raise Exit(f"Restate's admin API at {cfg['RESTATE_ADMIN_URL']} answered {status}: {answer}")
    return next((one for one in answer["deployments"] if one.get("arn") == version_arn), None)


def ensure_alias(c, cfg, version) -> None:
    """Point the alias `live` to a version: pings and keep-warm calls go to what Restate invokes."""
    found = read_json(c, cfg, commands.get_alias(cfg), missing="ResourceNotFoundException")
    if found and found["FunctionVersion"] == version:
        return
    write(c, cfg, commands.move_alias(cfg, "update" if found else "create", version))


def invoke_event(c, cfg, event: dict) -> dict:
    """Send one of our own events to the live version and return its answer; empty under --dry."""
    payload, answer = "build/event.json", "build/answer.json"
    (ROOT / payload).parent.mkdir(exist_ok=True)
    (ROOT / payload).write_text(json.dumps(event))
    said = write(c, cfg, commands.invoke_function(cfg, payload, answer))
    if not said:
        return {}
    result = json.loads((ROOT / answer).read_text())
    if "FunctionError" in json.loads(said):
        raise Exit(f"the function failed: {result.get('errorMessage', result)}")
    return result
