"""What an operator does when a closing did not go as it should: rerun, cancel, resolve, stop the job."""

from __future__ import annotations

import getpass
import time

from invoke import Exit

from handler.request import STEPS, real_date
from ops import closings, config
from ops.closings import message, one_line
from ops.config import ENV_HELP
from ops.shell import announce, request, sql
from ops.task import ENVIRONMENT, task

ENDING_SECONDS = 120
LIVE = "status != 'completed'"


def checked(env: str, date: str) -> dict[str, str]:
    cfg = config.load(env)
    try:
        real_date(date)
    except ValueError as error:
        raise Exit(f"{error}. Nothing was changed.") from None
    return cfg


def call(cfg: dict, service: str, key: str, handler: str, body: object = None) -> object:
    """A handler's answer through Restate's ingress; Exit with its own words where it refuses."""
    status, answer = request(cfg, "POST", f"{cfg['RESTATE_INGRESS_URL']}/{service}/{key}/{handler}", body)
    if status >= 300:
        raise Exit(one_line(message(answer)))
    return answer


def live_closes(cfg: dict, period: str) -> list[dict]:
    """The invocations of a period's close that have not ended, the oldest first."""
    return sql(
        cfg,
        "SELECT id, status FROM sys_invocation WHERE target_service_name = 'ClosingPeriod'"
        f" AND target_service_key = '{period}' AND target_handler_name = 'close' AND {LIVE} ORDER BY created_at",
    )


def children(cfg: dict, run: dict) -> list[str]:
    """The live calls of close that a run of DailyClosing has made."""
    rows = sql(cfg, f"SELECT id FROM sys_invocation WHERE invoked_by_id = '{run['id']}' AND {LIVE}")
    return [row["id"] for row in rows]


def what_is_known(cfg: dict, date: str) -> dict:
    """Print what Restate, Genius and closing_runs know of a date, and return it."""
    state = closings.state_of(cfg, "ClosingPeriod", date[:7])
    print(f"Restate       {closings.standing(cfg, date)}")
    for name in ("closing", "blocked"):
        if state.get(name):
            told = {key: value for key, value in state[name].items() if key in ("date", "job", "message", "submitted")}
            print(f"  {name:<11} {told}")
    found = call(cfg, "ClosingPeriod", date[:7], "inspect", {"date": date})
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


def ask(question: str, expected: str, yes: bool) -> None:
    """Go on only when the person types what is about to be touched; --yes is for scripts."""
    if yes:
        return
    try:
        typed = input(f"{question} Type {expected} to go on: ".lstrip())
    except EOFError:
        typed = ""
    if typed.strip() != expected:
        raise Exit("Not confirmed; nothing was changed. In a script, say --yes.")


def end_run(cfg: dict, run: dict) -> None:
    """Cancel a run of DailyClosing and wait until it and the close that it called have ended."""
    closes = children(cfg, run)
    change(cfg, "PATCH", f"/invocations/{run['id']}/cancel")
    both = quoted([run["id"], *closes])
    for paused in sql(cfg, f"SELECT id FROM sys_invocation WHERE status = 'paused' AND id IN ({both})"):
        # A paused invocation sees its cancellation only when it goes on.
        change(cfg, "PATCH", f"/invocations/{paused['id']}/resume")
    deadline = time.monotonic() + ENDING_SECONDS
    while sql(cfg, f"SELECT id FROM sys_invocation WHERE id IN ({both}) AND {LIVE}"):
        if time.monotonic() > deadline:
            raise Exit(
                f"the closing still has not ended {ENDING_SECONDS} s after its cancellation;"
                f" look at {closings.page(cfg, (closes or [run['id']])[0])}"
            )
        time.sleep(closings.WATCH_SECONDS)


def quoted(identities: list[str]) -> str:
    return ", ".join(f"'{identity}'" for identity in identities)


