"""Requests of other callers to the ingress: a bad request ends with 400 and changes nothing."""

from __future__ import annotations

import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime
from urllib.parse import urlsplit

import pytest
from support.helpers import STATE, as_superuser, inv, run_rows, starts
from support.requests import HANDLERS, PER_HANDLER, Generated, generate, valid
from support.schedule_helpers import wait_for

from handler.request import protocol
from ops import closings
from ops.restate import request, sql

SEED = 16
SECONDS = 2.0
# The date of the one closing among the requests that must succeed.
CONTROL = "2019-12-02"
# The emulator starts one process for each call that runs at once.
AT_ONCE = 3


def send(cfg: dict, one: Generated) -> float:
    """Send a request and keep its answer; returns the seconds it took."""
    # A new connection each time: the ingress closes it if it refuses a body without reading it.
    line = http.client.HTTPConnection(urlsplit(cfg["RESTATE_INGRESS_URL"]).netloc, timeout=60)
    headers = {"content-type": one.content_type} if one.content_type else {}
    begin = time.monotonic()
    line.request("POST", one.path, one.body or None, headers)
    answer = line.getresponse()
    text = answer.read()
    line.close()
    one.answer = {"code": answer.status, "body": json.loads(text or b"null"), "seconds": time.monotonic() - begin}
    return one.answer["seconds"]


def invocations(cfg: dict) -> dict[str, dict]:
    """Return all invocations of our services that Restate still lists, by their id."""
    names = ", ".join(f"'{name}'" for name in HANDLERS)
    rows = sql(
        cfg,
        "SELECT id, target, status, completion_failure, created_at, completed_at FROM sys_invocation"
        f" WHERE target_service_name IN ({names})",
    )
    return {row["id"]: row for row in rows}


def logged(name: str) -> list[str]:
    return (STATE / "logs" / f"{name}.log").read_text().splitlines()


def errors() -> list[str]:
    """Return the errors that the databases have answered, from their own logs."""
    return [one for one in logged("genius") if one.startswith("error ")] + [
        one for one in logged("postgres") if re.search(r"\b(ERROR|FATAL):", one)
    ]


def everything(cfg: dict, local) -> dict:
    """Return all that a bad request could have changed: Genius' jobs, closing_runs, and Restate's state."""
    connection = as_superuser(local)
    rows = connection.run(
        f'SELECT id, status, detail FROM "{cfg["PG_SCHEMA"]}".closing_runs WHERE closing_date <> :day ORDER BY id',
        day=CONTROL,
    )
    connection.close()
    state = sql(
        cfg,
        "SELECT service_name, service_key, key, value_utf8 FROM state WHERE service_key <> ? ORDER BY 1, 2, 3",
        CONTROL,
    )
    jobs = inv("genius.sql", "SELECT job_name FROM user_scheduler_jobs ORDER BY job_name").stdout
    return {"jobs": jobs, "rows": rows, "state": state, "starts": starts()}


@pytest.fixture(scope="module")
def quiet(deployed):
    """Leave the cloud without a live invocation and a schedule, and with the workers that the test needs."""
    inv("schedule", "stop", "--env", "local")
    wait_for(lambda: all(one["status"] == "completed" for one in invocations(deployed).values()))
    warm = [valid("ClosingPeriod", "inspect", "2019-12-01") for _ in range(4 * AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: send(deployed, one), warm))
    assert {one.answer["code"] for one in warm} == {200}
    return deployed


def test_bad_requests_are_refused_in_time_and_change_nothing(local, quiet):
    cfg = quiet
    sent = generate(SEED)
    assert len(sent) >= 500 and PER_HANDLER >= 30
    reads = [("DailyClosing", "getStatus"), ("ClosingPeriod", "status"), ("ClosingPeriod", "inspect")]
    reads.append(("DailyClosingScheduler", "status"))
    controls = [valid(*which, "2019-12-01") for which in reads for _ in range(3)]
    controls.append(valid("DailyClosing", "run", CONTROL))
    before, old, complaints = everything(cfg, local), invocations(cfg), errors()
    every = [*sent[::2], *controls, *sent[1::2]]
    begin = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: send(cfg, one), every))
    print(f"{len(every)} requests in {time.monotonic() - begin:.1f} s")

    assert [one for one in controls if one.answer["code"] != 200] == []
    assert [row["status"] for row in run_rows(cfg, CONTROL)] == ["succeeded"]
    wait_for(lambda: all(row["status"] == "completed" for row in invocations(cfg).values()), 5)
    new = {key: row for key, row in invocations(cfg).items() if key not in old}
    assert [one for one in sent if fault(one, new)] == []
    late = {key for key, row in new.items() if seconds(row) > SECONDS}
    slow = [one for one in sent if one.answer["seconds"] > SECONDS or one.answer["body"].get("invocationId") in late]
    # A loaded machine gets a second chance: a request that is slow by itself is slow again.
    assert [one for one in slow if send(cfg, replace(one, sends=False)) > SECONDS] == []
    assert errors() == complaints
    assert everything(cfg, local) == before


