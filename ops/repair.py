"""Repair a closing: rerun, cancel, resolve, stop the job."""

from __future__ import annotations

import getpass
import time

from invoke import Exit

from handler.plan import plan
from handler.request import STEPS
from ops import closings
from ops.closings import checked_date
from ops.config import ENV_HELP
from ops.restate import execute, message, one_line, request, sql
from ops.target import Target
from ops.task import ENVIRONMENT, task

ENDING_SECONDS = 120
LIVE = "status != 'completed'"
# The fields of a period's state that a rerun prints.
SHOWN = ("date", "job", "message", "submitted")


@task(group="repair", changes=ENVIRONMENT, help={**ENV_HELP, "date": "the date, as YYYY-MM-DD", "yes": "do not ask"})
def cancel(c, env, date, yes=False):
    """Cancel the closing of a date, wait until it has ended, and report the state of its job in Genius."""
    target, date = Target.load(c, env), checked_date(date)
    run = closings.invocation_of(target.cfg, "DailyClosing", date, "run")
    if not run or run["status"] == closings.ENDED:
        raise Exit(f"{closings.summary(target.cfg, date)}; there is nothing to cancel. `inv rerun` starts it again.")
    print(closings.summary(target.cfg, date))
    confirm("This stops waiting for the job; the job in Genius goes on.", date, yes or target.dry)
    end_run(target, run)
    if target.dry:
        return
    if closings.invocation_of(target.cfg, "DailyClosing", date, "run")["completion_result"] == "success":
        print(f"{env}: the cancellation came too late: {closings.summary(target.cfg, date)}")
    else:
        print(f"{env}: {date} is cancelled. {describe_job(target.cfg, date[:7])}")


@task(
    group="repair",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "date": "the date, as YYYY-MM-DD",
        "from": "repeat from this step on: genius, ledger or metrics",
        "adopt": "take over the job of a closing that was killed",
        "user": "the user that the procedure runs for",
        "watch": "follow the closing until it ends",
        "yes": "do not ask",
    },
)
def rerun(c, env, date, from_="", adopt=False, user="adm", watch=False, yes=False):
    """Close a date again from its first step that has not succeeded; --from genius repeats the procedure."""
    target, date = Target.load(c, env), checked_date(date)
    if from_ and from_ not in STEPS:
        raise Exit(f"--from {from_!r} is not a step: expected one of {', '.join(STEPS)}. Nothing was changed.")
    body = closings.request_body(target.cfg, date, user, {"resume": True, "adopt": adopt})
    if from_:
        body["fromStep"] = from_
    known = print_known(target.cfg, date)
    refuse_rerun(date, known, from_, adopt)
    print(f"then          {intention(known, date, from_)}")
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
        "who": "who decided this; default: the user of this shell",
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
            f"{period} is being closed, {closings.page(target.cfg, closes[0]['id'])}; end it first with `inv cancel`"
        )
    blocked = closings.state_of(target.cfg, "ClosingPeriod", period).get("blocked")
    if not blocked:
        raise Exit(f"{period} is not blocked; `inv status --env {env} --date …` shows the closing of a date")
    print(f"{blocked['job']} of {blocked['date']}: {one_line(blocked['message'])}")
    confirm(f"This records the job as {as_}.", period, yes or target.dry)
    decision = {"job": blocked["job"], "as": as_, "who": who or getpass.getuser()}
    answer = decide(target, period, "resolve", decision)
    if not target.dry:
        print(
            f"{env}: {answer['job']} {answer['as']}, decided by {answer['who']}."
            f" Next: `inv rerun --env {env} --date {blocked['date']}`"
        )


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
    print(describe_job(target.cfg, date[:7]))
    question = "A stopped procedure leaves what it has written; you must then decide what happened."
    confirm(question, date, yes or target.dry)
    poll = decide(target, date[:7], "stop_job")
    if not target.dry:
        ends = ", ".join(run["status"] for run in poll.get("runs", []))
        print(f"{env}: {poll['job']} is {poll.get('state') or poll.get('error')}{f', run {ends}' if ends else ''}")


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


def handler_url(cfg: dict, period: str, handler: str) -> str:
    return f"{cfg['RESTATE_INGRESS_URL']}/ClosingPeriod/{period}/{handler}"


def decide(target: Target, period: str, handler: str, body: object = None) -> dict:
    """Call a handler of a period that changes something and return its answer; Exit with its message if it refuses."""
    status, answer = execute(target, "POST", handler_url(target.cfg, period, handler), body)
    if status >= 300:
        raise Exit(one_line(message(answer)))
    return answer


def inspect(cfg: dict, date: str) -> dict:
    """Return what Genius and closing_runs know of a date: {"jobs", "runs"}, each a list or an error's text."""
    status, answer = request(cfg, "POST", handler_url(cfg, date[:7], "inspect"), {"date": date})
    if status >= 300:
        raise Exit(one_line(message(answer)))
    return answer


