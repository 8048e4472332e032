"""The published versions: list them, go back to one, remove old ones, remove the function with everything around it."""

from __future__ import annotations

from datetime import datetime, timezone
from shlex import quote as q

from invoke import Exit

from ops import alarms, deploy, function_url, keep_warm, logs, release, restate, roles, shell, terminal
from ops.alias import delete_concurrency, get_alias
from ops.config import ENV_HELP
from ops.invocations import change
from ops.repair import confirm
from ops.restate import arn_of, deployments, function_of, sql
from ops.shell import aws
from ops.target import Target
from ops.task import ENVIRONMENT, NOTHING, task

RUNNING = (
    "SELECT pinned_deployment_id AS id, count(*) AS n FROM sys_invocation_status"
    " WHERE pinned_deployment_id IS NOT NULL AND status != 'completed' GROUP BY pinned_deployment_id"
)
# An unfinished invocation of a service runs, waits in a queue, or is scheduled for later.
UNFINISHED = (
    "SELECT id, target, target_handler_name AS handler, status FROM sys_invocation"
    " WHERE status != 'completed' AND target_service_name IN ({})"
)
# The check of a scheduled date some hours later, which changes nothing.
LATE_CHECK = ("check_closed", "scheduled")


@task(group="deploy", changes=NOTHING, uses=("aws",), help=ENV_HELP)
def versions(c, env):
    """Show the published versions: age, digest and commit, Restate's deployment, running invocations, what is live."""
    target = Target.load(c, env)
    print(target.headline)
    found, aliases, registered = deploy.versions_of(target), aliases_by_version(target), ids_by_arn(target.cfg)
    if not found:
        print(f"{env}: nothing is published; `inv deploy --env {env}` publishes the first version")
        return
    running = {row["id"]: row["n"] for row in sql(target.cfg, RUNNING)}
    newest = {row["deployment_id"] for row in sql(target.cfg, "SELECT deployment_id FROM sys_service")}
    rows = []
    for one in reversed(found):
        identity = registered.get(one["FunctionArn"], "")
        marks = [*aliases.get(one["Version"], []), *(["Restate's newest"] if identity in newest else [])]
        words = (one["Version"], age(one["LastModified"]), one.get("Description") or "-", identity or "not registered")
        rows.append((*words, str(running.get(identity, 0)), ", ".join(marks)))
    print(terminal.table(rows, ("version", "age", "digest, commit", "Restate", "running", ""), right=(1, 4)))
    for row in sql(target.cfg, release.WAITING):
        print(f"{row['n']} calls of {row['service']} wait and will start on the newest version in Restate")


