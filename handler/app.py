"""The Lambda entry point: distinguishes Restate's calls, Function URL calls and our own events."""

from __future__ import annotations

import base64
import time

import restate

from . import attempt, deadline, health, request, runs, schema, settings
from .closing import closing
from .period import period
from .scheduler import scheduler

SERVICES = [closing, period, scheduler]
KEYS = settings.current().restate_identity_keys
serve = restate.app(SERVICES, identity_keys=KEYS)
health.ColdStart.imports = round(time.process_time(), 3)


def handler(event: dict, context) -> dict:
    """Answer one Lambda event.

    {"ping": true} -> {"ok", "version", "cold", "uptimeSeconds", "importSeconds"}; {"ping": "reach"} and
    {"ping": "deep"} -> the same with the result of health.reach or health.deep; {"readiness": true} -> the deep one and
    the "facts" of readiness.read; {"testJob": true} -> what test_job.run returns; {"secrets": true} -> {"secrets"}, see
    health.secrets; {"schema": true} applies schema.sql; {"history": N} -> {"runs"}, the newest N; {"report": …} and
    {"reconcile": …}: see report.py; {"handlers": true} -> {"handlers", "protocol"}: their names by service, and the
    version of the requests that they understand. Restate's own events and Function URL events (payload v2) go to the
    SDK, so that no caller of a URL can send one of ours; it answers 401 to a call that none of the keys has signed.
    """
    deadline.begin(context)
    health.ColdStart.events += 1
    if "rawPath" in event:
        # Somebody has created the URL without a deploy, which would have refused it.
        return answer(from_function_url(event), context) if KEYS else {"statusCode": 401}
    if "ping" in event:
        return {"deep": health.deep, "reach": health.reach}.get(str(event["ping"]), health.shallow)()
    if "secrets" in event:
        return {"ok": True, "secrets": health.secrets()}
    if "readiness" in event:
        return health.readiness()
    if "testJob" in event:
        from . import test_job

        return {"ok": True, **test_job.run()}
    if "schema" in event:
        return {"ok": True, "schema": schema.apply()}
    if "history" in event:
        return {"ok": True, "runs": runs.newest(int(event["history"]))}
    if "report" in event or "reconcile" in event:
        from . import report

        return report.answer(event["report"]) if "report" in event else report.reconcile(event["reconcile"])
    if "handlers" in event:
        named = {one.name: sorted(one.handlers) for one in SERVICES}
        return {"ok": True, "handlers": named, "protocol": request.protocol()}
    return answer(event, context)


def answer(event: dict, context) -> dict:
    """Let the SDK answer one attempt of Restate."""
    attempt.begin(event)
    return serve(event, context)


def from_function_url(event: dict) -> dict:
    """Convert a Function URL's payload v2 to the shape of v1, the only one that the SDK's adapter knows."""
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
