"""A transaction pooler as pgbouncer is with pool_mode=transaction: many clients on one connection of PostgreSQL.

A client has the server's connection from its first message until the server reports that no transaction is open.
Nothing is reset between two clients, as with pgbouncer's default server_reset_query_always=0.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from pg8000 import native

HOST = "127.0.0.1"
READY = b"Z\x00\x00\x00\x05I"


class Pooler:
    """The one connection and who has it."""

    def __init__(self, server: socket.socket, parameters: dict[str, str]):
        self.server, self.parameters = server, parameters
        self.turn = threading.Lock()
        self.owner: socket.socket | None = None
        self.transactions = 0

    def greet(self, client: socket.socket) -> None:
        """Take a start-up message and let the client in."""
        (length,) = struct.unpack("!i", exactly(client, 4))
        exactly(client, length - 4)
        statuses = b"".join(message(b"S", f"{name}\0{value}\0".encode()) for name, value in self.parameters.items())
        client.sendall(message(b"R", struct.pack("!i", 0)) + statuses + message(b"K", struct.pack("!ii", 1, 1)) + READY)

    def serve(self, client: socket.socket) -> None:
        """Send a client's messages to the server, waiting for its turn at the begin of each transaction."""
        with contextlib.suppress(OSError, EOFError), client:
            self.greet(client)
            while True:
                kind, body = read_message(client)
                if kind == b"X":
                    return
                if self.owner is not client:
                    self.turn.acquire()
                    self.owner = client
                    self.transactions += 1
                self.server.sendall(message(kind, body))

    def answer(self) -> None:
        """Send the server's messages to the client whose turn it is, and end its turn with its transaction."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, body = read_message(self.server)
                client = self.owner
                if client is None:
                    return  # A message of the server about its own end is not an answer.
                if kind == b"Z" and body == b"I":
                    self.owner = None
                    self.turn.release()
                client.sendall(message(kind, body))


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def read_message(source: socket.socket) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!ci", exactly(source, 5))
    return kind, exactly(source, length - 4)


def at_once(line: socket.socket) -> socket.socket:
    """Have each message sent at once: the system waits up to 40 ms to put several small ones together."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


@contextlib.contextmanager
def pooler(port: int, user: str, password: str, database: str) -> Iterator[tuple[int, Pooler]]:
    """Start a pooler in front of the server at a port; yields its own port."""
    line = at_once(socket.create_connection((HOST, port)))
    connection = native.Connection(user, sock=line, ssl_context=False, database=database, password=password)
    there = Pooler(line, connection.parameter_statuses)
    threading.Thread(target=there.answer, daemon=True).start()
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=accept, args=(listener, there), daemon=True).start()
        yield listener.getsockname()[1], there
        listener.shutdown(socket.SHUT_RDWR)
    line.close()


def accept(listener: socket.socket, there: Pooler) -> None:
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=there.serve, args=(at_once(listener.accept()[0]),), daemon=True).start()