def change(cfg: dict, method: str, path: str) -> None:
    """One change through Restate's admin API, echoed as it can be pasted."""
    url = f"{cfg['RESTATE_ADMIN_URL']}{path}"
    announce(closings.curl(cfg, method, url))
    status, answer = request(cfg, method, url)
    if status >= 300:
        raise Exit(f"Restate answered {status} to {method} {path}: {one_line(message(answer))}")


def look_at_job(cfg: dict, period: str) -> str:
    """One line on what the job of a period's closing is doing."""
    closing = closings.state_of(cfg, "ClosingPeriod", period).get("closing")
    if not closing:
        return f"{period}: no closing of it waits for a job"
    found = call(cfg, "ClosingPeriod", period, "inspect", {"date": closing["date"]})
    if isinstance(found["jobs"], str):
        return f"{closing['job']}: {found['jobs']}"
    job = next((one for one in found["jobs"] if one["job"] == closing["job"]), None)
    if not job:
        return f"{closing['job']}: Genius does not list it"
    ends = "".join(f", run {run['status']}" for run in job["runs"])
    return f"{closing['job']} is {job['state']}{ends}; `inv rerun --adopt` takes it over, `inv stop-job` stops it"


@task(group="repair", changes=ENVIRONMENT, help={**ENV_HELP, "date": "the date, as YYYY-MM-DD", "yes": "do not ask"})
def cancel(c, env, date, yes=False):
    """Cancel the closing of a date, wait until it has ended, and say what its job in Genius is doing."""
    cfg = checked(env, date)
    run = closings.invocation_of(cfg, "DailyClosing", date, "run")
    if not run or run["status"] == closings.ENDED:
        raise Exit(f"{closings.standing(cfg, date)}; there is nothing to cancel. `inv rerun` starts it again.")
    print(closings.standing(cfg, date))
    if c.config.run.dry:
        return
    ask("The job in Genius goes on; only the waiting for it ends.", date, yes)
    end_run(cfg, run)
    print(f"{env}: {date} is cancelled. {look_at_job(cfg, date[:7])}")


@task(
    group="repair",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "date": "the date, as YYYY-MM-DD",
        "from": "repeat from this step on: genius, ledger or metrics",
        "adopt": "take over the job of a closing that was killed",
        "user": "the user the procedure is run for",
        "watch": "follow it to its end",
        "yes": "do not ask",
    },
)
def rerun(c, env, date, from_="", adopt=False, user="adm", watch=False, yes=False):
    """Close a date again from its first step that has not succeeded; --from genius repeats the procedure."""
    cfg = checked(env, date)
    if from_ and from_ not in STEPS:
        raise Exit(f"--from {from_!r}: expected one of {', '.join(STEPS)}. Nothing was changed.")
    body = closings.body_of(cfg, date, user, {"resume": True, "adopt": adopt})
    if from_:
        body["fromStep"] = from_
    known = what_is_known(cfg, date)
    refuse_rerun(date, known, from_, adopt)
    print(f"then          {intention(known, date, from_)}")
    if c.config.run.dry:
        return
    ask("", date, yes)
    run = closings.invocation_of(cfg, "DailyClosing", date, "run")
    if run and run["status"] != closings.ENDED:
        end_run(cfg, run)
    if run:
        announce(closings.curl(cfg, "PATCH", f"{cfg['RESTATE_ADMIN_URL']}/invocations/{run['id']}/purge"))
        closings.purge(cfg, run["id"])
    announce(closings.submit_command(cfg, date, body))
    invocation = closings.submit(cfg, date, body)
    print(f"{env}: {date} accepted as {invocation}\n{closings.page(cfg, invocation)}")
    if watch:
        closings.follow(cfg, date)