def live_closes(cfg: dict, period: str) -> list[dict]:
    """Return the invocations of a period's close that have not ended, the oldest first."""
    return sql(
        cfg,
        "SELECT id, status FROM sys_invocation WHERE target_service_name = 'ClosingPeriod'"
        f" AND target_service_key = ? AND target_handler_name = 'close' AND {LIVE} ORDER BY created_at",
        period,
    )


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
                f"the closing has not ended {ENDING_SECONDS} s after its cancellation;"
                f" check {closings.page(cfg, (closes or [run['id']])[0])}"
            )
        time.sleep(closings.WATCH_SECONDS)


def change(target: Target, invocation: str, verb: str) -> None:
    """Cancel or resume an invocation through Restate's admin API."""
    path = f"/invocations/{invocation}/{verb}"
    status, answer = execute(target, "PATCH", f"{target.cfg['RESTATE_ADMIN_URL']}{path}")
    if status >= 300:
        raise Exit(f"Restate answered {status} to PATCH {path}: {one_line(message(answer))}")


def describe_job(cfg: dict, period: str) -> str:
    """Describe the job of a period's closing in one line, with the commands that take it over or stop it."""
    closing = closings.state_of(cfg, "ClosingPeriod", period).get("closing")
    if not closing:
        return f"{period}: no closing of it waits for a job"
    jobs = inspect(cfg, closing["date"])["jobs"]
    if isinstance(jobs, str):
        return f"{closing['job']}: {jobs}"
    job = next((one for one in jobs if one["job"] == closing["job"]), None)
    if not job:
        return f"{closing['job']}: Genius does not list it"
    ends = "".join(f", run {run['status']}" for run in job["runs"])
    return f"{closing['job']} is {job['state']}{ends}; `inv rerun --adopt` takes it over, `inv stop-job` stops it"


def print_known(cfg: dict, date: str) -> dict:
    """Print what Restate, Genius and closing_runs know of a date, and return it: {"state", "jobs", "runs"}."""
    state = closings.state_of(cfg, "ClosingPeriod", date[:7])
    print(f"Restate       {closings.summary(cfg, date)}")
    for name in ("closing", "blocked"):
        if state.get(name):
            print(f"  {name:<11} { ({key: state[name][key] for key in SHOWN if key in state[name]}) }")
    found = inspect(cfg, date)
    print(f"Genius        {found['jobs'] if isinstance(found['jobs'], str) else ''}")
    for job in found["jobs"] if isinstance(found["jobs"], list) else []:
        ends = ", ".join(f"{run['status']} {run['endedAt'] or ''} {one_line(run['message'])}" for run in job["runs"])
        own = job.get("end")
        status = f"  the job recorded {own['outcome']}, procedure status {own['status'] or 'NULL'}" if own else ""
        print(f"  {job['job']}  {job['state']}  {ends}{status}")
    print(f"closing_runs  {found['runs'] if isinstance(found['runs'], str) else ''}")
    for row in found["runs"] if isinstance(found["runs"], list) else []:
        steps = "  ".join(f"{step} {row[step]}" for step in STEPS)
        print(f"  {row['started_at'][:19]}  {row['status']:<9}  {steps}  {one_line(row['message'])}")
    return {"state": state, **found}


def refuse_rerun(date: str, known: dict, from_: str, adopt: bool) -> None:
    """Refuse what the service would refuse, before anything is cancelled or purged for it."""
    blocked, closing = known["state"].get("blocked"), known["state"].get("closing")
    if blocked:
        raise Exit(
            f"{date[:7]} is blocked by {blocked['job']}: {one_line(blocked['message'])}. Check the job in Genius, then"
            f" run `inv resolve --env ENV --period {date[:7]} --as succeeded|failed`"
        )
    if isinstance(known["runs"], str):
        raise Exit(f"{one_line(known['runs'])}; it is not known which steps have succeeded. Nothing was changed.")
    if closing and closing["date"] == date and not adopt and not from_:
        raise Exit(
            f"the end of this date's job {closing['job']} is not recorded: `inv rerun --adopt` takes it over,"
            " `--from genius` waits until it ends and runs the procedure again. Nothing was changed."
        )
    if not (adopt and closing):
        reused_steps(known["runs"], date, from_)


def reused_steps(rows: list[dict], date: str, from_: str) -> list[str]:
    """Return the steps that a rerun does not repeat; Exit if there is nothing to do."""
    try:
        return plan(rows, True, from_ or None)
    except ValueError as error:
        raise Exit(f"{date} {error}. Nothing was changed.") from None


def intention(known: dict, date: str, from_: str) -> str:
    """Describe what a rerun will do; a run of the procedure is in capitals."""
    closing = known["state"].get("closing")
    if closing:
        again = "the PROCEDURE RUNS AGAIN"
        if from_ != "genius":
            again = f"goes on from its result; if it failed, {again}"
        return f"waits for the end of {closing['job']}, then {again}"
    reused = reused_steps(known["runs"], date, from_)
    first = STEPS[len(reused)]
    kept = f"keeps {', '.join(reused)}; " if reused else ""
    return f"{kept}goes on with {first}{': the PROCEDURE RUNS' if first == 'genius' else ''}"
