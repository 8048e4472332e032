"""The published versions: see them, go back to one, remove old ones, remove everything."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path

from invoke import Exit

from ops import bundle as bundles
from ops import commands, deploy, limits, release, roles, shell, upload
from ops.config import ENV_HELP
from ops.shell import ROOT, sql
from ops.target import Target
from ops.task import ENVIRONMENT, NOTHING, task

RUNNING = (
    "SELECT pinned_deployment_id AS id, count(*) AS n FROM sys_invocation_status"
    " WHERE pinned_deployment_id IS NOT NULL AND status != 'completed' GROUP BY pinned_deployment_id"
)


def held(target: Target) -> dict[str, list[str]]:
    """version -> the aliases that hold it, a weighted second one included."""
    found = target.query_json(commands.list_aliases(target.cfg), missing="ResourceNotFoundException") or {"Aliases": []}
    by_version: dict[str, list[str]] = {}
    for alias in found["Aliases"]:
        weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        for version in (alias["FunctionVersion"], *weights):
            by_version.setdefault(version, []).append(alias["Name"])
    return by_version


def by_arn(cfg) -> dict[str, str]:
    return {release.arn_of(one): one["id"] for one in release.deployments(cfg) if release.arn_of(one)}


@task(group="deploy", changes=NOTHING, help=ENV_HELP)
def versions(c, env):
    """Show the published versions: age, digest and commit, Restate's deployment, running invocations, what is live."""
    target = Target.load(c, env)
    print(target.headline)
    found, aliases, registered = deploy.versions_of(target), held(target), by_arn(target.cfg)
    if not found:
        print(f"{env}: nothing is published; `inv deploy --env {env}` publishes the first version")
        return
    running = {row["id"]: row["n"] for row in sql(target.cfg, RUNNING)}
    newest = {row["deployment_id"] for row in sql(target.cfg, "SELECT deployment_id FROM sys_service")}
    print(f"{'version':<8} {'age':>6}  {'digest, commit':<28} {'Restate':<28} running")
    for one in reversed(found):
        identity = registered.get(one["FunctionArn"], "")
        marks = [*aliases.get(one["Version"], []), *(["Restate's newest"] if identity in newest else [])]
        known_as = one.get("Description") or "-"
        print(
            f"{one['Version']:<8} {age(one['LastModified']):>6}  {known_as:<28} {identity or 'not registered':<28}"
            f" {running.get(identity, 0):>7}  {', '.join(marks)}".rstrip()
        )
    for row in sql(target.cfg, release.WAITING):
        print(f"{row['n']} of {row['service']} wait and will start on Restate's newest")


def age(moment: str) -> str:
    """How long ago, in the largest unit that fills at least one."""
    seconds = (datetime.now(timezone.utc) - datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z")).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


@task(
    group="deploy",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "to": "the version to go back to; default: the newest that differs from what was published last",
        "breaking": "accept that the old version lacks handlers of the new one",
    },
)
def rollback(c, env, to="", breaking=False):
    """Publish an older version's code and configuration as a new version and make that live."""
    target = Target.load(c, env)
    print(target.headline)
    before = shell.changes
    old = chosen(deploy.versions_of(target), to, env)
    if release.by_url(target.cfg) and not old["Environment"]["Variables"].get("RESTATE_IDENTITY_KEYS"):
        raise Exit(
            f"{env}: version {old['Version']} has no RESTATE_IDENTITY_KEYS and would answer nobody behind the URL;"
            " say another with --to, or set FUNCTION_URL=off and deploy first. Nothing was changed."
        )
    release.refuse_other_protocol(target, old["Version"])
    print(f"{env}: back to version {old['Version']}, {old.get('Description') or 'without a description'}")
    restore(target, old)
    found = target.query_json(commands.get_function(target.cfg))["Configuration"]
    if not target.dry and not deploy.same(found, old):
        raise Exit("somebody else has changed the function meanwhile; nothing was published. Run it again")
    said = (old.get("Description") or "").removeprefix("back to ").split(": ", 1)[-1]
    version_arn = deploy.ensure_version(target, found, f"back to {old['Version']}: {said}".rstrip(": "))
    release.take(target, version_arn, breaking, before)
    deploy.summary(target, version_arn, before)


def chosen(found: list[dict], to: str, env: str) -> dict:
    """The version to go back to; Exit with those that there are."""
    known = ", ".join(one["Version"] for one in found[-10:]) or "none"
    if to:
        candidates = [one for one in found if one["Version"] == to]
    else:
        candidates = [one for one in found if not deploy.same(one, found[-1])]
    if not candidates:
        wanted = f"no version {to!r}" if to else "no older version that differs from the newest"
        raise Exit(f"{env}: there is {wanted}; known: {known}. Nothing was changed.")
    return candidates[-1]


