"""The Lambda entry point: tells Restate's calls, Function URL calls and our own events apart."""

from __future__ import annotations

import base64

import restate

from . import deadline, health, runs, schema
from .closing import closing
from .period import period
from .scheduler import scheduler

serve = restate.app([closing, period, scheduler])


def handler(event: dict, context) -> dict:
    """Answer one Lambda event.

    {"ping": true} -> {"ok", "version", "cold", "uptimeSeconds"}; {"ping": "deep"} -> the same with what health.deep
    found; {"schema": true} applies schema.sql; {"history": N} -> {"runs"}, the newest N. Restate's own events and
    Function URL events (payload v2) go to the SDK, so that nobody can ask for one of ours through a URL.
    """
    deadline.begin(context)
    health.Sandbox.events += 1
    if "rawPath" in event:
        event = from_function_url(event)
    elif "ping" in event:
        return health.deep() if event["ping"] == "deep" else health.shallow()
    elif "schema" in event:
        return {"ok": True, "schema": schema.apply()}
    elif "history" in event:
        return {"ok": True, "runs": runs.newest(int(event["history"]))}
    return serve(event, context)


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
