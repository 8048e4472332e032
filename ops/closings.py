"""Closings as Restate knows them: submit one, follow it, tell how it stands. Looks go past the function, to Restate."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from invoke import Exit

from handler import findings
from handler.request import check_request, real_date
from ops import config, shell
from ops.config import ENV_HELP
from ops.shell import request, sql
from ops.task import ENVIRONMENT, task

WATCH_SECONDS = 0.5
PURGE_LOOKS = 20
ENDED = "completed"


@task(
    group="close",
    changes=ENVIRONMENT,
    help={
        **ENV_HELP,
        "date": "the date to close, as YYYY-MM-DD",
        "user": "the user the procedure is run for",
        "skip-genius": "do not run the procedure",
        "skip-sync": "leave the trial balance as it is",
        "skip-metrics": "do not compute the metrics",
        "watch": "follow it to its end",
    },
)
def close(c, env, date, user="adm", skip_genius=False, skip_sync=False, skip_metrics=False, watch=False):
    """Start the closing of a date; exit 1 where it was accepted before."""
    cfg = config.load(env)
    flags = {"skipGeniusClosing": skip_genius, "skipSyncTrialBalance": skip_sync, "skipFinancialMetrics": skip_metrics}
    body = body_of(cfg, date, user, flags)
    shell.announce(submit_command(cfg, date, body))
    if c.config.run.dry:
        return
    invocation = submit(cfg, date, body)
    print(f"{env}: {date} accepted as {invocation}\n{page(cfg, invocation)}")
    if watch:
        follow(cfg, date)


def body_of(cfg: dict, date: str, user: str, flags: dict[str, bool]) -> dict:
    """The request's body, checked as the function will check it, so that a refused one does not use up its date."""
    body = {"date": date, "userId": user, **{flag: True for flag, wanted in flags.items() if wanted}}
    today = datetime.now(ZoneInfo(cfg["SCHEDULE_ZONE"])).date()
    try:
        check_request(date, body, today)
    except ValueError as error:
        raise Exit(f"{error}. Nothing was sent.") from None
    return body


def submit_url(cfg: dict, date: str) -> str:
    return f"{cfg['RESTATE_INGRESS_URL']}/DailyClosing/{date}/run/send"


def curl(cfg: dict, method: str, url: str, body: object = None) -> str:
    """One call of Restate's HTTP API as it can be pasted; the token is no argument that other users could see."""
    data = "" if body is None else f" -H 'content-type: application/json' -d '{json.dumps(body)}'"
    if not cfg["RESTATE_AUTH_TOKEN"]:
        return f"curl -X {method} {url}{data}"
    return f"""printf 'authorization: Bearer %s' "$RESTATE_AUTH_TOKEN" | curl -X {method} {url} -H @-{data}"""


def submit_command(cfg: dict, date: str, body: dict) -> str:
    return curl(cfg, "POST", submit_url(cfg, date), body)


def submit(cfg: dict, date: str, body: dict, again: bool = True) -> str:
    """Send one closing and return its invocation id; Exit unless this call is the one that was accepted.

    A run that was refused for its request has started nothing, so it gives its date back, once (again).
    """
    status, answer = request(cfg, "POST", submit_url(cfg, date), body)
    if status == 404:
        raise Exit(f"Restate knows no DailyClosing: {message(answer)}; run `inv deploy` first")
    if status >= 300 or not isinstance(answer, dict):
        raise Exit(f"Restate refused the closing of {date} with {status}: {message(answer)}")
    if answer["status"] == "PreviouslyAccepted" and again and was_refused(cfg, date):
        purge(cfg, answer["invocationId"])
        return submit(cfg, date, body, again=False)
    if answer["status"] == "PreviouslyAccepted":
        raise Exit(f"{date} was accepted before (PreviouslyAccepted), nothing was started: {standing(cfg, date)}")
    return answer["invocationId"]


def was_refused(cfg: dict, date: str) -> bool:
    return state_of(cfg, "DailyClosing", date).get("status", {}).get("status") == "refused"


def purge(cfg: dict, invocation: str) -> None:
    """Have Restate forget a completed run, and wait until it has."""
    status, answer = request(cfg, "PATCH", f"{cfg['RESTATE_ADMIN_URL']}/invocations/{invocation}/purge")
    if status >= 300:
        raise Exit(f"Restate did not purge {invocation}: {status}: {message(answer)}")
    for _ in range(PURGE_LOOKS):
        if not sql(cfg, f"SELECT id FROM sys_invocation WHERE id = '{invocation}'"):
            return
        time.sleep(WATCH_SECONDS)
    raise Exit(
        f"Restate still lists {invocation} after its purge; look with `restate invocations describe {invocation}`"
    )


