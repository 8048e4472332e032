"""The entrance of the handlers, with a context that knows a key and the time."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from restate import TerminalError
from restate.exceptions import RetryableError, SuspendedException

from handler import app, entry
from handler.request import check_close, check_period

GOOD = b'{"date": "2025-01-31"}'


class Context:
    def __init__(self, key: str):
        self.key = lambda: key
        self.request = lambda: SimpleNamespace(id="inv_1")

    async def time(self) -> float:
        return time.time()


def outcome(raises: BaseException | None, *body: bytes, key: str = "2025-01", check=check_close, pauses: bool = False):
    """Call a handler through its entrance; returns its result or what it raised."""

    @entry.checked(check, pauses)
    async def handler(ctx, *request):
        if raises:
            raise raises
        return request

    try:
        return asyncio.run(handler(Context(key), *body))
    except BaseException as error:
        return error


@pytest.mark.parametrize("service", app.SERVICES, ids=lambda service: service.name)
def test_every_handler_checks_its_request(service):
    for handler in service.handlers.values():
        assert handler.fn.check
        assert handler.arity == 1 or isinstance(handler.handler_io.input_serde, entry.Body)


def test_close_is_private_and_alone_pauses():
    close = app.period.handlers["close"]
    assert close.ingress_private and close.invocation_retry_policy.on_max_attempts == "pause"
    others = [one for name, one in app.period.handlers.items() if name != "close"]
    assert [one for one in others if one.ingress_private or one.invocation_retry_policy] == []
    assert app.period.invocation_retry_policy.on_max_attempts == "kill"


def test_good_request_reaches_the_handler_with_its_defaults():
    (request,) = outcome(None, GOOD)
    assert (request["date"], request["userId"]) == ("2025-01-31", "adm")
    assert outcome(None, check=check_period) == ()


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"not json", b"\xff", b"[" * 4000, b'{"date": "2025-02-01"}'])
def test_bad_request_ends_with_400_in_one_line(body):
    error = outcome(AssertionError("the handler was called"), body)
    assert isinstance(error, TerminalError) and error.status_code == 400
    assert error.message.endswith("; nothing was done") and len(error.message.splitlines()) == 1


@pytest.mark.parametrize("error", [KeyError("job"), TypeError("None"), ValueError("x"), RuntimeError()])
def test_error_in_our_own_code_ends_a_handler_at_once_and_leaves_close_to_restate(error, capsys):
    ended = outcome(error, GOOD)
    assert isinstance(ended, TerminalError) and ended.status_code == 500
    assert type(error).__name__ in ended.message and "test_entry.py" in ended.message
    assert isinstance(outcome(error, GOOD, pauses=True), RetryableError)
    assert capsys.readouterr().err.count('"event": "code_error"') == 2


@pytest.mark.parametrize("error", [TerminalError("no", 423), SuspendedException(), asyncio.CancelledError()])
def test_errors_of_the_sdk_pass(error):
    assert outcome(error, GOOD) is error
    assert outcome(error, GOOD, pauses=True) is error
