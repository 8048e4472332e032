"""inv destroy: everything of an environment's function that tasks of ours have made, in an order that AWS takes."""

from __future__ import annotations

from invoke import Exit

from ops import alarms, commands, function_url, keep_warm, logs, release, roles, shell
from ops.config import ENV_HELP
from ops.repair import confirm
from ops.shell import sql
from ops.target import Target
from ops.task import ENVIRONMENT, task

# What a live invocation of a service is: running, waiting in a queue, or scheduled for later.
LIVE = "SELECT id, target, status FROM sys_invocation WHERE status != 'completed' AND target_service_name IN ({})"


@task(group="deploy", changes=ENVIRONMENT, help={**ENV_HELP, "yes": "do not ask"})
def destroy(c, env, yes=False):
    """Remove the function and all that was made for it, the layer excepted; refuses while anything is live."""
    target = Target.load(c, env)
    print(target.headline)
    function = target.query_json(commands.get_function(target.cfg), missing="ResourceNotFoundException")
    account = roles.found_account(target, function)
    prefix = f"arn:aws:lambda:{target.cfg['AWS_REGION']}:{account}:function:{target.cfg['FUNCTION_NAME']}"
    ours = [one for one in release.deployments(target.cfg) if release.function_of(release.arn_of(one)) == prefix]
    refuse_while_live(target, ours)
    ours_too = [name for name, *_ in roles.planned(target.cfg)]
    if not target.dry:
        what = f"{len(ours)} registrations, every version, the log, the alarms and the roles {', '.join(ours_too)} go."
        confirm(what, target.cfg["FUNCTION_NAME"], yes)
    before = shell.changes
    for one in ours:
        # A call may have come since; what runs on a deleted deployment could never end.
        refuse_while_live(target, ours)
        release.delete_deployment(target, one["id"])
    keep_warm.remove(target)
    alarms.remove(target, account)
    if function:
        remove_function(target)
    if logs.find_log_group(target):
        target.execute(logs.delete_log_group(target.cfg))
    for role in ours_too:
        roles.remove(target, role)
    if target.dry:
        print(f"{env}: this was a rehearsal, nothing was changed")
    else:
        print(f"{env}: {'nothing is left' if shell.changes > before else 'nothing was there'}")


def refuse_while_live(target: Target, ours: list[dict]) -> None:
    """Exit while an invocation of our services has not ended, a scheduled one included."""
    names = sorted({service["name"] for one in ours for service in one["services"]})
    if not names:
        return
    env, rows = target.env, sql(target.cfg, LIVE.format(", ".join(f"'{name}'" for name in names)))
    if rows:
        first = f"{rows[0]['target']} is {rows[0]['status']}"
        hint = f"end the schedule with `inv schedule stop --env {env}` and let closings end, or `inv cancel` them"
        raise Exit(f"{env}: {len(rows)} invocations are live, such as {first}; {hint}. Nothing was removed.")


def remove_function(target: Target) -> None:
    """All versions with it; what hangs on the alias first, by name, for whoever reads the echo."""
    alias = target.query_json(commands.get_alias(target.cfg), missing="ResourceNotFoundException") or {}
    borne = alias.get("Description", "")
    if "FUNCTION_URL=on" in borne:
        function_url.remove(target)
    if "PROVISIONED_CONCURRENCY=" in borne:
        target.execute(commands.delete_concurrency(target.cfg))
    target.execute(commands.delete_function(target.cfg))
