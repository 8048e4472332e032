"""The manual commands of the runbook, for a shell with the variables of `inv env.shell`.

The functions that the tasks call format them, with `$NAME` instead of the value of a setting.
"""

from __future__ import annotations

import json
import re
from shlex import quote as q

from layer import publish as layers
from ops import alarms, bundle, closings, config, keep_warm, logs, ping, release, restate, roles, schedule, shell
from ops import deploy as deployment
from ops import versions as published

# Settings that add an option only if they have a value; the AWS CLI reads AWS_PROFILE from the shell.
LEFT_OUT = ("AWS_PROFILE", "AWS_ENDPOINT_URL", "DEPLOY_BUCKET", "VPC_SUBNET_IDS", "VPC_SECURITY_GROUP_IDS")
KEYS = (
    {setting.name: f"${setting.name}" for setting in config.ALL_SETTINGS}
    | dict.fromkeys(LEFT_OUT, "")
    | {"RESTATE_INGRESS_AUTH": "on"}
)
FILE, REVISION, ALIAS = "build/lambda.environment.json", "build/revision", "build/alias-revision"
BUNDLE = bundle.Bundle(bundle.ROOT / "build" / "lambda.zip", "", "", 0, 0, "", "")
TARGETS = "build/keep-warm.json"
DATE = "2025-02-27"


def for_shell(command: str) -> str:
    """Quote a command's variables for the shell, and leave out an option whose variable is empty.

    LAYER_VERSION_ARN can be empty but not unset, because an empty --layers detaches the layer.
    """
    command = command.replace("'$LAYER_VERSION_ARN'", "${LAYER_VERSION_ARN?}")
    command = re.sub(r"'([^'\"]*\$[^'\"]*)'", r'"\1"', command)
    arn = r'"$(aws iam get-role --role-name "${\2##*/}" --query Role.Arn --output text)"'
    return re.sub(r'(--assume-role-arn) "\$(\w+)"', rf"${{\2:+\1 {arn}}}", command)


def value(command: str, query: str) -> str:
    """Format a query whose answer is one word."""
    return f"$({command} --query {query} --output text)"


def publish() -> list[str]:
    """Publish the function as a version and make that version live."""
    return [
        deployment.get_revision(KEYS, REVISION),
        f"ARN=$({deployment.publish_version(KEYS, 'manual', REVISION)})",
        release.register(KEYS, "$ARN"),
        *activate(),
    ]


def activate() -> list[str]:
    """Move the alias to the version ARN, and ping it."""
    return [
        release.save_alias_revision(KEYS, ALIAS),
        release.move_alias(KEYS, "update", "${ARN##*:}", None, ALIAS),
        *send({"ping": True}),
    ]


def send(event: dict) -> list[str]:
    """Send an event to the live version."""
    return [
        shell.save_json(event, "build/event.json"),
        ping.invoke_function(KEYS, "build/event.json", "build/answer.json"),
        "cat build/answer.json",
    ]


def configure() -> list[str]:
    """Update the function's configuration, with the variables of FILE."""
    return [
        f"ROLE={value(roles.get_role(KEYS), 'Role.Arn')}",
        deployment.get_revision(KEYS, REVISION),
        deployment.update_configuration(KEYS, "$ROLE", FILE, REVISION),
        f"rm -f {FILE}",
        deployment.wait_until_updated(KEYS),
    ]


def deploy() -> list[str]:
    return [
        'inv bundle --env "$ENV"',
        deployment.get_revision(KEYS, REVISION),
        deployment.update_code(KEYS, BUNDLE, REVISION),
        deployment.wait_until_updated(KEYS),
        deployment.make_environment("$ENV", FILE),
        *configure(),
        *publish(),
    ]


def status() -> list[str]:
    versions_ = f"{roles.list_versions(KEYS)} --query 'Versions[].[Version,Description,LastModified]' --output text"
    return [release.get_alias(KEYS), versions_, "restate deployments list"]


def roll_back() -> list[str]:
    """Make an older version live again."""
    return [
        "OLD=1",
        f"ARN=$({ping.get_configuration(KEYS, '$OLD')} --query FunctionArn --output text)",
        release.register(KEYS, "$ARN", again=True),
        *activate(),
    ]


def prune() -> list[str]:
    return [
        "VERSION=1 DEPLOYMENT=dp_…",
        f'restate sql "{restate.DRAINED}"',
        restate.curl(KEYS, "DELETE", '"$RESTATE_ADMIN_URL/deployments/$DEPLOYMENT?force=true"'),
        published.delete_version(KEYS, "$VERSION"),
    ]


