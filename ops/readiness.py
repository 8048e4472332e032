"""The readiness check: what the function itself sees of both databases before the first night. It changes nothing.

FACTS is the table of the checks of Genius: the function reads the facts (handler/readiness.py), this evaluates them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date

from handler.client import ERRORS
from layer.client import PAGE
from ops import config, deploy, ping, references, secret_tasks
from ops.environment import LOOPBACK
from ops.findings import Finding, failed, passed, warned
from ops.target import Target

# https://docs.oracle.com/en/database/oracle/oracle-database/19/lnoci/instant-client.html, the list for 19's Basic Lite.
BASIC_LITE = {"US7ASCII", "WE8DEC", "WE8MSWIN1252", "WE8ISO8859P1", "WE8EBCDIC37C", "WE8EBCDIC1047", "UTF8", "AL32UTF8"}
# The data library of Basic, which knows every character set.
BASIC_DATA = "libociei.so"
LIBRARIES = ("libclntsh.so", "libaio.so.1", "libnsl.so.1")
GRANTS = {
    "CREATE JOB": "GRANT CREATE JOB TO {user}",
    "EXECUTE": "GRANT EXECUTE ON Package_Rpt_Ac_Fi806 TO {user}",
    "SELECT": "GRANT SELECT ON ACPDB.AC_GLOPENBALANCE TO {user}",
}
# The compatibility table of python-oracledb's installation guide: the oldest client and database that releases 1.4 to
# 3.4.2, and 4.0 and later, are tested with in thick mode.
OLDEST_BEFORE_4, OLDEST_SINCE_4 = (11, 2), (19,)
# Database -> its name, and the settings of its address and of its login.
DATABASES = {
    "postgres": ("PostgreSQL", "PG_HOST or PG_PORT", "PG_USER or PG_PASSWORD"),
    "oracle": ("Genius", "ORACLE_CONNECT_STRING", "ORACLE_USER or ORACLE_PASSWORD"),
}
# How long the doctor waits for an answer: a slow Genius takes all of the function's own limits.
LIMIT_SECONDS = 60
# How long before the end of a password the doctor warns.
WARN_DAYS = 14
TEXTS = ("VARCHAR2", "NVARCHAR2", "CHAR")


def reachability(cfg: dict) -> str:
    """Describe what the function's network must allow for both databases."""
    databases = f"{cfg['PG_HOST']}:{cfg['PG_PORT']} and {cfg['ORACLE_CONNECT_STRING']} (port 1521 if it names none)"
    if not cfg["VPC_SUBNET_IDS"]:
        return f"the function is in no VPC; it must reach {databases}"
    return (
        f"{cfg['VPC_SUBNET_IDS']} need a route, and {cfg['VPC_SECURITY_GROUP_IDS']} must allow outbound TCP,"
        f" to {databases}{endpoints(cfg)}"
    )


def endpoints(cfg: dict) -> str:
    """Describe the way to the stores of references; a KMS endpoint is not needed: the stores decrypt themselves."""
    names = references.services(references.named(cfg).values())
    if not names:
        return ""
    wanted = " and ".join(f"com.amazonaws.{cfg['AWS_REGION']}.{name}" for name in names)
    return f"; and on 443 to a NAT gateway or the interface endpoint {wanted} with private DNS"


def check(target: Target) -> Iterator[Finding]:
    """Send one readiness event, and evaluate its answer: client, both databases, and what a closing needs of them."""
    target = deploy.completed(target)
    answer = ping.send(target, {"readiness": True}, LIMIT_SECONDS)
    yield passed(f"version {answer['version']} answers, {ping.format_start(answer)}", "ping")
    yield evaluate_client(answer["client"], target.env)
    # A client that does not work is one finding.
    for name in ("postgres",) if answer["client"]["error"] else ("postgres", "oracle"):
        # The check of secrets reports what is wrong with a reference, with its fix.
        if "kind" not in answer[name] or not secret_tasks.by_reference(target.cfg, name):
            yield evaluate_database(name, answer[name], target.cfg, target.env)
    # The setting can be a reference.
    target = target.having(ORACLE_USER=answer["oracle"].get("user", target.cfg["ORACLE_USER"]))
    if answer["postgres"]["ok"]:
        yield from evaluate_schema(answer["postgres"], target.cfg, target.env)
    if answer["oracle"]["ok"]:
        yield evaluate_character_set(answer["oracle"]["characterSet"], answer["client"], target.env)
        yield evaluate_versions(answer["client"], answer["oracle"]["version"])
        yield evaluate_rights(answer["oracle"]["rights"], target.cfg)
        yield from evaluate_facts(answer["facts"], target)


