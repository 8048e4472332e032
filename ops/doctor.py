"""inv doctor: check the whole chain, from the env file to running closings, a line each. It changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator

from invoke import Exit

from handler.plan import describe_hold
from layer import publish as layers
from ops import (
    attention,
    closings,
    config,
    deploy,
    invocations,
    keep_warm,
    limits,
    next_command,
    ping,
    readiness,
    release,
    roles,
    schedule,
    secret_tasks,
    shell,
)
from ops.alias import get_alias, held_by
from ops.env_tasks import SHAPE
from ops.findings import Finding, failed, line, passed
from ops.restate import first_line, message, newest, one_line, request
from ops.target import Target
from ops.task import NOTHING, task

MIN_MEMORY = 1024
# Error of a part that is down or refuses access, so that several checks fail -> its fix.
ROOTS = (
    (
        r"Restate at \S+ does not answer",
        "check that RESTATE_ADMIN_URL of env/{env}.env is right and that the server runs",
    ),
    (
        r"(Could not connect to|timeout on) (the )?endpoint URL",
        "check the network, and AWS_REGION and AWS_ENDPOINT_URL of env/{env}.env, then inv doctor --env {env}",
    ),
    (
        r"Unable to locate credentials|ExpiredToken|InvalidClientTokenId|UnrecognizedClientException"
        r"|SignatureDoesNotMatch|InvalidSignatureException|InvalidAccessKeyId"
        r"|SSO Token|Token has expired|The config profile|aws sso login",
        "sign in, or name a profile as AWS_PROFILE in env/{env}.env",
    ),
    (r"has no live version|has no version that is live|Function not found", "inv deploy --env {env}"),
)
# Name -> the check, and the fix if it ends with an Exit.
Checks = dict[str, tuple[Callable[[Target], Iterator[Finding]], str]]


@task(
    group="watch",
    changes=NOTHING,
    uses=("aws",),
    help={
        **config.ENV_HELP,
        "json": "print JSON, for machines",
        "test-job": "run a job in Genius that never calls the procedure, and drop it",
    },
)
def doctor(c, env, json=False, test_job=False):
    """Check the whole chain, from credentials to closings that wait for a person; exit 1 if a check failed."""
    findings = []
    for finding in walk(c, env, test_job):
        findings.append(finding)
        if not json:
            print(line(finding), flush=True)
    if json:
        print(as_json(findings))
    failures = sum(not finding.passed for finding in findings)
    if failures:
        raise Exit(code=1) if json else Exit(f"{env}: {failures} of {len(findings)} checks failed")


def as_json(findings: list[Finding]) -> str:
    return json.dumps([finding._asdict() for finding in findings], indent=2)


def walk(c, env: str, test_job: bool = False) -> Iterator[Finding]:
    """Check the env file first: every other check needs it; raises Exit if there is none.

    test_job: run a test job in Genius, too.
    """
    config.check_known(env)
    try:
        target = Target.load(c, env)
        limits.check(target)
    except Exit as error:
        fix = f"correct env/{env}.env, then inv env.check --env {env}"
        yield failed(str(error.message), fix_of(error, fix), "env file")
        return
    yield passed(f"env/{env}.env has every key, and all values are valid", "env file")
    yield from examine(target, CHECKS | TEST_JOB if test_job else CHECKS)


def examine(target: Target, checks: Checks) -> Iterator[Finding]:
    """Run every check; one that raises Exit has failed. A part that is down gives one finding.

    checks: for each name the check, and the fix for its Exit.
    """
    known, failing = set(), set()
    for name, (check, fix) in checks.items():
        if NEEDED.get(name) in failing:
            continue
        try:
            for finding in check(target):
                finding = finding if finding.name else finding._replace(name=name)
                failing |= set() if finding.passed else {finding.name}
                yield finding
        except Exit as error:
            text = str(error.message).removesuffix(f"; {shell.START}").partition("; next: ")[0]
            root, its_fix = next(((sign, its_fix) for sign, its_fix in ROOTS if re.search(sign, text)), (text, fix))
            if root not in known:
                yield failed(text, fix_of(error, its_fix.format(env=target.env)), name)
            known.add(root)


def fix_of(error: Exit, usual: str) -> str:
    """Return the fix of a check that could not run: that of a local cloud that is down, else the usual one."""
    return "inv local.up" if "`inv local.up`" in str(error.message) else usual


def set_value(env: str, key: str, value: str) -> str:
    """Format the command that changes one line of an environment's file."""
    return f"sed -i.bak 's|^{key}=.*|{key}={value}|' env/{env}.env"


