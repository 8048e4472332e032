"""Repair a closing: rerun, cancel, resolve, stop the job."""

from __future__ import annotations

import getpass
import time

from invoke import Exit

from handler import plan
from handler.request import DESPITE_HOLD, STEPS
from ops import closings, next_command
from ops.closings import checked_date, live_closes
from ops.config import ENV_HELP, name_environment
from ops.invocations import LIVE, call, change
from ops.next_command import inspect, known_state
from ops.restate import first_line, message, one_line, sql
from ops.target import Target
from ops.task import ENVIRONMENT, task

# The help of a task's --who.
WHO_HELP = {"who": "who decided this; default: the user of this shell"}
ENDING_SECONDS = 120
# Restate's own words on its error RT0016, which a new version with other steps leads to.
LATEST_WARNING = (
    "It goes on with the steps that it has done. If the new version has others, or in another order, Restate stops it"
    " with RT0016: Journal mismatch detected when replaying the invocation: the handler generated a sequence of journal"
    " entries (thus context operations) that doesn't exactly match the recorded journal."
)
# The fields of a period's state that a rerun prints.
SHOWN = ("date", "job", "message", "submitted")


@task(group="repair", changes=ENVIRONMENT, help={**ENV_HELP, "date": "the date, as YYYY-MM-DD", "yes": "do not ask"})
def cancel(c, env, date, yes=False):
    """Cancel the closing of a date, wait until it has ended, and report the state of its job in Genius."""
    target, date = Target.load(c, env), checked_date(date)
    run = closings.invocation_of(target.cfg, "DailyClosing", date, "run")
    if not run or run["status"] == closings.ENDED:
        known = closings.summary(target.cfg, date)
        raise Exit(f"{known}; there is nothing to cancel. Next: `inv next --env {env} --date {date}`")
    print(closings.summary(target.cfg, date))
    confirm("This stops waiting for the job; the job in Genius goes on.", date, yes or target.dry)
    end_run(target, run)
    if target.dry:
        return
    if closings.invocation_of(target.cfg, "DailyClosing", date, "run")["completion_result"] == "success":
        print(f"{env}: the cancellation came too late: {closings.summary(target.cfg, date)}")
    else:
        print(f"{env}: {date} is cancelled. {describe_job(target, date[:7])}")


@task(
    group="repair",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "date": "the date, as YYYY-MM-DD",
        "from": "repeat from this step on: genius, ledger or metrics",
        "adopt": "take over the job of a closing that was killed",
        "user": "the user that the procedure runs for; default: the user of the earlier request",
        "despite-hold": closings.DESPITE_HELP,
        "watch": "follow the closing until it ends",
        "yes": "do not ask",
    },
)
def rerun(c, env, date, from_="", adopt=False, user="", despite_hold=False, watch=False, yes=False):
    """Close a date again from its first step that has not succeeded; --from genius repeats the procedure."""
    target, date = Target.load(c, env), checked_date(date)
    if from_ and from_ not in STEPS:
        raise Exit(f"--from {from_!r} is not a step: expected one of {', '.join(STEPS)}. Nothing was changed.")
    known = known_state(target.cfg, date)
    print_known(target.cfg, known)
    try:
        announced = plan.announce(known, from_ or None, adopt)
    except ValueError as error:
        raise Exit(refusal(target, known, name_environment(one_line(str(error)), env))) from None
    flags = {"resume": True, "adopt": adopt, DESPITE_HOLD: despite_hold}
    body = closings.request_body(target, date, user or earlier_user(known), flags)
    body |= {"procedure": announced["procedure"], **({"fromStep": from_} if from_ else {})}
    print(f"then          {announced['text']}")
    confirm("", date, yes or target.dry)
    run = closings.invocation_of(target.cfg, "DailyClosing", date, "run")
    if run and run["status"] != closings.ENDED:
        end_run(target, run)
    if run:
        closings.purge(target, run["id"])
    closings.submit(target, date, body)
    if watch and not target.dry:
        closings.follow(target.cfg, date)