def fault(one: Generated, known: dict[str, dict]) -> str:
    """Return how the end of a bad request differs from what it must be; "" if it does not."""
    answer = one.answer["body"]
    if 400 <= one.answer["code"] < 500:
        text = str(answer.get("message", ""))
        return "" if text and len(text.splitlines()) == 1 else f"not one line: {answer}"
    if not one.sends or one.answer["code"] != 202:
        return f"answered {one.answer}"
    row = known.get(answer["invocationId"], {})
    # If an earlier request has used the date, its run is that of the earlier request.
    failure = row.get("completion_failure", "")
    return "" if failure.startswith("[400") and len(failure.splitlines()) == 1 else f"ended as {row}"


def seconds(row: dict) -> float:
    begin, end = (datetime.fromisoformat(row[name].replace("Z", "+00:00")) for name in ("created_at", "completed_at"))
    return (end - begin).total_seconds()


def ask(cfg: dict, path: str, body: object = None) -> tuple[int, str]:
    code, answer = request(cfg, "POST", f"{cfg['RESTATE_INGRESS_URL']}/{path}", body)
    return code, closings.message(answer)


def test_key_with_sql_never_reaches_oracle(quiet):
    complaints = errors()
    code, output = ask(quiet, "ClosingPeriod/2025-01%25'%20OR%20'1'='1/inspect", {"date": "2025-01-31"})
    assert code == 400 and "is not a period; expected one from 2000-01 on, as YYYY-MM; nothing was done" in output
    assert errors() == complaints


@pytest.mark.parametrize("path", ["2025-06/close", "2025-06/close/send", "2025-13/close"])
def test_close_is_closed_to_the_ingress(quiet, path):
    code, output = ask(quiet, f"ClosingPeriod/{path}", {"date": "2025-06-30"})
    assert (code, "not public" in output) == (400, True)
    assert closings.invocation_of(quiet, "ClosingPeriod", path[:7], "close") is None or path[:7] == "2025-06"


@pytest.mark.parametrize("body", [{"as": "failed", "who": "siti"}, None, {}])
def test_resolve_without_a_job_holds_no_key(quiet, body):
    code, output = ask(quiet, "ClosingPeriod/2025-06/resolve", body)
    assert code == 400 and output.endswith("; nothing was done")
    assert [one for one in invocations(quiet).values() if one["status"] != "completed"] == []


def test_resolve_of_a_blocked_period_works_through_the_ingress(quiet):
    blocked = {"date": "2019-11-09", "job": "GNS_X", "message": "STOPPED", "at": 1.0}
    body = {"object_key": "2019-11", "new_state": {"blocked": list(json.dumps(blocked).encode())}}
    assert request(quiet, "POST", f"{quiet['RESTATE_ADMIN_URL']}/services/ClosingPeriod/state", body)[0] < 300
    wait_for(lambda: closings.state_of(quiet, "ClosingPeriod", "2019-11"))
    code, _ = ask(quiet, "ClosingPeriod/2019-11/resolve", {"job": "GNS_X", "as": "failed", "who": "siti"})
    assert (code, closings.state_of(quiet, "ClosingPeriod", "2019-11")) == (200, {})


def test_date_used_up_by_a_refused_body_can_be_closed(quiet):
    """`inv close` finds the refused run and purges it, however the body was wrong."""
    one = Generated("DailyClosing", "2019-10-03", "run", b"not json")
    send(quiet, one)
    assert one.answer["code"] == 400 and "the body is not JSON" in one.answer["body"]["message"]
    assert closings.state_of(quiet, "DailyClosing", "2019-10-03") == {}
    skip = ("--skip-genius", "--skip-sync", "--skip-metrics")
    assert "2019-10-03 accepted" in inv("close", "--env", "local", "--date", "2019-10-03", "--watch", *skip).stdout
    again = inv("close", "--env", "local", "--date", "2019-10-03", *skip, check=False)
    assert again.returncode == 1 and "`inv next --env local --date 2019-10-03`" in again.stderr
    (row,) = run_rows(quiet, "2019-10-03")
    assert row["status"] == "succeeded"


def test_refused_date_can_be_rerun(quiet):
    send(quiet, Generated("DailyClosing", "2019-10-04", "run", b"[]"))
    done = inv("rerun", "--env", "local", "--date", "2019-10-04", "--yes", "--watch", check=False)
    # The books have no 2019; the run itself begins, which a refused one would not.
    assert "accepted as" in done.stdout
    assert len(run_rows(quiet, "2019-10-04")) == 1


def test_newer_minor_protocol_is_served_and_a_newer_major_is_refused(quiet):
    body = {"date": "2019-10-05", "protocol": "1.7", "newField": [1]}
    code, answer = request(quiet, "POST", f"{quiet['RESTATE_INGRESS_URL']}/ClosingPeriod/2019-10/inspect", body)
    assert (code, set(answer)) == (200, {"jobs", "runs"})
    code, output = ask(quiet, "ClosingPeriod/2019-10/inspect", {**body, "protocol": "2.0"})
    assert code == 400 and f"protocol 2.0 is newer than {protocol()}" in output and len(output.splitlines()) == 1


def test_today_s_trigger_is_a_closing_of_today(quiet):
    """A valid request to a handler that starts something, as the control. The books have no entries of today."""
    code, answer = request(quiet, "POST", f"{quiet['RESTATE_INGRESS_URL']}/DailyClosingScheduler/main/trigger")
    assert (code, abs((date.fromisoformat(answer["date"]) - date.today()).days) <= 1) == (200, True)
    wait_for(lambda: closings.ended(quiet, answer["date"]), 60)
