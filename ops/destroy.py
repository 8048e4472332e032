"""inv destroy: everything of an environment's function that tasks of ours have made, in an order that AWS takes."""

from __future__ import annotations

from invoke import Exit

from ops import alarms, commands, function_url, keep_warm, release, roles, shell
from ops.config import ENV_HELP
from ops.logs import find_group
from ops.repair import ask
from ops.shell import execute, query_json, sql
from ops.task import ENVIRONMENT, task
from ops.versions import shown

# What a live invocation of a service is: running, waiting in a queue, or scheduled for later.
LIVE = "SELECT id, target, status FROM sys_invocation WHERE status != 'completed' AND target_service_name IN ({})"


@task(group="deploy", changes=ENVIRONMENT, help={**ENV_HELP, "yes": "do not ask"})
def destroy(c, env, yes=False):
    """Remove the function and all that was made for it, the layer excepted; refuses while anything is live."""
    cfg = shown(env)
    function = query_json(c, cfg, commands.get_function(cfg), missing="ResourceNotFoundException")
    account = roles.found_account(c, cfg, function)
    prefix = f"arn:aws:lambda:{cfg['AWS_REGION']}:{account}:function:{cfg['FUNCTION_NAME']}"
    ours = [one for one in release.deployments(cfg) if release.function_of(release.arn_of(one)) == prefix]
    refuse_while_live(cfg, env, ours)
    ours_too = [name for name, *_ in roles.planned(cfg)]
    if not c.config.run.dry:
        what = f"{len(ours)} registrations, every version, the log, the alarms and the roles {', '.join(ours_too)} go."
        ask(what, cfg["FUNCTION_NAME"], yes)
    before = shell.changes
    for one in ours:
        # A call may have come since; what runs on a deleted deployment could never end.
        refuse_while_live(cfg, env, ours)
        release.delete_deployment(c, cfg, one["id"])
    keep_warm.remove(c, cfg)
    alarms.remove(c, cfg, account)
    if function:
        remove_function(c, cfg)
    if find_group(c, cfg):
        execute(c, cfg, commands.delete_log_group(cfg))
    for role in ours_too:
        roles.remove(c, cfg, role)
    if c.config.run.dry:
        print(f"{env}: this was a rehearsal, nothing was changed")
    else:
        print(f"{env}: {'nothing is left' if shell.changes > before else 'nothing was there'}")


def refuse_while_live(cfg, env, ours: list[dict]) -> None:
    """Exit while an invocation of our services has not ended, a scheduled one included."""
    names = sorted({service["name"] for one in ours for service in one["services"]})
    if not names:
        return
    rows = sql(cfg, LIVE.format(", ".join(f"'{name}'" for name in names)))
    if rows:
        first = f"{rows[0]['target']} is {rows[0]['status']}"
        hint = f"end the schedule with `inv schedule stop --env {env}` and let closings end, or `inv cancel` them"
        raise Exit(f"{env}: {len(rows)} invocations are live, such as {first}; {hint}. Nothing was removed.")


def remove_function(c, cfg) -> None:
    """All versions with it; what hangs on the alias first, by name, for whoever reads the echo."""
    alias = query_json(c, cfg, commands.get_alias(cfg), missing="ResourceNotFoundException") or {}
    borne = alias.get("Description", "")
    if "FUNCTION_URL=on" in borne:
        function_url.remove(c, cfg)
    if "PROVISIONED_CONCURRENCY=" in borne:
        execute(c, cfg, commands.delete_concurrency(cfg))
    execute(c, cfg, commands.delete_function(cfg))