@task(
    group="repair",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "period": "the blocked period, as YYYY-MM",
        "as": "what happened: succeeded or failed",
        **WHO_HELP,
        "yes": "do not ask",
    },
)
def resolve(c, env, period, as_, who="", yes=False):
    """Record the result of the job that blocks a period, with the name of who decided it and the time."""
    target = Target.load(c, env)
    checked_date(f"{period}-01")
    if as_ not in ("succeeded", "failed"):
        raise Exit(f"--as {as_!r} is not a result: expected succeeded or failed. Nothing was changed.")
    closes = live_closes(target.cfg, period)
    if closes:
        raise Exit(
            f"{period} is being closed, {closings.page(target.cfg, closes[0]['id'])}; end it first with"
            f" `inv cancel --env {env} --date {closes[0]['date']}`"
        )
    blocked = closings.state_of(target.cfg, "ClosingPeriod", period).get("blocked")
    if not blocked:
        raise Exit(f"{period} is not blocked; `inv status --env {env}` shows the last closings")
    print(f"{blocked['job']} of {blocked['date'] or 'another program'}: {one_line(blocked['message'])}")
    confirm(f"This records the job as {as_}.", period, yes or target.dry)
    decision = {"job": blocked["job"], "as": as_, "who": person(who)}
    answer = decide(target, period, "resolve", decision)
    if not target.dry:
        print(f"{env}: {answer['job']} {answer['as']}, decided by {answer['who']}.")
        if blocked["date"]:
            print(next_command.advice(target, blocked["date"]))


@task(
    group="repair",
    changes=ENVIRONMENT,
    name="stop-job",
    help={**ENV_HELP, "date": "the date, as YYYY-MM-DD", "yes": "do not ask"},
)
def stop_job(c, env, date, yes=False):
    """Stop the job that the closing of a date waits for (force FALSE), and report its new state."""
    target, date = Target.load(c, env), checked_date(date)
    closing = closings.state_of(target.cfg, "ClosingPeriod", date[:7]).get("closing")
    if not closing or closing["date"] != date:
        raise Exit(f"no closing of {date} waits for a job; `inv status --env {env} --date {date}` shows its state")
    print(describe_job(target, date[:7]))
    question = "A stopped procedure leaves what it has written; you must then decide what happened."
    confirm(question, date, yes or target.dry)
    poll = decide(target, date[:7], "stop_job")
    if not target.dry:
        ends = ", ".join(run["status"] for run in poll.get("runs", []))
        print(f"{env}: {poll['job']} is {poll.get('state') or poll.get('error')}{f', run {ends}' if ends else ''}")


@task(
    group="repair",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "date": "the date, as YYYY-MM-DD",
        "latest": "resume on the newest version, as after a fixed error in the function's own code",
        "yes": "do not ask",
    },
)
def resume(c, env, date, latest=False, yes=False):
    """Resume the invocation that Restate has paused for a date, whichever it is; --latest: on the newest version."""
    target, date = Target.load(c, env), checked_date(date)
    found = next((one for one in closings.paused(target.cfg) if one["date"] == date), None)
    if not found:
        raise Exit(f"nothing is paused for {date}. {next_command.advice(target, date)}")
    print(f"{found['target']} {found['id']} is paused: {first_line(closings.last_failure(target.cfg, found))}")
    if latest:
        print(LATEST_WARNING)
        confirm("", date, yes or target.dry)
    change(target, found["id"], "resume", "?deployment=latest" if latest else "")
    if not target.dry:
        print(f"{env}: {found['id']} is resumed; follow it with `inv status --env {env} --date {date} --watch`")


def person(who: str) -> str:
    """Return who decides: the name given, or the user of this shell."""
    try:
        return who or getpass.getuser()
    except (KeyError, OSError):
        raise Exit("this shell has no user name; add --who NAME. Nothing was changed.") from None


def confirm(question: str, expected: str, yes: bool) -> None:
    """Go on only if the person types the expected word; yes: do not ask, for scripts and dry runs."""
    if yes:
        return
    try:
        typed = input(f"{question} Type {expected} to go on: ".lstrip())
    except EOFError:
        typed = ""
    if typed.strip() != expected:
        raise Exit("Not confirmed; nothing was changed. In a script, add --yes.")


def refusal(target: Target, known: dict, reason: str) -> str:
    """Format the reason why a rerun does not start, with the next command; known: see known_state."""
    found = plan.next_command(known, target.env)
    if not found["command"]:
        return f"{reason}. Nothing was changed."
    why = "" if one_line(found["reason"]) == reason else f" {one_line(found['reason'])}."
    return f"{reason}. Nothing was changed.{why} Next: `{found['command']}`"


def decide(target: Target, period: str, handler: str, body: object = None) -> dict:
    """Call a handler of a period that changes something and return its answer; Exit with its message if it refuses."""
    status, answer = call(target, "ClosingPeriod", period, handler, body)
    if status >= 300:
        raise Exit(one_line(message(answer)))
    return answer


