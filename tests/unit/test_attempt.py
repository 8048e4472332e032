"""The two numbers of an attempt, read from a request as Restate writes it."""

from __future__ import annotations

import base64

import pytest

from handler import attempt

# Fields 1, 3, 4, 6, 7 and 8 of a StartMessage: id, entries, one state entry, key, 3 retries, 300,000 milliseconds.
START = b"\x0a\x02ab\x18\x05\x22\x03xyz\x32\x07" + b"2025-01" + b"\x38\x03\x40\xe0\xa7\x12"


def request(message: bytes, kind: int = 0) -> dict:
    body = kind.to_bytes(2, "big") + b"\0\0" + len(message).to_bytes(4, "big") + message + b"\x04\0\0\0\0\0\0\0"
    return {"path": "/invoke/ClosingPeriod/close", "body": base64.b64encode(body).decode()}


def test_retries_and_seconds_are_those_of_the_start_message():
    attempt.begin(request(START))
    assert (attempt.retries(), attempt.seconds()) == (3, 300.0)


@pytest.mark.parametrize(
    "event",
    [
        {"path": "/discover"},
        {"body": ""},
        {"body": "no base64"},
        {"body": base64.b64encode(b"\0\0").decode()},
        request(START, kind=0x400),
        request(START[:-1]),
        request(b"\x0f\x01"),
        request(b"\xff" * 20),
    ],
    ids=["no body", "empty", "not base64", "short", "another message", "cut", "unknown type", "no end"],
)
def test_any_other_event_has_none(event):
    attempt.begin(request(START))
    attempt.begin(event)
    assert (attempt.retries(), attempt.seconds()) == (0, 0.0)