def evaluate_client(client: dict, env: str) -> Finding:
    """Check that the function itself sees all libraries that thick mode needs."""
    if client["mode"] == "thin":
        return passed("thin mode, which needs no layer", "layer")
    libraries = client["libraries"]
    missing = [name for name in LIBRARIES if name not in libraries]
    if not any(re.fullmatch(r"libclntsh\.so\.\d+\.\d+", name) for name in libraries):
        missing.append("libclntsh.so.VERSION")
    if missing:
        return failed(f"the function has no {', '.join(missing)}", f"make layer publish deploy ENV={env}", "layer")
    if client["error"]:
        return failed(client["error"], f"as in the message; then inv doctor --env {env}", "layer")
    return passed(f"Instant Client {client['version']}{age(client['version'])}, {len(libraries)} libraries", "layer")


def age(version: str, today: date | None = None) -> str:
    """Return when a client of 19 was released, in words: each quarter since 19.3 of April 2019 has had one."""
    major, minor = map(int, version.split(".")[:2])
    if major != 19 or minor < 3:
        return ""
    quarters = minor - 3
    released = date(2019 + (quarters + 1) // 4, (3 + 3 * quarters) % 12 + 1, 1)
    today = today or date.today()
    months = (today.year - released.year) * 12 + today.month - released.month
    return f" of {released:%B %Y}, {months} months old (newer releases of 19: {PAGE})"


def evaluate_versions(client: dict, database: str) -> Finding:
    """Compare driver, client and database with the compatibility table of python-oracledb's installation guide.

    In thin mode, too, with the row of thick mode: an update of the driver is tried on the local cloud first.
    """
    driver, names = client["driver"], f"python-oracledb {client['driver']}"
    thin = client["mode"] == "thin"
    text = (
        f"{names} in thin mode, Oracle {database}"
        if thin
        else f"{names}, Instant Client {client['version']}, Oracle {database}"
    )
    oldest = OLDEST_BEFORE_4 if numbers(driver) < (4,) else OLDEST_SINCE_4
    parts = {"database": database} if thin else {"client": client["version"], "database": database}
    outside = [name for name, version in parts.items() if numbers(version) < oldest]
    if not outside:
        return passed(text if thin else f"{text}: tested together", "versions")
    tested = ".".join(map(str, oldest))
    table = "the release of oracledb that its compatibility table names for this database"
    fix = f"pin {table} in handler/requirements.in and requirements.txt, then inv lock"
    return warned(f"{text}: its driver is tested with a {' and '.join(outside)} from {tested} on", fix, "versions")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def evaluate_database(name: str, answer: dict, cfg: dict, env: str) -> Finding:
    """Format a database's part of a deep ping; an error that the function knows already names its fix."""
    if answer["ok"]:
        return passed(f"{answer['version']} in {answer['seconds'] * 1000:.0f} ms", name)
    error, deployed = answer["error"], f"then inv deploy --env {env}"
    if "Connection refused" in error and cfg["PG_HOST"] in LOOPBACK:
        return failed(error, "inv local.up", name)
    if name == "oracle" and any(code in error for code in ERRORS):
        return failed(error, f"as in the message; {deployed}", name)
    database, address, login = DATABASES[name]
    if "refused the login" in error:
        return failed(error, f"correct {login} of env/{env}.env, {deployed}", name)
    fix = f"have {database} started, or if {address} of env/{env}.env is wrong, correct it, {deployed}"
    return failed(error, f"{fix}; the network: {reachability(cfg)}", name)


def evaluate_schema(answer: dict, cfg: dict, env: str) -> Iterator[Finding]:
    """Format the faults that the function finds in tables, columns, function, encoding and grants."""
    for fault in answer["faults"]:
        fix = f"inv schema --env {env}"
        text, ours, _ = fault.partition(f"; run `{fix}`")
        yield failed(text, fix if ours else f"as in the message; then {fix}", "schema")
    if not answer["faults"]:
        yield passed(f"tables, columns, function, encoding and grants of {cfg['PG_SCHEMA']} are as expected", "schema")


def evaluate_character_set(name: str, client: dict, env: str) -> Finding:
    """Compare the database's character set with those of Basic Lite; in thin mode that is a warning."""
    if name in BASIC_LITE or BASIC_DATA in client["libraries"]:
        return passed(name, "charset")
    cause, fix = ERRORS["ORA-12737"]
    report = warned if client["mode"] == "thin" else failed
    return report(f"{name}: {cause}, so thick mode fails with ORA-12737", config.name_environment(fix, env), "charset")


def evaluate_rights(rights: list[str], cfg: dict) -> Finding:
    missing = [right for right in GRANTS if right not in rights]
    if not missing:
        return passed(f"{cfg['ORACLE_USER']} has {', '.join(GRANTS)} as a closing needs them", "rights")
    grants = "; ".join(GRANTS[right] for right in missing).format(user=cfg["ORACLE_USER"])
    return failed(f"{cfg['ORACLE_USER']} lacks {' and '.join(missing)}", f"have Genius' owner run {grants}", "rights")


def evaluate_facts(facts: dict[str, dict], target: Target) -> Iterator[Finding]:
    """Evaluate each fact that the function has read; a value that its user may not read is not a failure."""
    for name, evaluate in FACTS.items():
        found = facts.get(name, {"unreadable": "the function did not get as far"})
        if "unreadable" in found:
            yield passed(f"not readable: {found['unreadable']}", name)
        else:
            yield evaluate(found["value"], target)._replace(name=name)


def evaluate_login(login: dict, target: Target) -> Finding:
    """Warn of a password that expires within WARN_DAYS, or of which Oracle itself warns (ORA-28002)."""
    expires, user = login["expires"], target.cfg["ORACLE_USER"]
    soon = expires and (date.fromisoformat(expires) - date.today()).days <= WARN_DAYS
    if login["warning"] or soon:
        when = f"the password of {user} expires on {expires}" if expires else f"the login of {user} has a warning"
        fix = f"change it in Genius, correct ORACLE_PASSWORD, then inv deploy --env {target.env}"
        if stored := references.named(target.cfg).get("ORACLE_PASSWORD"):
            fix = f"change it in Genius and in {stored}, then inv secrets.check --env {target.env}"
        return warned(f"{when}{': ' + login['warning'] if login['warning'] else ''}", fix)
    return passed(f"{user}, {login['account']}; the password {f'expires on {expires}' if expires else 'never expires'}")


def evaluate_arguments(found: list, target: Target) -> Finding:
    """Compare the arguments of get_master_data, of each version of it that the user sees, with those of a closing."""
    for arguments in found:
        directions = [direction for _, direction in arguments]
        texts = all(kind in TEXTS for kind, _ in arguments)
        gives = len(directions) == 6 and set(directions[4:]) <= {"OUT", "IN/OUT"}
        if texts and gives and directions[:4] == ["IN"] * 4:
            return passed("get_master_data takes four texts, and gives a status and a message")
    seen = "; ".join(", ".join(f"{kind} {direction}" for kind, direction in one) for one in found) or "none"
    fix = "have Genius' owner check the package; a closing calls it as handler/closing_job.sql does"
    return failed(f"get_master_data needs four texts IN and two OUT; {target.cfg['ORACLE_USER']} sees {seen}", fix)


def evaluate_job_queue(processes: int | None, target: Target) -> Finding:
    if processes == 0:
        fix = "have Genius' administrator run ALTER SYSTEM SET JOB_QUEUE_PROCESSES = 1000"
        return failed("JOB_QUEUE_PROCESSES is 0, so no job ever starts", fix)
    return passed(f"JOB_QUEUE_PROCESSES is {processes}")


def evaluate_scheduler(attributes: dict, target: Target) -> Finding:
    """Check that jobs start at all, and that the details of a run are kept for longer than a closing waits for them."""
    administrator = "have Genius' administrator run DBMS_SCHEDULER.SET_SCHEDULER_ATTRIBUTE"
    if (attributes.get("SCHEDULER_DISABLED") or "").upper() == "TRUE":
        return failed(
            "Genius' scheduler is disabled, so no job ever starts", f"{administrator}('SCHEDULER_DISABLED', 'FALSE')"
        )
    days, deadline = attributes.get("LOG_HISTORY"), float(target.cfg["DEADLINE_SECONDS"])
    if days is None:
        return passed("the scheduler is enabled; not readable: LOG_HISTORY")
    if int(days) * 86400 <= deadline:
        text = f"run details are kept for {days} days, and a closing waits for up to {deadline:g} s (DEADLINE_SECONDS)"
        return failed(text, f"{administrator}('LOG_HISTORY', '30')")
    return passed(f"the scheduler is enabled, and run details are kept for {days} days")


def evaluate_jobs(live: dict, target: Target) -> Finding:
    if live["jobs"]:
        fix = f"inv status --env {target.env}"
        return warned(f"{live['period']} has jobs that run or wait to start: {', '.join(live['jobs'])}", fix)
    return passed(f"no closing job of {live['period']} runs or waits to start")


def evaluate_balances(found: dict, target: Target) -> Finding:
    if not found["count"]:
        fix = "check that ORACLE_CONNECT_STRING names the right database, and that Genius has closed this period"
        return warned(f"{found['period']}, the last period, has no open balances", fix)
    return passed(
        f"{found['period']} has {found['count']:,} open balances; reading {found['read']:,} of them took"
        f" {found['seconds']:g} s"
    )


# The facts of handler/readiness.py by name, and what evaluates the value of each.
FACTS: dict[str, Callable[[object, Target], Finding]] = {
    "login": evaluate_login,
    "arguments": evaluate_arguments,
    "job queue": evaluate_job_queue,
    "scheduler": evaluate_scheduler,
    "jobs": evaluate_jobs,
    "balances": evaluate_balances,
}


def test_job(target: Target) -> Iterator[Finding]:
    """Have the function run a job that has the guard of a closing job and never calls the procedure."""
    if target.dry:
        yield passed("dry run, no test job was submitted")
        return
    yield evaluate_test_job(ping.send(target, {"testJob": True}, LIMIT_SECONDS), target)


def evaluate_test_job(seen: dict, target: Target) -> Finding:
    """Evaluate the end of a test job: that it ran, that its marks and its details can be read, that all is dropped."""
    job, run = seen["job"], (seen["runs"] or [None])[-1]
    if seen["left"]:
        names = ", ".join(seen["left"])
        return failed(f"{names} could not be dropped", "have Genius' administrator drop them with DBMS_SCHEDULER")
    if run and run["status"] == "SUCCEEDED" and seen["mark"] and seen["end"]:
        return passed(
            f"{job} ran and ended after {seen['seconds']:g} s; marks and run details were read, all is dropped"
        )
    if run and run["status"] == "SUCCEEDED":
        return failed(f"{job} ran, but its start mark or its recorded end could not be read", "grant CREATE JOB")
    if run:
        fix = GRANTS["EXECUTE"].format(user=target.cfg["ORACLE_USER"])
        fix = f"have Genius' owner run {fix}; a role does not count in a job" if "PLS-00201" in run["message"] else LOG
        return failed(f"{job} {run['status']}: {' '.join(run['message'].split())}", fix.format(env=target.env))
    fix = "have Genius' administrator check JOB_QUEUE_PROCESSES and the attribute SCHEDULER_DISABLED"
    return failed(f"{job} was {seen['state']} after {seen['seconds']:g} s, without a run", fix)


LOG = "inv logs --env {env} --since 1h"
