"""Run ministack, and write its state down when a request has changed it: by itself it does so only on an orderly end.

And let the Code.Location of a version serve that version's zip, as AWS does; ministack's own serves the newest code.

A killed Lambda service would forget versions to which Restate holds invocations; AWS does not forget them. Run by
ministack's own interpreter; imports nothing else of this package, and knows the insides of the pinned version.
"""

import asyncio
import json
import logging

from ministack import app
from ministack.core import persistence
from ministack.services import lambda_svc

# Longer than a function stays Pending, so that it is not written down as such.
SECONDS = 1
_original = app.app
_get_function, _serve_code = lambda_svc._get_function, lambda_svc.serve_function_code
_saving: set[asyncio.Task] = set()


async def app_that_saves(scope, receive, send) -> None:
    """ministack's ASGI application, with a save behind each request that may have changed something."""
    await _original(scope, receive, send)
    if may_have_changed(scope) and not _saving:
        _saving.add(asyncio.get_running_loop().create_task(save_soon()))


def may_have_changed(scope) -> bool:
    """Invocations are left out: they are many, and change logs alone."""
    return scope["type"] == "http" and scope["method"] != "GET" and not scope["path"].endswith("/invocations")


async def save_soon() -> None:
    await asyncio.sleep(SECONDS)
    _saving.clear()
    for service, get_state in app._build_persistence_save_dict().items():
        try:
            persistence.save_state(service, get_state())
        except RuntimeError as error:
            logging.getLogger("persistence").warning("%s changed while it was saved: %s", service, error)


def get_function(name, qualifier=None):
    status, headers, body = _get_function(name, qualifier)
    found = json.loads(body)
    version = found.get("Configuration", {}).get("Version", "$LATEST")
    if version == "$LATEST":
        return status, headers, body
    found["Code"]["Location"] = found["Code"]["Location"].replace(f"/{name}?", f"/{name}:{version}?")
    return status, headers, json.dumps(found).encode()


def serve_code(name, account_id=None, region=None):
    name, _, version = name.partition(":")
    if not version:
        return _serve_code(name, account_id, region)
    function = lambda_svc._functions.get_scoped(account_id, region, name)
    return 200, {"Content-Type": "application/zip"}, function["versions"][version]["code_zip"]


if __name__ == "__main__":
    app.app = app_that_saves
    lambda_svc._get_function, lambda_svc.serve_function_code = get_function, serve_code
    app.main()