def age(moment: str) -> str:
    """Return how long ago a moment of AWS was, in the largest unit that fits."""
    seconds = (datetime.now(timezone.utc) - datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z")).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def aliases_by_version(target: Target) -> dict[str, list[str]]:
    """Return the aliases that point to each version, a weighted second version included."""
    found = target.query_json(list_aliases(target.cfg), missing="ResourceNotFoundException") or {"Aliases": []}
    by_version: dict[str, list[str]] = {}
    for alias in found["Aliases"]:
        weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        for version in (alias["FunctionVersion"], *weights):
            by_version.setdefault(version, []).append(alias["Name"])
    return by_version


def ids_by_arn(cfg: dict) -> dict[str, str]:
    """Return Restate's deployment of each registered version."""
    return {arn_of(one): one["id"] for one in deployments(cfg) if arn_of(one)}


@task(
    group="deploy",
    changes=ENVIRONMENT,
    uses=("aws", "restate"),
    help={
        **ENV_HELP,
        "to": "the version to go back to; default: the newest one before the live version",
        "breaking": "accept that the old version lacks handlers of the new one",
    },
)
def rollback(c, env, to="", breaking=False):
    """Make an older version live again: new closings begin on it, and running ones stay on theirs."""
    target = Target.load(c, env)
    print(target.headline)
    alias = target.query_json(get_alias(target.cfg), missing="ResourceNotFoundException")
    tags = release.read_tags(target)
    live, left = int(alias["FunctionVersion"]) if alias else 0, release.left_versions(tags)
    version = choose(target, deploy.versions_of(target), to, live, left)
    if function_url.by_url(target.cfg) and not deploy.variables_of(version).get("RESTATE_IDENTITY_KEYS"):
        raise Exit(
            f"{env}: version {version['Version']} has no RESTATE_IDENTITY_KEYS and would refuse every call of its URL;"
            " choose another one with --to, or set FUNCTION_URL=off and deploy first. Nothing was changed."
        )
    release.refuse_other_protocol(target, version["Version"])
    print(f"{env}: back to version {version['Version']}, {version.get('Description') or 'without a description'}")
    parts = deploy.differs_from_file(deploy.completed(target), version)
    if parts:
        print(
            f"{env}: warning: it has other values than env/{env}.env of {', '.join(parts)}; a deploy applies the file"
        )
    before = shell.changes
    if int(version["Version"]) < live and str(live) not in left:
        # Recorded first: even if the rest fails, the next rollback does not choose this version.
        kept = [*left, str(live)][-release.LEFT_KEPT :]
        release.write_tag(target, version["FunctionArn"], release.LEFT, ":".join(kept))
    release.activate(target, version["FunctionArn"], breaking, before, tags)
    release.report(target, version["FunctionArn"], before)


def choose(target: Target, found: list[dict], to: str, live: int, left: list[str]) -> dict:
    """Return the version to go back to: the named one, or the newest one before the live version, number `live`.

    Without a name a version must still be registered with Restate, or be reachable by the URL, and must not be one of
    those that a rollback has left. Raises Exit otherwise.
    """
    registered = ids_by_arn(target.cfg)
    if to:
        candidates = [one for one in found if one["Version"] == to]
    else:
        earlier = [one for one in found if int(one["Version"]) < live and one["Version"] not in left]
        candidates = [one for one in earlier if function_url.by_url(target.cfg) or one["FunctionArn"] in registered]
    if not candidates:
        wanted = f"no version {to!r}" if to else f"no registered version before the live one, {live or 'none'}"
        known = ", ".join(one["Version"] for one in found[-10:]) or "none"
        avoided = f"; left by a rollback, so only with --to: {', '.join(left)}" if left and not to else ""
        raise Exit(f"{target.env}: there is {wanted}; published: {known}{avoided}. Nothing was changed.")
    return candidates[-1]


@task(
    group="deploy",
    changes=ENVIRONMENT,
    uses=("aws",),
    help={**ENV_HELP, "keep": "how many of the newest versions stay in any case"},
)
def prune(c, env, keep):
    """Remove old versions from Restate and AWS; never one that an invocation, an alias or a service still needs."""
    if not keep.isdigit() or int(keep) < 1:
        raise Exit(f"--keep {keep!r}: expected a number from 1; the newest version always stays. Nothing was deleted.")
    target = Target.load(c, env)
    print(target.headline)
    found = deploy.versions_of(target)
    aliases, registered = aliases_by_version(target), ids_by_arn(target.cfg)
    removed = []
    for one in found[: -int(keep)]:
        identity = registered.get(one["FunctionArn"])
        reason = why_needed(target.cfg, one["Version"], identity, aliases)
        if reason:
            print(f"version {one['Version']} stays: {reason}")
            continue
        if identity:
            restate.delete_deployment(target, identity)
        target.execute(delete_version(target.cfg, one["Version"]))
        removed.append(one)
    if not target.cfg["VPC_SUBNET_IDS"] and not any(deploy.in_vpc(one) for one in found if one not in removed):
        roles.leave_vpc(target)
    print(f"{env}: {len(removed)} {'would be deleted' if target.dry else 'deleted'}")


def why_needed(cfg: dict, version: str, identity: str | None, aliases: dict[str, list[str]]) -> str:
    """Return why a version must stay, as Restate answers at this moment; "" if nothing needs it."""
    if version in aliases:
        return f"the alias {', '.join(aliases[version])} points to it"
    if identity and identity not in {row["id"] for row in sql(cfg, restate.DRAINED)}:
        running = {row["id"]: row["n"] for row in sql(cfg, RUNNING)}.get(identity, 0)
        return f"{running} invocations run on it" if running else "Restate starts new invocations on it"
    return ""


@task(group="deploy", changes=ENVIRONMENT, uses=("aws",), help={**ENV_HELP, "yes": "do not ask"})
def destroy(c, env, yes=False):
    """Remove the function and everything made for it except the layer; refuses while an invocation is unfinished."""
    target = Target.load(c, env)
    cfg = target.cfg
    print(target.headline)
    function = target.query_json(deploy.get_function(cfg), missing="ResourceNotFoundException")
    account = roles.account_of(target, function)
    arn = f"arn:aws:lambda:{cfg['AWS_REGION']}:{account}:function:{cfg['FUNCTION_NAME']}"
    ours = [one for one in deployments(cfg) if function_of(arn_of(one)) == arn]
    refuse_while_unfinished(target, ours)
    role_names = [name for name, *_ in roles.planned(cfg)]
    everything = f"{len(ours)} registrations, all versions, the log, the alarms and the roles {', '.join(role_names)}"
    confirm(f"This removes {everything}.", cfg["FUNCTION_NAME"], yes or target.dry)
    before = shell.changes
    for check in unfinished(target, ours, late_checks=True):
        change(target, check["id"], "kill")
    for one in ours:
        # A new call may have arrived; an invocation on a deleted deployment could never end.
        refuse_while_unfinished(target, ours)
        restate.delete_deployment(target, one["id"])
    keep_warm.remove(target)
    alarms.remove(target, account)
    if function:
        remove_function(target)
    if logs.find_log_group(target):
        target.execute(logs.delete_log_group(cfg))
    for role in role_names:
        roles.remove(target, role)
    if target.dry:
        print(f"{env}: dry run, nothing was changed")
    else:
        print(f"{env}: {'nothing is left' if shell.changes > before else 'nothing was there'}")


def refuse_while_unfinished(target: Target, ours: list[dict]) -> None:
    """Raise Exit while an invocation of our services is unfinished, a scheduled one included."""
    env, rows = target.env, unfinished(target, ours)
    if rows:
        first = f"{rows[0]['target']} is {rows[0]['status']}"
        fix = f"stop the schedule with `inv schedule stop --env {env}`, and let closings end: `inv status --env {env}`"
        raise Exit(f"{env}: {len(rows)} invocations are unfinished, such as {first}; {fix}. Nothing was removed.")


def unfinished(target: Target, ours: list[dict], late_checks: bool = False) -> list[dict]:
    """Return the unfinished invocations of deployments' services: all but the late checks, or only these."""
    names = sorted({service["name"] for one in ours for service in one["services"]})
    rows = sql(target.cfg, UNFINISHED.format(", ".join(f"'{name}'" for name in names))) if names else []
    return [row for row in rows if ((row["handler"], row["status"]) == LATE_CHECK) is late_checks]


def remove_function(target: Target) -> None:
    """Delete the function with all versions, after what is attached to its alias."""
    alias = target.query_json(get_alias(target.cfg), missing="ResourceNotFoundException") or {}
    attached = alias.get("Description", "")
    if "FUNCTION_URL=on" in attached:
        function_url.remove(target)
    if "PROVISIONED_CONCURRENCY=" in attached:
        target.execute(delete_concurrency(target.cfg))
    target.execute(delete_function(target.cfg))


def list_aliases(cfg):
    return aws(cfg, f"lambda list-aliases --function-name {q(cfg['FUNCTION_NAME'])}")


def delete_version(cfg, version):
    return aws(cfg, f"lambda delete-function --function-name {q(cfg['FUNCTION_NAME'])} --qualifier {q(version)}")


def delete_function(cfg):
    return aws(cfg, f"lambda delete-function --function-name {q(cfg['FUNCTION_NAME'])}")