def make_roles() -> list[str]:
    lines = [f"ACCOUNT_ID={value(shell.get_account(KEYS), 'Account')}"]
    for named, trust, policies in roles.planned({**KEYS, "RESTATE_SERVER_ROLE_ARN": ""}):
        role = named.replace("$RESTATE_INVOKE_ROLE_ARN", "${RESTATE_INVOKE_ROLE_ARN##*/}")
        lines.append(filled(trust))
        lines.append(roles.create_role(KEYS, role, f"build/{trust}.json"))
        for policy in policies:
            lines.append(filled(policy))
            lines.append(roles.put_role_policy(KEYS, role, policy, f"build/{policy}.json"))
    return [*lines, roles.create_provider(KEYS)]


def filled(policy: str) -> str:
    given = {**KEYS, "ENVIRONMENT": "$ENV"}
    return shell.into(f"build/{policy}.json", roles.fill_policy(policy, given, "$ACCOUNT_ID"))


def publish_layer() -> list[str]:
    about = {"client": "19", "kind": "Basic Lite", "zip": "…", "content": "…", "runtimes": ["$RUNTIME"]}
    return [
        layers.list_layer_versions(KEYS),
        layers.publish_layer_version(KEYS, about, f"--zip-file fileb://{layers.FILE}"),
    ]


def close() -> list[str]:
    return [
        closings.submit_command(KEYS, DATE, {"date": DATE, "userId": "adm"}),
        call(f"DailyClosing/{DATE}/getStatus"),
    ]


def call(path: str, body: object = None) -> str:
    """Call a handler through Restate's ingress."""
    return restate.curl(KEYS, "POST", f"{KEYS['RESTATE_INGRESS_URL']}/{path}", body)


def look_back() -> list[str]:
    return [*send({"history": 10}), logs.filter_log_events(KEYS, "$(($(date +%s) - 3600))000", "")]


def rerun() -> list[str]:
    date = "2025-05-28"
    return [
        f"restate invocations purge --yes DailyClosing/{date}/run",
        closings.submit_command(KEYS, date, {"date": date, "userId": "adm", "resume": True}),
    ]


def cancel() -> list[str]:
    return ["restate invocations cancel --yes DailyClosing/2025-05-30/run", call("ClosingPeriod/2025-05/stop_job")]


def resolve() -> list[str]:
    return [
        call("ClosingPeriod/2025-05/status"),
        call("ClosingPeriod/2025-05/resolve", {"job": "GNS_202505_…", "as": "failed", "who": "siti"}),
    ]


def keep_schedule() -> list[str]:
    return [restate.curl(KEYS, "POST", schedule.url(KEYS, verb)) for verb in ("start", "status", "stop")]


def warm_on() -> list[str]:
    # printf reads a backslash as an escape.
    targets = json.dumps([keep_warm.wanted_target("%s")]).replace("\\", "\\\\")
    return [
        f"RULE={value(keep_warm.put_rule(KEYS, keep_warm.rate(keep_warm.USUAL)), 'RuleArn')}",
        keep_warm.add_permission(KEYS, "$RULE"),
        f"LIVE={value(release.get_alias(KEYS), 'AliasArn')}",
        shell.into(TARGETS, f'printf {q(targets)} "$LIVE"'),
        keep_warm.put_targets(KEYS, TARGETS),
    ]


def warm_off() -> list[str]:
    return [keep_warm.remove_targets(KEYS), keep_warm.delete_rule(KEYS), keep_warm.remove_permission(KEYS)]


def make_alarms() -> list[str]:
    return [
        f"TOPIC={value(alarms.create_topic(KEYS), 'TopicArn')}",
        alarms.subscribe(KEYS, "$TOPIC", "finance-ops@example.com"),
        alarms.put_filter(KEYS, "build/no-closing.filter.json"),
        alarms.put_alarm(KEYS, "build/no-closing.alarm.json"),
    ]


def destroy() -> list[str]:
    return [
        restate.curl(KEYS, "DELETE", '"$RESTATE_ADMIN_URL/deployments/$DEPLOYMENT?force=true"'),
        published.delete_function(KEYS),
        logs.delete_log_group(KEYS),
        roles.delete_role_policy(KEYS, "$ROLE_NAME", "lambda-execution"),
        roles.delete_role(KEYS, "$ROLE_NAME"),
    ]


# The entries that the reader must complete with the IDs and names of an AWS account.
AWS_ONLY = {"alarms", "prune", "roles", "layer", "cancel", "resolve", "destroy"}
ENTRIES = {
    "deploy": deploy,
    "status": status,
    "roll back": roll_back,
    "prune": prune,
    "roles": make_roles,
    "layer": publish_layer,
    "close": close,
    "look back": look_back,
    "rerun": rerun,
    "cancel": cancel,
    "resolve": resolve,
    "schedule": keep_schedule,
    "ping": lambda: send({"ping": "deep"}),
    "warm": warm_on,
    "warm off": warm_off,
    "alarms": make_alarms,
    "destroy": destroy,
}


def lines(entry: str) -> list[str]:
    """Return the commands of an entry of the runbook."""
    return [for_shell(line) for line in ENTRIES[entry]()]
