"""Closings as Restate knows them: start one, follow it, report its state."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from invoke import Exit

from handler import findings
from handler.plan import describe_hold
from handler.request import DESPITE_HOLD, check_request, protocol, real_date
from ops.config import ENV_HELP
from ops.invocations import LIVE
from ops.restate import execute, first_line, message, sql
from ops.target import Target
from ops.task import ENVIRONMENT, task

WATCH_SECONDS = 0.5
PURGE_POLLS = 20
PAUSED = """
SELECT one.id, one.target, one.last_failure, one.target_service_name AS own_service, one.target_service_key AS own_key,
       run.target_service_name AS run_service, run.target_service_key AS run_key
  FROM sys_invocation one LEFT JOIN sys_invocation run ON run.id = one.invoked_by_id
 WHERE one.status = 'paused' ORDER BY one.created_at DESC"""
ENDED = "completed"
# Restate's word for a call that makes no progress, and ours.
TROUBLE = {"paused": "paused", "backing-off": "fails"}
# The first characters of the failure of a run that has started nothing: a bad request (400), closings held (503).
REFUSALS = ("[400", "[503")
DESPITE_HELP = "close the date although closings are held"


@task(
    group="close",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "date": "the date to close, as YYYY-MM-DD",
        "user": "the user that the procedure runs for",
        "skip-genius": "do not run the procedure",
        "skip-sync": "do not copy the trial balance",
        "skip-metrics": "do not compute the metrics",
        "despite-hold": DESPITE_HELP,
        "watch": "follow the closing until it ends",
    },
)
def close(
    c, env, date, user="adm", skip_genius=False, skip_sync=False, skip_metrics=False, despite_hold=False, watch=False
):
    """Start the closing of a date; exit 1 if Restate has accepted it before."""
    target = Target.load(c, env)
    flags = {"skipGeniusClosing": skip_genius, "skipSyncTrialBalance": skip_sync, "skipFinancialMetrics": skip_metrics}
    flags[DESPITE_HOLD] = despite_hold
    body = request_body(target, date, user, flags)
    purge_refused(target, date)
    submit(target, date, body)
    if watch and not target.dry:
        follow(target.cfg, date)


def request_body(target: Target, date: str, user: str, flags: dict[str, bool]) -> dict:
    """Return the request's body, checked as the function checks it; Exit for one that would be refused."""
    wanted = {flag: True for flag, value in flags.items() if value}
    body = {"protocol": protocol(), "date": date, "userId": user, **wanted}
    today = datetime.now(ZoneInfo(target.cfg["SCHEDULE_ZONE"])).date()
    try:
        check_request(date, body, today)
    except ValueError as error:
        raise Exit(f"{error}. Nothing was sent.") from None
    found = holding(target.cfg)
    if found and DESPITE_HOLD not in wanted:
        raise Exit(
            f"{describe_hold(found)}. Nothing was sent. Next: `inv release --env {target.env}`, or add --despite-hold"
        )
    return body


def holding(cfg: dict) -> dict | None:
    """Return the hold, None if closings may begin."""
    return state_of(cfg, "DailyClosingScheduler", "main").get("hold")


def submit_url(cfg: dict, date: str) -> str:
    return f"{cfg['RESTATE_INGRESS_URL']}/DailyClosing/{date}/run/send"


def submit(target: Target, date: str, body: dict) -> None:
    """Send one closing and print its invocation; Exit unless Restate accepted this very request."""
    status, answer = execute(target, "POST", submit_url(target.cfg, date), body)
    if target.dry:
        return
    if status == 404:
        raise Exit(f"Restate has no service DailyClosing: {message(answer)}; run `inv deploy --env {target.env}` first")
    if status >= 300 or not isinstance(answer, dict):
        raise Exit(f"Restate refused the closing of {date} with status {status}: {message(answer)}")
    if answer["status"] == "PreviouslyAccepted":
        raise Exit(
            f"{date} was accepted before (PreviouslyAccepted), so nothing was started: {summary(target.cfg, date)}."
            f" Next: `inv next --env {target.env} --date {date}`"
        )
    print(f"{target.env}: {date} accepted as {answer['invocationId']}\n{page(target.cfg, answer['invocationId'])}")


