"""The running attempt of an invocation: how often and for how long Restate has tried the current step.

Restate sends both numbers with each attempt, so they hold for every instance of the function. The SDK does not pass
them on; they are two fields of the StartMessage with which each request begins:
https://github.com/restatedev/service-protocol/blob/main/dev/restate/service/protocol.proto
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

START_MESSAGE, HEADER_BYTES = 0, 8
RETRIES, MILLISECONDS = 7, 8
VARINT, EIGHT_BYTES, WITH_LENGTH, FOUR_BYTES = 0, 1, 2, 5

# Both of the running attempt; 0 for an event that is not Restate's, and for a compressed request.
_retries = 0
_seconds = 0.0


def begin(event: dict) -> None:
    """Take both numbers from an event of Restate; any other event has none."""
    global _retries, _seconds
    try:
        fields = dict(numbers(start_message(base64.b64decode(event.get("body") or "")[: 1 << 20])))
    except (LookupError, ValueError, TypeError):
        fields = {}
    _retries, _seconds = fields.get(RETRIES, 0), fields.get(MILLISECONDS, 0) / 1000


def retries() -> int:
    """Return how many attempts have failed since the invocation's last step."""
    return _retries


def seconds() -> float:
    """Return for how many seconds Restate has been trying, since the invocation's last step."""
    return _seconds


def start_message(body: bytes) -> bytes:
    """Return the first message of a request without its header: type, flags, length."""
    kind, length = int.from_bytes(body[:2], "big"), int.from_bytes(body[4:HEADER_BYTES], "big")
    if kind != START_MESSAGE or len(body) < HEADER_BYTES:
        raise ValueError("no StartMessage")
    return body[HEADER_BYTES : HEADER_BYTES + length]


def numbers(message: bytes) -> Iterator[tuple[int, int]]:
    """Yield the number and the value of each field of a protobuf message that is a varint."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        value, at = varint(message, at) if tag & 7 in (VARINT, WITH_LENGTH) else (0, at)
        if tag & 7 == VARINT:
            yield tag >> 3, value
        at += {VARINT: 0, EIGHT_BYTES: 8, WITH_LENGTH: value, FOUR_BYTES: 4}[tag & 7]


def varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a protobuf varint and the place after it; IndexError if the message ends before."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