def cli(target: Target) -> Iterator[Finding]:
    version = target.query("aws --version").split()[0]
    if shutil.which("restate", path=shell.search_path(os.environ)):
        yield passed(version)
    else:
        yield failed("the restate CLI, which a deploy needs, is not installed", "inv local.tools")


def credentials(target: Target) -> Iterator[Finding]:
    identity = target.query_json(shell.get_account(target.cfg))
    yield evaluate_account(identity, target.cfg, target.env)


def evaluate_account(identity: dict, cfg: dict, env: str) -> Finding:
    """Compare the account with the one of the role that Restate assumes, which is in the function's account."""
    wanted = cfg["RESTATE_INVOKE_ROLE_ARN"].split(":")[4:5]
    if wanted and wanted != [identity["Account"]]:
        return failed(
            f"{identity['Arn']} is in account {identity['Account']}, RESTATE_INVOKE_ROLE_ARN in {wanted[0]}",
            f"name a profile of account {wanted[0]}: {set_value(env, 'AWS_PROFILE', 'PROFILE')}",
        )
    return passed(f"{identity['Arn']} in account {identity['Account']}")


def role(target: Target) -> Iterator[Finding]:
    """Compare each role of the environment, its trust and its policies, with policies/."""
    fix = f"inv roles --env {target.env}"
    account = roles.account_of(target, None)
    target = roles.with_references(target)
    for name, trust, policies in roles.planned(target.cfg):
        found = roles.find_role(target, name)
        if not found:
            yield failed(f"there is no role {name}", fix)
            continue
        differing = [one.message for one in roles.differences(target, account, found["Arn"], found, trust, policies)]
        differing += [roles.no_longer_wanted(name, one) for one in roles.unused_policies(target, name, policies)]
        for one in differing:
            yield failed(one, fix)
        if not differing:
            yield passed(f"{name} agrees with policies/")


def no_live_version(cfg: dict) -> str:
    return f"{cfg['FUNCTION_NAME']} has no live version"


def function(target: Target) -> Iterator[Finding]:
    """Compare the live version with the env file; the configuration of a version cannot change."""
    cfg = target.cfg
    found = target.query_json(ping.get_configuration(cfg), missing="ResourceNotFoundException")
    if not found:
        raise Exit(no_live_version(cfg))
    target = deploy.completed(target)
    wanted = target.having(LAYER_VERSION_ARN=layers.attached(target)).cfg
    faults = list(evaluate_function(found, wanted, target.env))
    yield from faults
    if not faults:
        yield passed(f"version {found['Version']}, {found['Runtime']}, {found['MemorySize']} MB, {found['Timeout']} s")


def evaluate_function(found: dict, cfg: dict, env: str) -> Iterator[Finding]:
    """Return the failures of a function's configuration; cfg: with LAYER_VERSION_ARN as a deploy would attach it."""
    fix = f"inv deploy --env {env}"
    role_arn = f"{found['Role'].rpartition('/')[0]}/{cfg['ROLE_NAME']}"
    parts = deploy.differs(found, cfg, role_arn)
    for part in [part for part in parts if part in SHAPE and part != "Layers"]:
        yield failed(f"{part} is {found.get(part)}, env/{env}.env has {cfg[SHAPE[part]]}", fix)
    if found["MemorySize"] < MIN_MEMORY:
        more = f"{set_value(env, 'MEMORY', str(MIN_MEMORY))} && {fix}"
        yield failed(f"{found['MemorySize']} MB of memory, at least {MIN_MEMORY} are needed", more)
    if found.get("LastUpdateStatus", "Successful") != "Successful":
        yield failed(f"its last update is {found['LastUpdateStatus']}: {found.get('LastUpdateStatusReason')}", fix)
    if "Layers" in parts:
        attached = ", ".join(one["Arn"] for one in found.get("Layers") or []) or "none"
        yield failed(f"the layer is {attached}, expected {cfg['LAYER_VERSION_ARN'] or 'none'}", fix)
    for part, name in (("Role", "role"), ("VpcConfig", "network"), ("Handler", "handler")):
        if part in parts:
            yield failed(f"its {name} differs from env/{env}.env: {found.get(part)}", fix)
    differing = [part for part in parts if part not in (*SHAPE, "Role", "VpcConfig", "Handler")]
    if differing:
        yield failed(f"its environment differs from env/{env}.env in {', '.join(differing)}", fix)


def network(target: Target) -> Iterator[Finding]:
    """List what must be open. Only the deep ping shows whether it is: to evaluate AWS's rules here would be a guess."""
    yield passed(readiness.reachability(deploy.completed(target).cfg))


def secrets(target: Target) -> Iterator[Finding]:
    """Let the function resolve its references and log in with them."""
    found = secret_tasks.findings(deploy.completed(target))
    yield from (passed(text) if ok else failed(text, fix) for ok, text, fix in found)
    if not found:
        yield passed("no user or password is a reference")