def purge_refused(target: Target, date: str) -> None:
    """Purge a date's run that was refused for its request or for a hold: it started nothing, so the date is free."""
    run = invocation_of(target.cfg, "DailyClosing", date, "run")
    if run and run["status"] == ENDED and (run["completion_failure"] or "").startswith(REFUSALS):
        purge(target, run["id"])


def purge(target: Target, invocation: str) -> None:
    """Make Restate forget a completed invocation, and wait until it has."""
    status, answer = execute(target, "PATCH", f"{target.cfg['RESTATE_ADMIN_URL']}/invocations/{invocation}/purge")
    if status >= 300:
        raise Exit(f"Restate did not purge {invocation}: {status}: {message(answer)}; run the command again")
    if not target.dry:
        wait_until_purged(target.cfg, invocation)


def wait_until_purged(cfg: dict, invocation: str) -> None:
    for _ in range(PURGE_POLLS):
        if not sql(cfg, "SELECT id FROM sys_invocation WHERE id = ?", invocation):
            return
        time.sleep(WATCH_SECONDS)
    raise Exit(f"Restate still lists {invocation} after its purge; {page(cfg, invocation)} shows it")


def page(cfg: dict, invocation: str) -> str:
    """Return the URL of an invocation's page in Restate's UI."""
    return f"{cfg['RESTATE_ADMIN_URL']}/ui/invocations/{invocation}"


def state_of(cfg: dict, service: str, key: str) -> dict:
    """Return the state that Restate keeps for one key: {name: value}."""
    rows = sql(cfg, "SELECT key, value_utf8 FROM state WHERE service_name = ? AND service_key = ?", service, key)
    return {row["key"]: json.loads(row["value_utf8"]) for row in rows}


def invocation_of(cfg: dict, service: str, key: str, handler: str) -> dict | None:
    """Return the newest invocation of a handler for a key, with its invocation status; None if there is none."""
    rows = sql(
        cfg,
        "SELECT id, status, completion_result, completion_failure, last_failure, retry_count, created_at,"
        " modified_at, completed_at, pinned_deployment_id FROM sys_invocation"
        " WHERE target_service_name = ? AND target_service_key = ?"
        " AND target_handler_name = ? ORDER BY created_at DESC LIMIT 1",
        service,
        key,
        handler,
    )
    # Columns without a value are missing in Restate's answer.
    return defaultdict(lambda: None, rows[0]) if rows else None


def paused(cfg: dict) -> list[dict]:
    """Return the paused invocations, the newest first: {"id", "target", "last_failure", "date"}.

    date: that of the run, or of the run that called it, such as for a close; "" if there is none. The function is not
    asked: it can be what fails.
    """
    rows = sql(cfg, PAUSED)
    for row in rows:
        row["date"] = next(
            (row[f"{one}_key"] for one in ("own", "run") if row.get(f"{one}_service") == "DailyClosing"), ""
        )
    return rows


def last_failure(cfg: dict, row: dict) -> str:
    """Return the last failure of an invocation; of a paused one only the events of its journal have it."""
    if row.get("last_failure"):
        return row["last_failure"]
    query = "SELECT event_json FROM sys_journal_events WHERE id = ? ORDER BY appended_at DESC LIMIT 1"
    rows = sql(cfg, query, row["id"])
    if not rows:
        return "Restate shows no reason"
    event = json.loads(rows[0]["event_json"])
    failure = event.get("last_failure", event)
    return f"[{failure['error_code']}] {failure['error_message']}" if isinstance(failure, dict) else str(failure)


def running(cfg: dict, date: str) -> bool:
    """Return whether a closing of this date was accepted and has not ended."""
    run = invocation_of(cfg, "DailyClosing", date, "run")
    return run is not None and run["status"] != ENDED


