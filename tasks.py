"""The runbook as tasks: one task, one step. `inv --list` is its index."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from shlex import quote as q

from invoke import Collection, Exit, task

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT)]

from env import alarms, closings, doors, environment, history, limits, logs, ping, repair, schedule, shipping, warm  # noqa: E402
from env.doors import aws, read_json, request, write  # noqa: E402
from handler.request import real_date  # noqa: E402
from layer import publish as layers  # noqa: E402

PYTHONPATH = ":".join(str(ROOT / folder) for folder in (".", "tests", "env/local"))
ENV_HELP = {"env": "a file name in env/, such as local"}


def get_role(cfg):
    return aws(cfg, f"iam get-role --role-name {q(cfg['ROLE_NAME'])}")


def create_role(cfg):
    return aws(
        cfg,
        f"iam create-role --role-name {q(cfg['ROLE_NAME'])}"
        " --assume-role-policy-document file://policies/lambda-trust.json",
    )


def get_role_policy(cfg):
    return aws(cfg, f"iam get-role-policy --role-name {q(cfg['ROLE_NAME'])} --policy-name lambda-execution")


def put_role_policy(cfg, document):
    return aws(
        cfg,
        f"iam put-role-policy --role-name {q(cfg['ROLE_NAME'])} --policy-name lambda-execution"
        f" --policy-document file://{q(document)}",
    )


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
        f"lambda publish-version --function-name {q(cfg['FUNCTION_NAME'])} --description {q(ping.description(digest))}",
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


@task(help=ENV_HELP)
def env_json(c, env):
    """Print the function's part of an environment as JSON, secrets included, for a file of mode 0600."""
    print(json.dumps({"Variables": environment.function_environment(environment.load(env))}, indent=2))


@task(help=ENV_HELP)
def deploy(c, env):
    """Bring the function of an environment in step with this checkout and register it with Restate."""
    cfg = environment.load(env)
    print(f"{env}: function {cfg['FUNCTION_NAME']} in {cfg['AWS_REGION']}, Restate at {cfg['RESTATE_ADMIN_URL']}")
    before = doors.changes
    limits.check_environment(environment.function_environment(cfg))
    cfg["LAYER_VERSION_ARN"] = layers.attached(c, cfg, env)
    made = shipping.make(cfg)
    role_arn = ensure_role(c, cfg)
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


def ensure_role(c, cfg) -> str:
    """Have the execution role and its policy as policies/ says; returns its ARN."""
    found = read_json(c, cfg, get_role(cfg), missing="NoSuchEntity")
    if not found:
        write(c, cfg, create_role(cfg))
        found = read_json(c, cfg, get_role(cfg), missing="NoSuchEntity")
    arn = found["Role"]["Arn"] if found else f"arn:aws:iam::ACCOUNT:role/{cfg['ROLE_NAME']}"
    wanted = fill_policy("lambda-execution", cfg, arn.split(":")[4])
    present = read_json(c, cfg, get_role_policy(cfg), missing="NoSuchEntity")
    if not present or present["PolicyDocument"] != json.loads(wanted.read_text()):
        write(c, cfg, put_role_policy(cfg, str(wanted.relative_to(ROOT))))
    return arn


def fill_policy(name: str, cfg: dict, account: str) -> Path:
    """A policy of policies/ with its placeholders filled, as a file in build/."""
    text = (ROOT / "policies" / f"{name}.json").read_text()
    for key, value in {**cfg, "ACCOUNT_ID": account}.items():
        text = text.replace(f"${{{key}}}", value)
    path = ROOT / "build" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def ensure_function(c, cfg, env, role_arn, made) -> dict:
    """Create the function or bring code and configuration up to date; returns its configuration then.

    Under --dry a changed function has no configuration yet: {}.
    """
    found = read_json(c, cfg, get_function(cfg), missing="ResourceNotFoundException")
    before = doors.changes
    if found:
        update_function(c, cfg, env, role_arn, made, found)
    else:
        shipping.prepare(c, cfg, made, [])
        with environment_file(c, cfg, env) as file:
            write(c, cfg, create_function(cfg, role_arn, file, made))
        write(c, cfg, wait_until_active(cfg))
    if doors.changes == before:
        return found["Configuration"]
    return {} if c.config.run.dry else read_json(c, cfg, get_function(cfg))["Configuration"]