def message(answer: object) -> str:
    return str(answer.get("message", answer)) if isinstance(answer, dict) else str(answer)


def page(cfg: dict, invocation: str) -> str:
    """Restate's own page of an invocation."""
    return f"{cfg['RESTATE_ADMIN_URL']}/ui/invocations/{invocation}"


def one_line(text: str) -> str:
    """A message of several lines, as Oracle writes them, in one."""
    return " ".join(text.split())


def state_of(cfg: dict, service: str, key: str) -> dict:
    """The state of one key as Restate keeps it: {name: value}."""
    rows = sql(cfg, f"SELECT key, value_utf8 FROM state WHERE service_name = '{service}' AND service_key = '{key}'")
    return {row["key"]: json.loads(row["value_utf8"]) for row in rows}


def invocation_of(cfg: dict, service: str, key: str, handler: str) -> dict | None:
    """The newest invocation of a handler for a key, with Restate's own status of it."""
    rows = sql(
        cfg,
        "SELECT id, status, completion_result, completion_failure, last_failure, retry_count, created_at,"
        " modified_at, completed_at FROM sys_invocation"
        f" WHERE target_service_name = '{service}' AND target_service_key = '{key}'"
        f" AND target_handler_name = '{handler}' ORDER BY created_at DESC LIMIT 1",
    )
    # Columns without a value are left out of Restate's answer.
    return defaultdict(lambda: None, rows[0]) if rows else None


def running(cfg: dict, date: str) -> bool:
    """Whether a closing of this date has been accepted and has not ended."""
    run = invocation_of(cfg, "DailyClosing", date, "run")
    return run is not None and run["status"] != ENDED


def ended(cfg: dict, date: str) -> bool:
    """Whether a closing of this date has been accepted and has ended, in whichever way."""
    run = invocation_of(cfg, "DailyClosing", date, "run")
    return run is not None and run["status"] == ENDED


def standing(cfg: dict, date: str) -> str:
    """One line on how a date's closing stands."""
    run = invocation_of(cfg, "DailyClosing", date, "run")
    if not run:
        return f"{date}: Restate knows no closing of this date"
    state = state_of(cfg, "DailyClosing", date).get("status", {})
    if run["status"] == ENDED:
        if run["completion_result"] == "success":
            return f"{date} succeeded, run {state.get('run')}, {page(cfg, run['id'])}"
        return f"{date} failed: {one_line(run['completion_failure'])}; {page(cfg, run['id'])}"
    now = state_of(cfg, "ClosingPeriod", date[:7])
    progress = now.get("progress", {})
    doing = " ".join(str(progress[name]) for name in ("step", "job", "state") if progress.get(name))
    return f"{date} is {run['status']}{': ' if doing else ''}{doing}, {page(cfg, run['id'])}"


def follow(cfg: dict, date: str, check: Callable[[], None] = lambda: None) -> dict:
    """Follow a closing to its end, a line at each change; returns its result, Exit in one line if it failed.

    check is called at each look and may raise, such as when a part of the local cloud has died.
    """
    begin, shown = time.monotonic(), None
    while True:
        check()
        run = invocation_of(cfg, "DailyClosing", date, "run")
        if not run:
            raise Exit(f"Restate knows no closing of {date}; start one with `inv close`")
        if run["status"] == ENDED:
            break
        doing = current_step(cfg, date)
        if doing and doing != shown:
            print(f"{time.monotonic() - begin:7.1f} s  {doing}", flush=True)
            shown = doing
        time.sleep(WATCH_SECONDS)
    if run["completion_result"] != "success":
        raise Exit(f"{date} failed: {one_line(run['completion_failure'])}")
    print(f"{time.monotonic() - begin:7.1f} s  done", flush=True)
    result = state_of(cfg, "DailyClosing", date)["status"]
    for text in findings.texts(result):
        print(f"{'':9}  {text}", flush=True)
    return result


def current_step(cfg: dict, date: str) -> str:
    close = invocation_of(cfg, "ClosingPeriod", date[:7], "close")
    if not close:
        return ""
    progress = state_of(cfg, "ClosingPeriod", date[:7]).get("progress", {})
    words = [progress.get("step"), progress.get("job"), progress.get("state"), progress.get("error")]
    if close["status"] in ("paused", "backing-off") and close["last_failure"]:
        words.append(f"{close['status']}: {one_line(close['last_failure'])}")
    return "  ".join(str(word) for word in words if word)


def checked_date(date: str) -> str:
    try:
        return real_date(date).isoformat()
    except ValueError as error:
        raise Exit(str(error)) from None