def ended(cfg: dict, date: str) -> bool:
    """Return whether a closing of this date was accepted and has ended, with any result."""
    run = invocation_of(cfg, "DailyClosing", date, "run")
    return run is not None and run["status"] == ENDED


def summary(cfg: dict, date: str) -> str:
    """Describe the closing of a date in one line."""
    run = invocation_of(cfg, "DailyClosing", date, "run")
    if not run:
        return f"{date}: Restate knows no closing of this date"
    state = state_of(cfg, "DailyClosing", date).get("status", {})
    if run["status"] == ENDED:
        if run["completion_result"] == "success":
            return f"{date} succeeded, run {state.get('run')}, {page(cfg, run['id'])}"
        return f"{date} failed: {first_line(run['completion_failure'])}; {page(cfg, run['id'])}"
    step = " ".join(current_step(cfg, date).split())
    return f"{date} is not closed yet{': ' if step else ''}{step}, {page(cfg, run['id'])}"


def follow(cfg: dict, date: str, check: Callable[[], None] = lambda: None) -> dict:
    """Follow a closing until it ends and print each change; return its result, Exit in one line if it failed.

    check: called at each poll; may raise, for example because a service of the local cloud has died.
    """
    begin, printed = time.monotonic(), None
    while True:
        check()
        run = invocation_of(cfg, "DailyClosing", date, "run")
        if not run:
            env = cfg["ENVIRONMENT"]
            raise Exit(f"Restate knows no closing of {date}; start it with `inv close --env {env} --date {date}`")
        if run["status"] == ENDED:
            break
        step = current_step(cfg, date)
        if step and step != printed:
            hint = f"; next: inv next --env {cfg['ENVIRONMENT']} --date {date}" if "  paused: " in step else ""
            print(f"{time.monotonic() - begin:7.1f} s  {step}{hint}", flush=True)
            printed = step
        time.sleep(WATCH_SECONDS)
    if run["completion_result"] != "success":
        raise Exit(f"{date} failed: {first_line(run['completion_failure'])}")
    print(f"{time.monotonic() - begin:7.1f} s  done", flush=True)
    result = state_of(cfg, "DailyClosing", date)["status"]
    for text in findings.texts(result):
        print(f"{'':9}  {text}", flush=True)
    return result


def current_step(cfg: dict, date: str) -> str:
    """Describe the current step of a running closing, with the failure that Restate retries; "" if there is none."""
    closes = live_closes(cfg, date[:7])
    if not closes:
        return ""
    close = closes[0]
    if close["date"] != date:
        return f"queued behind the closing of {close['date']}"
    progress = state_of(cfg, "ClosingPeriod", date[:7]).get("progress", {})
    words = [progress.get("step"), progress.get("job"), progress.get("state"), progress.get("error")]
    if close["status"] in TROUBLE:
        words.append(f"{TROUBLE[close['status']]}: {first_line(last_failure(cfg, close))}")
    return "  ".join(str(word) for word in words if word)


def live_closes(cfg: dict, period: str) -> list[dict]:
    """Return the invocations of a period's close that have not ended, the oldest first: {"id", "status", "date", …}."""
    rows = sql(
        cfg,
        "SELECT close.id, close.status, close.last_failure, close.pinned_deployment_id, run.target_service_key AS date"
        " FROM sys_invocation close LEFT JOIN sys_invocation run ON run.id = close.invoked_by_id"
        " WHERE close.target_service_name = 'ClosingPeriod' AND close.target_service_key = ?"
        f" AND close.target_handler_name = 'close' AND close.{LIVE} ORDER BY close.created_at",
        period,
    )
    return [{"date": None, "pinned_deployment_id": None, **row} for row in rows]


def checked_date(date: str) -> str:
    """Return a date as YYYY-MM-DD; Exit if it is not one."""
    try:
        return real_date(date).isoformat()
    except ValueError as error:
        raise Exit(f"{error}. Nothing was done.") from None