def update_function(c, cfg, env, role_arn, made, found) -> None:
    configuration = found["Configuration"]
    if found.get("Tags", {}).get("bundle-digest") != made.digest:
        shipping.prepare(c, cfg, made, configuration.get("Layers") or [])
        write(c, cfg, update_code(cfg, made))
        write(c, cfg, wait_until_updated(cfg))
        write(c, cfg, tag_function(cfg, configuration["FunctionArn"], made.digest))
    shaped = differs(configuration, cfg, role_arn)
    if shaped:
        print(f"the configuration differs in {', '.join(shaped)}")
        with environment_file(c, cfg, env) as file:
            write(c, cfg, update_configuration(cfg, role_arn, file))
        write(c, cfg, wait_until_updated(cfg))


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
    found = read_json(c, cfg, list_versions(cfg), missing="ResourceNotFoundException") or {"Versions": []}
    numbered = sorted(
        (one for one in found["Versions"] if one["Version"] != "$LATEST"), key=lambda v: int(v["Version"])
    )
    if numbered and all(numbered[-1].get(key) == configuration.get(key) for key in PUBLISHED):
        return numbered[-1]["FunctionArn"]
    published = write(c, cfg, publish_version(cfg, digest))
    return json.loads(published)["FunctionArn"] if published else f"{cfg['FUNCTION_NAME']}:NEXT"


def ensure_registered(c, cfg, version_arn) -> None:
    """Register a version's ARN with Restate and read it back: to Restate an option it does not know is no error."""
    if find_deployment(cfg, version_arn):
        return
    write(c, cfg, register(cfg, version_arn))
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
    found = read_json(c, cfg, get_alias(cfg), missing="ResourceNotFoundException")
    if found and found["FunctionVersion"] == version:
        return
    write(c, cfg, move_alias(cfg, "update" if found else "create", version))


@task(help=ENV_HELP)
def schema(c, env):
    """Create what is missing of the service's own tables, through the function."""
    answer = invoke_event(c, environment.load(env), {"schema": True})
    print(f"{env}: closing_runs is in schema {answer['schema']}" if answer else f"{env}: a rehearsal")


def invoke_event(c, cfg, event: dict) -> dict:
    """Send one of our own events to the live version and return its answer; empty under --dry."""
    payload, answer = "build/event.json", "build/answer.json"
    (ROOT / payload).parent.mkdir(exist_ok=True)
    (ROOT / payload).write_text(json.dumps(event))
    said = write(c, cfg, invoke_function(cfg, payload, answer))
    if not said:
        return {}
    result = json.loads((ROOT / answer).read_text())
    if "FunctionError" in json.loads(said):
        raise Exit(f"the function failed: {result.get('errorMessage', result)}")
    return result


@task(
    help={
        **ENV_HELP,
        "date": "the date to close, as YYYY-MM-DD",
        "user": "the user the procedure is run for",
        "skip-genius": "do not run the procedure",
        "skip-sync": "leave the trial balance as it is",
        "skip-metrics": "do not compute the metrics",
        "watch": "follow it to its end",
    }
)
def close(c, env, date, user="adm", skip_genius=False, skip_sync=False, skip_metrics=False, watch=False):
    """Start the closing of a date; exit 1 where it was accepted before."""
    cfg = environment.load(env)
    flags = {"skipGeniusClosing": skip_genius, "skipSyncTrialBalance": skip_sync, "skipFinancialMetrics": skip_metrics}
    body = closings.body_of(cfg, date, user, flags)
    doors.announce(closings.submit_command(cfg, date, body))
    if c.config.run.dry:
        return
    invocation = closings.submit(cfg, date, body)
    print(f"{env}: {date} accepted as {invocation}\n{closings.page(cfg, invocation)}")
    if watch:
        closings.watch(cfg, date)