def restate(target: Target) -> Iterator[Finding]:
    cfg, fix = target.cfg, f"inv deploy --env {target.env}"
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/deployments")
    if status != 200:
        error = f"{cfg['RESTATE_ADMIN_URL']} answered {status}: {one_line(message(answer))}"
        yield failed(error, f"correct RESTATE_AUTH_TOKEN, which env/{target.env}.env refers to")
        return
    alias = target.query_json(get_alias(cfg), missing="ResourceNotFoundException")
    if not alias:
        raise Exit(no_live_version(cfg))
    arn = held_by(alias)
    found = release.find_deployment(cfg, arn)
    if not found:
        yield failed(f"{arn} is not registered", fix)
    elif "arn" in found and (found.get("assume_role_arn") or "") != release.invoke_role(cfg, arn):
        known, wanted = found.get("assume_role_arn") or "no role", release.invoke_role(cfg, arn) or "none"
        fix = invocations.with_shell(cfg, release.register(cfg, arn, again=True))
        yield failed(f"{arn} is registered with {known}, expected {wanted}", fix)
    elif found["id"] != newest(cfg):
        yield failed(f"Restate starts closings on {newest(cfg)}, not on {arn}", fix)
    else:
        yield passed(f"{arn} is registered as {found['id']}, and closings start on it")


def daily_schedule(target: Target) -> Iterator[Finding]:
    state = closings.state_of(target.cfg, schedule.SERVICE, schedule.KEY)
    runs, text, fix = schedule.check(target.cfg, state, target.env)
    # A call that fails goes on by itself; a cause that no other check finds is in the log.
    fix = f"inv logs --env {target.env} --since 1h" if fix.startswith("inv doctor") else fix
    yield passed(text) if runs else failed(text, fix)
    if hold := state.get("hold"):
        yield failed(describe_hold(hold), f"inv release --env {target.env}")


def warm(target: Target) -> Iterator[Finding]:
    fault = keep_warm.find_fault(keep_warm.inspect(target), keep_warm.live(target))
    yield failed(fault, f"inv keep-warm on --env {target.env}") if fault else passed("the live version is kept warm")


def periods(target: Target) -> Iterator[Finding]:
    blocked = attention.blocked_periods(target.cfg)
    for period, one in blocked.items():
        text = f"{period} is blocked by {one['job']}: {one_line(one['message'])}"
        yield failed(text, next_command.command(target, one["date"] or f"{period}-01"))
    if not blocked:
        yield passed("no period is blocked")


def scheduled_dates(target: Target) -> Iterator[Finding]:
    state = closings.state_of(target.cfg, schedule.SERVICE, schedule.KEY)
    failures = attention.failed_dates(target.cfg, state, attention.blocked_periods(target.cfg))
    for date, text in failures.items():
        yield failed(f"{date} failed: {first_line(text)}", next_command.command(target, date))
    if not failures:
        yield passed("no date of the schedule's last run has failed")


def paused(target: Target) -> Iterator[Finding]:
    """Report each paused invocation once."""
    rows = closings.paused(target.cfg)
    for row in rows:
        text = f"{row['target']} {row['id']} is paused: {first_line(closings.last_failure(target.cfg, row))}"
        # A call of the scheduler has no date.
        date, call = row["date"], invocations.manual_command(target.cfg, row["id"], "resume")
        yield failed(text, f"remove its cause, then {next_command.command(target, date) if date else call}")
    if not rows:
        yield passed("no invocation is paused")


DEPLOY, UP = "inv deploy --env {env}", "check that RESTATE_ADMIN_URL of env/{env}.env is right and that the server runs"
LOG = "inv logs --env {env} --since 1h"
BACK = f"inv rollback --env {{env}}, or correct the cause, which {LOG} shows, and {DEPLOY}"
CHECKS: Checks = {
    "cli": (cli, "make .venv/ready"),
    "credentials": (credentials, "sign in, or name a profile as AWS_PROFILE in env/{env}.env"),
    "roles": (role, "inv roles --env {env}"),
    "function": (function, DEPLOY),
    "network": (network, DEPLOY),
    "ping": (readiness.check, BACK),
    "secrets": (secrets, BACK),
    "restate": (restate, UP),
    "schedule": (daily_schedule, UP),
    "keep-warm": (warm, DEPLOY),
    "periods": (periods, UP),
    "dates": (scheduled_dates, UP),
    "paused": (paused, UP),
}
# Check -> the finding without which it would only fail again.
NEEDED = {"test job": "oracle"}
# Only on request: it creates a job in Genius, and drops it again.
TEST_JOB: Checks = {"test job": (readiness.test_job, LOG)}
