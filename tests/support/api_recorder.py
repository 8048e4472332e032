"""Which operations of AWS the commands really call: the CLI reports each one by UDP (client-side monitoring)."""

from __future__ import annotations

import json
import re
import socket
import threading
from typing import NamedTuple

# Operations that change nothing. All others count as changes, also those that are new to the project.
QUERIES = re.compile(r"(Get|List|Describe|Head|Filter)[A-Z]\w*")
# Operation in the CLI -> its IAM action, if that is not service:Operation.
ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "lambda:GetLayerVersionByArn": "lambda:GetLayerVersion",
    "s3:HeadObject": "s3:GetObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
}
SERVICES = {"CloudWatch Logs": "logs", "EventBridge": "events"}
SETTLED = b"settled"


class Call(NamedTuple):
    """One operation, and the task that called it: its name, after `--dry ` in a dry run; "" outside of a task."""

    task: str
    action: str

    @property
    def is_query(self) -> bool:
        return bool(QUERIES.fullmatch(self.action.partition(":")[2]))


class Recorder:
    """Receives the datagrams of all CLIs that run with `environment`."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.recorded: list[Call] = []
        self.settled = threading.Event()
        host, port = self.socket.getsockname()
        self.environment = {"AWS_CSM_ENABLED": "true", "AWS_CSM_HOST": host, "AWS_CSM_PORT": str(port)}
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while True:
            datagram = self.socket.recv(1 << 16)
            if datagram == SETTLED:
                self.settled.set()
                continue
            event = json.loads(datagram)
            if event["Type"] == "ApiCall":
                self.recorded.append(Call(event["ClientId"], action_of(event["Service"], event["Api"])))

    def calls(self) -> list[Call]:
        """Return all calls so far, those of commands that have just ended included: loopback keeps the order."""
        self.settled.clear()
        self.socket.sendto(SETTLED, self.socket.getsockname())
        assert self.settled.wait(10), "the recorder has stopped"
        return list(self.recorded)


def action_of(service: str, operation: str) -> str:
    """Return an operation as IAM names it; the CLI keeps the version of an API in some names, such as …20150331v2."""
    name = re.sub(r"\d{8}(v\d+)?$", "", operation)
    given = f"{SERVICES.get(service, service.lower())}:{name}"
    return ACTIONS.get(given, given)


def task_of(words: tuple[str, ...]) -> str:
    """Return the task of a command line of `inv`, for the client id of its calls."""
    named = [word for word in words if not word.startswith("-")]
    verb = f" {named[1]}" if named[0] in ("keep-warm", "schedule") else ""
    return f"{'--dry ' if '--dry' in words else ''}{named[0]}{verb}"
