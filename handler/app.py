"""The Lambda entry point: tells Restate's calls, Function URL calls and our own events apart."""

from __future__ import annotations

import base64
import os
import time

import restate

from . import deadline, genius, schema
from .closing import closing
from .period import period
from .scheduler import scheduler

STARTED = time.time()

serve = restate.app([closing, period, scheduler])


def handler(event: dict, context) -> dict:
    """Answer one Lambda event.

    {"ping": true} -> {"ok", "version", "uptimeSeconds"}; {"ping": "deep"} -> the same and {"client"}, how Oracle is
    reached, with the client library's version; {"schema": true} applies schema.sql; Restate's own
    events and Function URL events (payload v2) go to the SDK.
    """
    deadline.begin(context)
    if "rawPath" in event:
        event = from_function_url(event)
    elif "ping" in event:
        return ping(deep=event["ping"] == "deep")
    elif "schema" in event:
        return {"ok": True, "schema": schema.apply()}
    return serve(event, context)


def ping(deep: bool) -> dict:
    answer = {"ok": True, "version": os.environ.get("AWS_LAMBDA_FUNCTION_VERSION"), "uptimeSeconds": uptime()}
    if not deep:
        return answer
    client = genius.look_at_client()
    return answer | {"ok": client["error"] is None, "client": client}


def uptime() -> float:
    return round(time.time() - STARTED, 3)


def from_function_url(event: dict) -> dict:
    """A Function URL's payload v2 in the shape of v1, the only one that the SDK's adapter knows."""
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        body = base64.b64encode(body.encode()).decode()
    return {
        "httpMethod": event["requestContext"]["http"]["method"],
        "path": event["rawPath"],
        "headers": event.get("headers", {}),
        "body": body,
        "isBase64Encoded": True,
    }