@task(help={**ENV_HELP, "date": "a date, as YYYY-MM-DD; without it: the function", "watch": "follow it to its end"})
def status(c, env, date="", watch=False):
    """Show what is live in an environment, or how the closing of a date stands."""
    cfg = environment.load(env)
    if watch:
        history.follow(c, cfg, env, checked_date(date))
        return
    if date:
        print(closings.standing(cfg, checked_date(date)))
        return
    found = read_json(c, cfg, get_alias(cfg), missing="ResourceNotFoundException")
    if not found:
        raise Exit(f"{env}: {cfg['FUNCTION_NAME']} has no version that is live; run `inv deploy --env {env}`")
    arn = f"{found['AliasArn'].rpartition(':')[0]}:{found['FunctionVersion']}"
    deployment = find_deployment(cfg, arn)
    print(f"{env}: {arn}  {'registered as ' + deployment['id'] if deployment else 'NOT registered with Restate'}")


@task
def demo(c):
    """Close the next business date on this machine: the cloud, the deploy, the closing and what came of it."""
    cloud = load_module("env/local/tasks.py")
    cloud.up(c)
    cfg = environment.load("local")
    with cloud.one_line_on_failure():
        load_module("env/local/demo.py").run(c, cfg, lambda: deploy(c, "local"), lambda: schema(c, "local"))


@task(help={"only": "the name of one benchmark, such as ledger"})
def bench(c, only=""):
    """Run the benchmarks of tests/: ratios of ways measured side by side in one run."""
    scripts = sorted((ROOT / "tests").glob(f"bench_{only or '*'}.py"))
    if not scripts:
        known = ", ".join(sorted(path.stem[6:] for path in (ROOT / "tests").glob("bench_*.py")))
        raise Exit(f"No benchmark {only!r}. Known: {known}.")
    for script in scripts:
        c.run(f"{q(sys.executable)} {q(str(script))}", env={"PYTHONPATH": PYTHONPATH})


@task(
    help={
        "n": "how many closings",
        "seed": "what everything random is drawn from",
        "strikes": "the faults that may strike, comma-separated; default all",
        "scenarios": "what is done with a closing, comma-separated; default all",
        "plant": "a break of the service that the run must report",
    }
)
def chaos(c, n=20, seed=1, strikes="", scenarios="", plant=""):
    """Close days under faults on this machine and check the promise after each; exit 1 names what broke."""
    given = {"n": str(n), "seed": str(seed), "strikes": strikes, "scenarios": scenarios, "plant": plant}
    words = " ".join(f"--{name} {q(value)}" for name, value in given.items() if value)
    if not c.run(f"{q(sys.executable)} -m chaos {words}", env={"PYTHONPATH": PYTHONPATH}, warn=True).ok:
        raise Exit(code=1)


def checked_date(date: str) -> str:
    try:
        return real_date(date).isoformat()
    except ValueError as error:
        raise Exit(str(error)) from None


def load_module(path: str):
    """A task module that lives beside what it acts on."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


namespace = Collection(env_json, deploy, schema, close, status, demo, bench, chaos)
for step in (shipping.bundle, shipping.lock, repair.rerun, repair.cancel, repair.resolve, repair.stop_job):
    namespace.add_task(step)
for step in (ping.ping, history.history, logs.logs, alarms.alarms):
    namespace.add_task(step)
FOLDERS = {
    "local": "env/local/tasks.py",
    "genius": "env/local/genius/tasks.py",
    "layer": "layer/tasks.py",
}
for name, path in FOLDERS.items():
    namespace.add_collection(Collection.from_module(load_module(path)), name)
namespace.add_collection(Collection.from_module(schedule), "schedule")
namespace.add_collection(Collection.from_module(warm), "warm")
