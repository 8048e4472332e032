"""The function's answer to a ping, without a function."""

from __future__ import annotations

import json
import socket
import time

import pytest
from invoke import Context, Exit

from ops import ping
from ops.target import Target

EVENTS = [
    '{"ping": "deep"}',
    '{"schema": true}',
    '{"history": 5}',
    '{"report": {"period": "2025-01"}}',
    '{"reconcile": {"period": "2025-01"}}',
]


def test_database_that_does_not_answer_is_not_waited_for():
    from handler import health

    begin = time.monotonic()
    found = health.measure({"slow": lambda: time.sleep(5), "quick": lambda: {"version": "1"}}, 0.3)
    assert time.monotonic() - begin < 3
    assert found["slow"] == {"ok": False, "seconds": 0.3, "error": "no answer within 0.3 s"}
    assert found["quick"]["ok"] and found["quick"]["version"] == "1"


@pytest.mark.parametrize("event", EVENTS)
def test_function_url_accepts_none_of_our_events(event, monkeypatch):
    from handler import app, health, report

    monkeypatch.setattr(health, "measure", lambda *_: pytest.fail("a database was opened"))
    monkeypatch.setattr(report, "connected", lambda *_: pytest.fail("a database was opened"))
    monkeypatch.setattr(app, "serve", lambda given, context: {"statusCode": 404, "got": given["path"]})
    monkeypatch.setattr(app, "KEYS", ["publickeyv1_of_a_server"])
    # Also with our keys beside those of a URL's event. Only AWS could send this.
    url = {"rawPath": "/ping", "requestContext": {"http": {"method": "POST"}}, "body": event, **json.loads(event)}
    assert app.handler(url, None) == {"statusCode": 404, "got": "/ping"}


def test_first_event_of_a_process_is_a_cold_start(monkeypatch):
    from handler import app, health

    monkeypatch.setattr(health.ColdStart, "events", 0)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "7")
    first, second = (app.handler({"ping": True}, None) for _ in range(2))
    assert (first["cold"], second["cold"], first["version"]) == (True, False, "7")


def test_parts_of_a_cold_start_are_in_the_line_of_a_deep_ping():
    parts = {"ok": True, "seconds": 0.1, "version": "1"}
    answer = {"version": "7", "cold": True, "uptimeSeconds": 0.4, "importSeconds": 0.2914}
    answer["client"] = {"mode": "thin", "version": None, "seconds": 0.05}
    answer |= {"postgres": parts | {"connectSeconds": 0.02}, "oracle": parts | {"connectSeconds": 0.01}}
    line = ping.format_answer(answer, "x")
    assert line.endswith("thin mode; imports 291 ms, Oracle driver 50 ms, connects 20 ms and 10 ms")
    # A version from before this line has no such figures.
    assert ping.format_answer(answer | {"importSeconds": None}, "x").endswith("thin mode")


def test_silent_function_is_named_and_not_the_network():
    """The listener accepts, and never answers: the CLI's own limit is the first to end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        cfg = dict.fromkeys(("AWS_PROFILE", "RESTATE_ADMIN_URL", "RESTATE_AUTH_TOKEN"), "")
        cfg |= {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "ap-southeast-3", "FUNCTION_NAME": "f"}
        with pytest.raises(Exit, match=r"^prod: f did not answer within 6 s; read its log with `inv logs --env prod"):
            ping.send(Target(Context(), cfg, "prod"), {"ping": True}, 6)
