"""The scheduler of the tests' cloud on a clock of the test, as its callers and its operators see it."""

from __future__ import annotations

import io
import json
import time
import zipfile
from contextlib import closing
from pathlib import Path

from botocore.session import Session
from support import soak_clock
from support.helpers import ROOT, connect, inv

from ops import closings, schedule
from ops.config import function_environment
from ops.restate import request, sql

ENTRY = "soak_clock.handler"
BUNDLE = ROOT / "build" / "lambda.zip"


class Schedule:
    """The function with soak_clock.py added to its bundle, and the one key of its scheduler."""

    def __init__(self, cfg: dict[str, str]):
        self.cfg = cfg
        key = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        place = {"region_name": cfg["AWS_REGION"], "endpoint_url": cfg["AWS_ENDPOINT_URL"]}
        self.aws, self.name = Session().create_client("lambda", **place, **key), {"FunctionName": cfg["FUNCTION_NAME"]}
        self.arn = ""

    def deploy(self, clock: str, **changed: str) -> str:
        """Publish and register a version with this clock and these settings, as `inv deploy` does after its queries.

        Returns the version's ARN.
        """
        variables = {**function_environment(self.cfg), soak_clock.VARIABLE: clock, **changed}
        found = self.aws.get_function_configuration(**self.name)
        if found["Handler"] != ENTRY:
            self.aws.update_function_code(**self.name, ZipFile=bundle_on_clock())
        elif found["Environment"]["Variables"] == variables:
            return self.arn
        self.aws.update_function_configuration(**self.name, Handler=ENTRY, Environment={"Variables": variables})
        self.arn = self.aws.publish_version(**self.name)["FunctionArn"]
        self.ask("POST", f"{self.cfg['RESTATE_ADMIN_URL']}/v3/deployments", {"arn": self.arn})
        return self.arn

    def ask(self, method: str, url: str, body: object = None):
        code, answer = request(self.cfg, method, url, body)
        assert code < 300, (url, code, answer)
        return answer

    def call(self, verb: str, body: object = None):
        return self.ask("POST", schedule.url(self.cfg, verb), body)

    def state(self) -> dict:
        return closings.state_of(self.cfg, schedule.SERVICE, schedule.KEY)

    def planned(self) -> list[str]:
        """Return the planned runs that are still to come: one for each chain that there is."""
        rows = sql(
            self.cfg,
            f"SELECT id FROM sys_invocation WHERE target_service_name = '{schedule.SERVICE}'"
            " AND target_handler_name = 'trigger' AND status = 'scheduled'",
        )
        return [row["id"] for row in rows]

    def forget(self) -> None:
        """Stop, and remove all state and the checks of late dates, so that the next test begins with none."""
        self.call("stop")
        left = "SELECT id FROM sys_invocation WHERE target_handler_name = 'check_closed' AND status != 'completed'"
        for row in sql(self.cfg, left):
            self.ask("PATCH", f"{self.cfg['RESTATE_ADMIN_URL']}/invocations/{row['id']}/kill")
        wait_for(lambda: not sql(self.cfg, left))
        url = f"{self.cfg['RESTATE_ADMIN_URL']}/services/{schedule.SERVICE}/state"
        self.ask("POST", url, {"object_key": schedule.KEY, "new_state": {}})
        wait_for(lambda: not self.state())

    def leave(self) -> None:
        """Leave the cloud to the next test: no state, no date recorded as closed, a function on the real clock."""
        self.forget()
        on_runs(self.cfg, "DELETE FROM {} WHERE owner = 'a test'")
        inv("deploy", "--env", "local")

    def sent(self) -> list[list[str]]:
        """Return what each call of trigger has sent, in the journal's order: 'next' (the next run) or a closing's date.

        The call that checks whether a date is late sends nothing.
        """
        rows = sql(
            self.cfg,
            "SELECT call.id, journal.entry_json FROM sys_journal journal JOIN sys_invocation call"
            " ON call.id = journal.id WHERE journal.entry_type = 'Command: OneWayCall'"
            f" AND call.target_service_name = '{schedule.SERVICE}' AND call.target_handler_name = 'trigger'"
            " ORDER BY call.created_at, call.id, journal.index",
        )
        calls: dict[str, list[str]] = {}
        for row in rows:
            (target,) = json.loads(row["entry_json"])["Command"]["OneWayCall"]["request"]["invocation_target"].values()
            if target["handler"] == "check_closed":
                continue
            calls.setdefault(row["id"], []).append("next" if target["name"] == schedule.SERVICE else target["key"])
        return list(calls.values())


def bundle_on_clock() -> bytes:
    """Return the deployed bundle with soak_clock.py added."""
    content = io.BytesIO(BUNDLE.read_bytes())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("soak_clock.py", Path(soak_clock.__file__).read_bytes())
    return content.getvalue()


def have_closed(cfg: dict[str, str], first: str, last: str) -> None:
    """Record these dates as closed in closing_runs, so that a closing of one of them ends at its first step."""
    on_runs(
        cfg,
        "INSERT INTO {} (id, owner, closing_date, period, user_id, status, genius, ledger, metrics)"
        " SELECT gen_random_uuid(), 'a test', day, to_char(day, 'YYYY-MM'), 'adm',"
        " 'succeeded', 'succeeded', 'succeeded', 'succeeded'"
        " FROM generate_series(CAST(:first AS date), CAST(:last AS date), interval '1 day') AS day",
        first=first,
        last=last,
    )


def on_runs(cfg: dict[str, str], statement: str, **values: str) -> None:
    """Run a statement on closing_runs, whose name replaces `{}`."""
    with closing(connect(cfg)) as connection:
        connection.run(statement.format(f'"{cfg["PG_SCHEMA"]}".closing_runs'), **values)


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.1)


def clock_of(day: str, factor: int = 1) -> str:
    """Return a clock that shows midnight UTC of a date now."""
    return f"{day}@{int(time.time())}*{factor}"
