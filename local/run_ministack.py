"""Run ministack with additions, so that it behaves as AWS does.

- Save the state after each request that changes it; ministack saves only on an orderly end, and a killed one would
  forget versions to which Restate holds invocations.
- ListFunctions with FunctionVersion=ALL lists the versions, with their layers.
- FunctionUrl is an address that resolves on this machine.
- A ZIP is unpacked once and not at each cold start, which takes longer than all the rest of it.
- A function's loader searches lib/ of its layers, and a link in a layer is a link.

Run by ministack's own interpreter: imports nothing else of this package, and uses internals of the pinned version.
"""

import asyncio
import functools
import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
import types
import zipfile
from pathlib import Path

from ministack import app
from ministack.core import lambda_runtime, persistence
from ministack.core.responses import json_response
from ministack.services import lambda_svc

# Longer than a function stays Pending, so that Pending is not saved.
SAVE_DELAY_SECONDS = 1
AWS_URL = re.compile(rb"https://([a-z0-9]{32})\.lambda-url\.[a-z0-9-]+\.on\.aws/")
READS = (b"Get", b"List", b"Describe", b"Filter")
# A form begins with its action.
KEPT_BYTES = 200
URL_OPERATIONS = (
    "_create_function_url_config",
    "_get_function_url_config",
    "_update_function_url_config",
    "_list_function_url_configs",
)
original_app = app.app
original_list_functions = lambda_svc._list_functions
original_write_code_blob = lambda_svc._write_code_blob
saving: set[asyncio.Task] = set()


async def app_that_saves(scope, receive, send) -> None:
    """Answer one ASGI request, then schedule a save if the request may have changed something."""
    beginning = bytearray()

    async def receive_and_keep():
        message = await receive()
        beginning.extend(message.get("body", b"")[: KEPT_BYTES - len(beginning)])
        return message

    await original_app(scope, receive_and_keep, send)
    if may_have_changed(scope, bytes(beginning)) and not saving:
        saving.add(asyncio.get_running_loop().create_task(save_soon()))


def may_have_changed(scope, beginning: bytes) -> bool:
    """Return whether a request may have changed the state; invocations are many and change only logs."""
    if scope["type"] != "http" or scope["method"] == "GET" or scope["path"].endswith("/invocations"):
        return False
    # An operation's name stands in a header or in a form, and else in method and path.
    target = dict(scope["headers"]).get(b"x-amz-target", b"").rpartition(b".")[2]
    action = re.search(rb"(?:^|&)Action=(\w+)", beginning)
    return not (target or (action[1] if action else b"")).startswith(READS)


async def save_soon() -> None:
    """Save the state of all services after a short delay."""
    await asyncio.sleep(SAVE_DELAY_SECONDS)
    saving.clear()
    for service, get_state in app._build_persistence_save_dict().items():
        try:
            persistence.save_state(service, get_state())
        except RuntimeError as error:
            logging.getLogger("persistence").warning("%s changed while it was saved: %s", service, error)


@functools.lru_cache(maxsize=32)
def digest(code: bytes) -> str:
    """Return the name under which ministack stores a ZIP; a save asks for that of each version."""
    return hashlib.sha256(code).hexdigest()


def write_code_blob(code: bytes) -> str:
    """Store a ZIP unless it is stored, and return its digest."""
    stored = os.path.join(lambda_svc.CODE_BLOB_DIR, f"{digest(code)}.zip")
    return digest(code) if os.path.exists(stored) else original_write_code_blob(code)


class UnpackedOnce(zipfile.ZipFile):
    """A ZIP whose files each sandbox gets as links; on AWS, too, a function cannot change them."""

    def extractall(self, path) -> None:
        names = repr([(one.filename, one.CRC) for one in self.infolist()])
        kept = os.path.join(tempfile.gettempdir(), f"unpacked-{hashlib.sha256(names.encode()).hexdigest()}")
        if not os.path.exists(kept):
            made = tempfile.mkdtemp(prefix="unpacking-")
            super().extractall(made)
            try:
                os.rename(made, kept)
            except OSError:
                # Another sandbox was faster.
                shutil.rmtree(made)
        shutil.copytree(kept, path, copy_function=os.link, dirs_exist_ok=True)


def list_functions(query_params):
    """Answer ListFunctions; with FunctionVersion=ALL, $LATEST and all versions of every function, on one page."""
    if lambda_svc._qp_first(query_params, "FunctionVersion") != "ALL":
        return original_list_functions(query_params)
    records = [one for function in lambda_svc._functions.values() for one in (function, *function["versions"].values())]
    return json_response({"Functions": [one["config"] for one in records]})


def with_local_urls(operation):
    """Return an operation whose answer has Function URLs of this machine in place of AWS's names."""
    address = f"http://{os.environ['MINISTACK_HOST']}:{os.environ['GATEWAY_PORT']}/_aws/lambda-url/"

    def answer(*arguments):
        status, headers, body = operation(*arguments)
        return status, headers, AWS_URL.sub(lambda url: address.encode() + url[1] + b"/", body)

    return answer


class WithLayers(subprocess.Popen):
    """A process that finds the libraries of its layers, as AWS's runtimes do."""

    def __init__(self, *arguments, env=None, **options):
        # ministack names the folders here; each one's ZIP is beside it.
        layers = [Path(one) for one in (env or {}).get("_LAMBDA_LAYERS_DIRS", "").split(os.pathsep) if one]
        for layer in layers:
            restore_links(layer.with_suffix(".zip"), layer)
        if layers:
            env = env | {"LD_LIBRARY_PATH": os.pathsep.join(str(layer / "lib") for layer in layers)}
        super().__init__(*arguments, env=env, **options)


def restore_links(source: Path, folder: Path) -> None:
    """Replace the files of a folder that are links in the ZIP it was unpacked from; zipfile writes their text."""
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            if stat.S_ISLNK(entry.external_attr >> 16):
                place = folder / entry.filename
                place.unlink()
                place.symlink_to(archive.read(entry).decode())


if __name__ == "__main__":
    subprocess.Popen = WithLayers
    app.app = app_that_saves
    lambda_svc._list_functions = list_functions
    lambda_svc._write_code_blob = write_code_blob
    lambda_runtime.zipfile = types.SimpleNamespace(**{**vars(zipfile), "ZipFile": UnpackedOnce})
    for name in URL_OPERATIONS:
        setattr(lambda_svc, name, with_local_urls(getattr(lambda_svc, name)))
    app.main()