def earlier_user(known: dict) -> str:
    """Return the user of a date's earlier request, so that a rerun does not run the procedure as somebody else."""
    users = [row["user_id"] for row in known["rows"] if row.get("user_id")] if isinstance(known["rows"], list) else []
    return users[-1] if users else (known["closing"] or {}).get("userId", "adm")


def children(cfg: dict, run: dict) -> list[str]:
    """Return the live calls of close that a run of DailyClosing has made."""
    rows = sql(cfg, f"SELECT id FROM sys_invocation WHERE invoked_by_id = ? AND {LIVE}", run["id"])
    return [row["id"] for row in rows]


def end_run(target: Target, run: dict) -> None:
    """Cancel a run of DailyClosing and wait until it and the close that it called have ended."""
    cfg, closes = target.cfg, children(target.cfg, run)
    change(target, run["id"], "cancel")
    both = [run["id"], *closes]
    among = f"id IN ({', '.join('?' * len(both))})"
    for paused in sql(cfg, f"SELECT id FROM sys_invocation WHERE status = 'paused' AND {among}", *both):
        # A paused invocation sees its cancellation only after a resume.
        change(target, paused["id"], "resume")
    deadline = time.monotonic() + ENDING_SECONDS
    while not target.dry and sql(cfg, f"SELECT id FROM sys_invocation WHERE {among} AND {LIVE}", *both):
        if time.monotonic() > deadline:
            raise Exit(
                f"the closing has not ended {ENDING_SECONDS} s after its cancellation: {obstacle(cfg, both)}."
                f" Next: `inv doctor --env {target.env}`; the closing ends as soon as its step answers"
            )
        time.sleep(closings.WATCH_SECONDS)


def obstacle(cfg: dict, invocations: list[str]) -> str:
    """Return the last failure of the first of these invocations that has one."""
    among = f"id IN ({', '.join('?' * len(invocations))})"
    rows = sql(cfg, f"SELECT id, last_failure FROM sys_invocation WHERE {among} AND {LIVE}", *invocations)
    failures = [first_line(row["last_failure"]) for row in rows if row.get("last_failure")]
    return failures[0] if failures else "its step still runs"


def describe_job(target: Target, period: str) -> str:
    """Describe the job of a period's closing in one line, with the commands that take it over or stop it."""
    closing = closings.state_of(target.cfg, "ClosingPeriod", period).get("closing")
    if not closing:
        return f"{period}: no closing of it waits for a job"
    jobs = inspect(target.cfg, closing["date"])["jobs"]
    if isinstance(jobs, str):
        return f"{closing['job']}: {jobs}"
    job = next((one for one in jobs if one["job"] == closing["job"]), None)
    if not job:
        return f"{closing['job']}: Genius does not list it"
    ends = "".join(f", run {run['status']}" for run in job["runs"])
    env, date = target.env, closing["date"]
    stop = f"; `inv stop-job --env {env} --date {date}` stops it" if job["state"] in ("RUNNING", "SCHEDULED") else ""
    take = f"`inv rerun --env {env} --date {date} --adopt` takes it over"
    return f"{closing['job']} is {job['state']}{ends}; {take}{stop}"


def print_known(cfg: dict, known: dict) -> None:
    """Print what Restate, Genius and closing_runs know of a date."""
    print(f"Restate       {closings.summary(cfg, known['date'])}")
    for name in ("closing", "blocked"):
        if known[name]:
            print(f"  {name:<11} { ({key: known[name][key] for key in SHOWN if key in known[name]}) }")
    print(f"Genius        {known['jobs'] if isinstance(known['jobs'], str) else ''}")
    for job in known["jobs"] if isinstance(known["jobs"], list) else []:
        ends = ", ".join(f"{run['status']} {run['endedAt'] or ''} {one_line(run['message'])}" for run in job["runs"])
        own = job.get("end")
        status = f"  the job recorded {own['outcome']}, procedure status {own['status'] or 'NULL'}" if own else ""
        print(f"  {job['job']}  {job['state'] or 'dropped'}  {ends}{status}")
    print(f"closing_runs  {known['rows'] if isinstance(known['rows'], str) else ''}")
    for row in known["rows"] if isinstance(known["rows"], list) else []:
        steps = "  ".join(f"{step} {row[step]}" for step in STEPS)
        print(f"  {row['started_at'][:19]}  {row['status']:<9}  {steps}  {one_line(row['message'])}")
