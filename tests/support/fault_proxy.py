"""A server on this machine between the commands and AWS or Restate: it records, and answers itself what is injected.

The emulator cannot refuse, throttle or be busy as AWS is. The answers are those that AWS documents.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import threading
from typing import NamedTuple

AS_DEPLOY = "User: arn:aws:sts::000000000000:assumed-role/finance-closing-deploy/ci is not authorized to perform:"


class Answer(NamedTuple):
    """status, x-amzn-ErrorType, body."""

    status: int
    error: str
    body: bytes


def refused(status: int, error: str, message: str) -> Answer:
    """Return an error document of AWS Lambda."""
    return Answer(status, error, json.dumps({"Type": "User", "message": message, "Message": message}).encode())


def refused_by_iam(status: int, error: str, message: str) -> Answer:
    """Return an error document of IAM, in XML."""
    document = f"<Error><Type>Sender</Type><Code>{error}</Code><Message>{message}</Message></Error>"
    return Answer(status, error, f"<ErrorResponse>{document}<RequestId>1</RequestId></ErrorResponse>".encode())


def refused_by_restate(status: int, message: str) -> Answer:
    return Answer(status, "", json.dumps({"message": message}).encode())


PASS_ROLE = refused(
    403,
    "AccessDeniedException",
    f"{AS_DEPLOY} iam:PassRole on resource: arn:aws:iam::000000000000:role/finance-closing-lambda-role because no"
    " identity-based policy allows the iam:PassRole action",
)
ROLE_NOT_YET = refused(
    400, "InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda."
)
UPDATING = refused(
    409,
    "ResourceConflictException",
    "The operation cannot be performed at this time. An update is in progress for resource: arn:aws:lambda:f",
)
FAILED = Answer(200, "", b'{"errorMessage": "no module named genius", "errorType": "Runtime.ImportModuleError"}')
INCOMPATIBLE = refused_by_restate(409, "[META0006] the service type of DailyClosing has changed")


class FaultProxy:
    """url: the address to use instead of `target`; without a target the answer is 502 unless another is injected."""

    def __init__(self, target: str = ""):
        self.target = target.removeprefix("http://")
        # "METHOD path body" of each request.
        self.requests: list[str] = []
        self.injected: list[tuple[str, Answer]] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def inject(self, pattern: str, *answers: Answer) -> None:
        """Give these answers, one each, to requests whose "METHOD path body" begins with a pattern."""
        self.injected += [(pattern, answer) for answer in answers]

    def answer(self, request: str) -> Answer | None:
        for one in self.injected:
            if re.match(one[0], request):
                self.injected.remove(one)
                return one[1]
        return None

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def handler(proxy: FaultProxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def serve(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = f"{self.command} {self.path} {body[:2000].decode(errors='replace')}"
            proxy.requests.append(request)
            injected = proxy.answer(request)
            if injected:
                named = {"x-amzn-ErrorType": injected.error, "content-type": "application/json"}
                failed = {"x-amz-function-error": "Unhandled"} if injected is FAILED else {}
                self.reply(injected.status, {**named, **failed}, injected.body)
            elif proxy.target:
                self.pass_on(body)
            else:
                self.reply(502, {}, b"")

        def pass_on(self, body: bytes):
            connection = http.client.HTTPConnection(proxy.target, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in SKIPPED}
            self.reply(answer.status, kept, answer.read())
            connection.close()

        def reply(self, status: int, headers: dict[str, str], body: bytes):
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = serve

    return Handler


SKIPPED = ("transfer-encoding", "content-length", "connection")