def restore(target: Target, old) -> None:
    """Give the function a version's code and configuration; the variables travel from AWS to AWS in a file."""
    now = expected = target.query_json(commands.get_function(target.cfg))["Configuration"]
    if now["CodeSha256"] != old["CodeSha256"]:
        zipped = code_of(target, old)
        target.execute(commands.update_code(target.cfg, zipped, deploy.revision(target, expected)))
        target.execute(commands.wait_until_updated(target.cfg))
        expected = {"CodeSha256": old["CodeSha256"]}
    if not deploy.same({**now, "CodeSha256": old["CodeSha256"]}, old):
        in_vpc = deploy.in_vpc(now)
        before = target.having(**configured_as(old))
        if deploy.in_vpc(old):
            roles.ensure_execution_role(before)
        with deploy.environment_file(target, old["Version"]) as file:
            revision = deploy.revision(target, expected)
            target.execute(commands.update_configuration(before.cfg, old["Role"], file, revision, in_vpc))
        target.execute(commands.wait_until_updated(target.cfg))


def configured_as(old: dict) -> dict[str, str]:
    layers = old.get("Layers") or []
    return {
        "RUNTIME": old["Runtime"],
        "TIMEOUT": str(old["Timeout"]),
        "MEMORY": str(old["MemorySize"]),
        "LAYER_VERSION_ARN": layers[0]["Arn"] if layers else "",
        "VPC_SUBNET_IDS": ",".join((old.get("VpcConfig") or {}).get("SubnetIds") or []),
        "VPC_SECURITY_GROUP_IDS": ",".join((old.get("VpcConfig") or {}).get("SecurityGroupIds") or []),
    }


def code_of(target: Target, old) -> bundles.Bundle:
    """A version's zip: one that was made here, or a copy from AWS; Exit where the copy is not what AWS says it is."""
    here = (as_bundle(path) for path in (ROOT / "build" / "bundles").glob("*.zip"))
    made = next((one for one in here if deploy.as_aws(one.sha256) == old["CodeSha256"]), None)
    made = made or fetched(target, old)
    limits.check_bundle(made.size, made.unzipped, target.cfg["DEPLOY_BUCKET"], {})
    upload.bring_to_bucket(target, made)
    return made


def fetched(target: Target, old) -> bundles.Bundle:
    path = ROOT / "build" / f"version-{old['Version']}.zip"
    path.parent.mkdir(exist_ok=True)
    target.run_local(commands.save_code(target.cfg, old["Version"], str(path.relative_to(ROOT))))
    made = as_bundle(path)
    if not target.dry and deploy.as_aws(made.sha256) != old["CodeSha256"]:
        path.unlink()
        raise Exit(
            f"the zip that AWS sent for version {old['Version']} is not the one it was published with; check out its"
            " commit and deploy that. Nothing was changed."
        )
    return made


def as_bundle(path: Path) -> bundles.Bundle:
    """A zip by its bytes alone; a rehearsal has fetched none."""
    content = path.read_bytes() if path.exists() else b""
    return bundles.Bundle(path, "", hashlib.sha256(content).hexdigest(), len(content), 0, "", "")


@task(
    group="deploy", changes=ENVIRONMENT, help={**ENV_HELP, "keep": "how many of the newest versions stay in any case"}
)
def prune(c, env, keep):
    """Remove old versions from Restate and AWS; never one that an invocation, an alias or a service still needs."""
    if not keep.isdigit() or int(keep) < 1:
        raise Exit(f"--keep {keep!r}: expected a number from 1; the newest version always stays. Nothing was deleted.")
    target = Target.load(c, env)
    print(target.headline)
    found = deploy.versions_of(target)
    aliases, registered = held(target), by_arn(target.cfg)
    removed = []
    for one in found[: -int(keep)]:
        identity = registered.get(one["FunctionArn"])
        reason = needed(target.cfg, one["Version"], identity, aliases)
        if reason:
            print(f"version {one['Version']} stays: {reason}")
            continue
        if identity:
            release.delete_deployment(target, identity)
        target.execute(commands.delete_version(target.cfg, one["Version"]))
        removed.append(one)
    if not target.cfg["VPC_SUBNET_IDS"] and not any(deploy.in_vpc(one) for one in found if one not in removed):
        roles.leave_vpc(target)
    print(f"{env}: {len(removed)} {'would be deleted' if target.dry else 'deleted'}")


def needed(cfg, version: str, identity: str | None, aliases: dict[str, list[str]]) -> str:
    """Why a version has to stay, asked of Restate at this moment; "" where nothing needs it."""
    if version in aliases:
        return f"the alias {', '.join(aliases[version])} holds it"
    if identity and identity not in {row["id"] for row in sql(cfg, release.DRAINED)}:
        running = {row["id"]: row["n"] for row in sql(cfg, RUNNING)}.get(identity, 0)
        return f"{running} invocations run on it" if running else "Restate starts new invocations on it"
    return ""