def refuse_rerun(date: str, known: dict, from_: str, adopt: bool) -> None:
    """Refuse what the service would refuse, before anything is cancelled or purged for it."""
    blocked, closing = known["state"].get("blocked"), known["state"].get("closing")
    if blocked:
        raise Exit(
            f"{date[:7]} is blocked by {blocked['job']}: {one_line(blocked['message'])}. Look in Genius, then say"
            f" `inv resolve --env ENV --period {date[:7]} --as succeeded|failed`"
        )
    if isinstance(known["runs"], str):
        raise Exit(f"{one_line(known['runs'])}; what has succeeded is not known. Nothing was changed.")
    if closing and closing["date"] == date and not adopt and not from_:
        raise Exit(
            f"the job {closing['job']} of this date is not accounted for: `inv rerun --adopt` takes it over,"
            " `--from genius` waits for its end and runs the procedure again. Nothing was changed."
        )
    if not (adopt and closing):
        plan_of(known["runs"], date, from_)


def plan_of(rows: list[dict], date: str, from_: str) -> list[str]:
    from handler.plan import plan

    try:
        return plan(rows, True, from_ or None)
    except ValueError as error:
        raise Exit(f"{date} {error}. Nothing was changed.") from None


def intention(known: dict, date: str, from_: str) -> str:
    """What a rerun will do, in words; repeating the procedure is said aloud."""
    closing = known["state"].get("closing")
    if closing:
        again = ", then the PROCEDURE RUNS AGAIN" if from_ == "genius" else ", then goes on from what it gave"
        return f"waits for the end of {closing['job']}{again}"
    left_out = plan_of(known["runs"], date, from_)
    first = STEPS[len(left_out)]
    kept = f"keeps {', '.join(left_out)}; " if left_out else ""
    return f"{kept}goes on with {first}{': the PROCEDURE RUNS' if first == 'genius' else ''}"


@task(
    group="repair",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "period": "the blocked period, as YYYY-MM",
        "as": "what happened: succeeded or failed",
        "who": "whose word it is; default: the user of this shell",
        "yes": "do not ask",
    },
)
def resolve(c, env, period, as_, who="", yes=False):
    """Say what happened to the job that blocks a period; kept with who and when."""
    cfg = checked(env, f"{period}-01")
    if as_ not in ("succeeded", "failed"):
        raise Exit(f"--as {as_!r}: expected succeeded or failed. Nothing was changed.")
    closes = live_closes(cfg, period)
    if closes:
        raise Exit(f"{period} is being closed, {closings.page(cfg, closes[0]['id'])}; end it first with `inv cancel`")
    blocked = closings.state_of(cfg, "ClosingPeriod", period).get("blocked")
    if not blocked:
        raise Exit(f"{period} is not blocked; `inv status --env {env} --date …` tells how a date stands")
    print(f"{blocked['job']} of {blocked['date']}: {one_line(blocked['message'])}")
    if c.config.run.dry:
        return
    ask(f"It is kept that the job {as_}.", period, yes)
    said = call(
        cfg, "ClosingPeriod", period, "resolve", {"job": blocked["job"], "as": as_, "who": who or getpass.getuser()}
    )
    print(
        f"{env}: {said['job']} {said['as']}, says {said['who']}. Next: `inv rerun --env {env} --date {blocked['date']}`"
    )


@task(
    group="repair",
    changes=ENVIRONMENT,
    name="stop-job",
    help={**ENV_HELP, "date": "the date, as YYYY-MM-DD", "yes": "do not ask"},
)
def stop_job(c, env, date, yes=False):
    """Stop the job that the closing of a date waits for (force FALSE), and say what became of it."""
    cfg = checked(env, date)
    closing = closings.state_of(cfg, "ClosingPeriod", date[:7]).get("closing")
    if not closing or closing["date"] != date:
        raise Exit(f"no closing of {date} waits for a job; `inv status --env {env} --date {date}` tells how it stands")
    print(look_at_job(cfg, date[:7]))
    if c.config.run.dry:
        return
    ask("A stopped procedure leaves what it has written; a person must then say what happened.", date, yes)
    seen = call(cfg, "ClosingPeriod", date[:7], "stop_job")
    ends = ", ".join(run["status"] for run in seen.get("runs", []))
    print(f"{env}: {seen['job']} is {seen.get('state') or seen.get('error')}{f', run {ends}' if ends else ''}")
