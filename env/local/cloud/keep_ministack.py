"""Run ministack, and write its state down when a request has changed it: by itself it does so only on an orderly end.

A killed Lambda service would forget versions to which Restate holds invocations; AWS does not forget them. Run by
ministack's own interpreter; imports nothing else of this package, and knows the insides of the pinned version.
"""

import asyncio
import logging

from ministack import app
from ministack.core import persistence

# Longer than a function stays Pending, so that it is not written down as such.
SECONDS = 1
_original = app.app
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


if __name__ == "__main__":
    app.app = app_that_saves
    app.main()
