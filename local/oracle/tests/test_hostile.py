"""Hostile and broken peers: each gets an error, and all others go on."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import oracledb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from net_helpers import ConnectableServer, FakeDatabase, one

from local.oracle import packets, requests
from local.oracle.connection import Limits
from local.oracle.requests import Caps, Requests
from local.oracle.wire import Malformed, clr, pair, ub

pytestmark = pytest.mark.usefixtures("exact_values")
WAIT = 10
over_a_socket = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def call(running: ConnectableServer) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", running.port), WAIT)
    peer.settimeout(WAIT)
    return peer


def ended(peer: socket.socket) -> bool:
    """Return whether the server closes the connection, after any answer."""
    with contextlib.suppress(ConnectionError):
        while peer.recv(65536):
            pass
    return True


def connect_packet(service: str = "GENIUS", **changes: int) -> bytes:
    text = f"(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME={service})))".encode()
    fields = {"version": 319, "sdu": 8192, "length": len(text), "offset": 74, **changes}
    body = struct.pack(
        ">HHHHHHHHHHI", fields["version"], 300, 0, 8192, 8192, 0, 0, 1, fields["length"], fields["offset"], 0
    )
    body += bytes(26) + struct.pack(">IIII", fields["sdu"], fields["sdu"], 0, 0) + text
    return struct.pack(">HHBBH", len(body) + 8, 0, 1, 0, 0) + body


def data_packet(payload: bytes, size: int | None = None, kind: int = 6) -> bytes:
    body = b"\0\0" + payload
    return struct.pack(">IBBH", len(body) + 8 if size is None else size, kind, 0, 0) + body


def read_packet(peer: socket.socket, wide: bool = True) -> tuple[int, bytes]:
    header = peer.recv(8, socket.MSG_WAITALL)
    size = int.from_bytes(header[: 4 if wide else 2], "big")
    return header[4], peer.recv(size - 8, socket.MSG_WAITALL)


def accepted(running: ConnectableServer) -> socket.socket:
    """Return a peer that has got as far as ACCEPT."""
    peer = call(running)
    peer.sendall(connect_packet())
    assert read_packet(peer, wide=False)[0] == packets.ACCEPT
    return peer


@pytest.fixture
def bystander(running: ConnectableServer) -> Iterator[None]:
    """Check that another client's session does not notice."""
    with running.connect() as connection:
        yield
        assert one(connection, 1) == (1,)
    running.connect().close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: genius\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        bytes(64),
        b"\xff" * 64,
        b"\x00\x07\x00\x00\x01\x00\x00\x00",
        b"\x00\x08\x00\x00\x01\x00\x00\x00",
        b"\x00\x0a\x00\x00\x06\x00\x00\x00\x00\x00",
        connect_packet(length=60000)[:70],
        connect_packet(version=310),
        connect_packet(offset=2, length=9),
        connect_packet("OTHER"),
    ],
)
def test_garbage_in_place_of_a_connect(running: ConnectableServer, bystander: None, garbage: bytes):
    with call(running) as peer:
        peer.sendall(garbage)
        peer.shutdown(socket.SHUT_WR)
        assert ended(peer)


@pytest.mark.parametrize(
    "packet",
    [
        struct.pack(">IBBH", 0xFFFFFFFF, 6, 0, 0),
        struct.pack(">IBBH", 70_000, 6, 0, 0),
        struct.pack(">IBBH", 7, 6, 0, 0),
        data_packet(b"", kind=12),
        data_packet(b"", kind=99),
        data_packet(b"\x09"),
        data_packet(b"\x01\x06\x05\x00x\0") + data_packet(b"\x02" + b"\0" * 5 + b"\x00\x00"),
        data_packet(b"\x01\x06\x00x\0") + data_packet(b"\x03\x5e\x01"),
    ],
)
def test_garbage_in_the_negotiation(running: ConnectableServer, bystander: None, packet: bytes):
    with accepted(running) as peer:
        peer.sendall(packet)
        assert ended(peer)


def test_a_message_without_end_before_login(running: ConnectableServer, bystander: None):
    with accepted(running) as peer:
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                peer.sendall(data_packet(b"\x01" * 1000))
        assert ended(peer)


def negotiated(running: ConnectableServer) -> socket.socket:
    """Return a peer that has got as far as the login."""
    peer = accepted(running)
    peer.sendall(data_packet(b"\x01\x06\x00driver\0"))
    assert read_packet(peer)[0] == packets.DATA
    caps = bytearray(41)
    caps[7] = 12
    peer.sendall(data_packet(b"\x02" + bytes(5) + clr(bytes(caps)) + clr(bytes(7)) + b"\0"))
    assert read_packet(peer) == (packets.DATA, b"\0\0\x02\0")
    return peer


def login_half(function: int, user: bytes, *pairs: bytes) -> bytes:
    head = bytes((3, function, 1, 1)) + ub(len(user)) + ub(0) + b"\1" + ub(len(pairs)) + b"\1\1"
    return data_packet(head + clr(user) + b"".join(pairs))


@pytest.mark.parametrize(
    "halves",
    [
        [login_half(requests.AUTH_TWO, b"ADM")],
        [data_packet(bytes((3, requests.EXECUTE, 1)) + bytes(80))],
        [data_packet(bytes((3, 200, 1)))],
        [login_half(requests.AUTH_ONE, b"ADM"), login_half(requests.AUTH_TWO, b"ADM")],
        [login_half(requests.AUTH_ONE, b"ADM"), login_half(requests.AUTH_TWO, b"ADM", pair("AUTH_SESSKEY", "zz"))],
        [
            login_half(requests.AUTH_ONE, b"ADM"),
            login_half(requests.AUTH_TWO, b"ADM", pair("AUTH_SESSKEY", "00" * 32), pair("AUTH_PASSWORD", "00" * 32)),
        ],
        [login_half(requests.AUTH_ONE, b"\xff\xfe"), login_half(requests.AUTH_TWO, b"")],
    ],
)
def test_a_login_that_is_none(running: ConnectableServer, bystander: None, halves: list[bytes]):
    with negotiated(running) as peer:
        for half in halves:
            peer.sendall(half)
        assert ended(peer)
    assert "nobody" not in running.database.closed


@over_a_socket
@given(st.binary(max_size=200), st.sampled_from([call, accepted, negotiated]), st.booleans())
def test_any_bytes_at_any_time(running: ConnectableServer, noise: bytes, until: object, framed: bool):
    with until(running) as peer:
        peer.sendall(data_packet(noise) if framed else noise)
        peer.shutdown(socket.SHUT_WR)
        assert ended(peer)


def test_a_peer_that_never_logs_in(database: FakeDatabase, capfd):
    running = ConnectableServer(database, limits=Limits(login_seconds=0.3))
    peers = [call(running), accepted(running), negotiated(running)]
    assert all(ended(peer) for peer in peers)
    running.connect().close()
    running.stop()
    assert capfd.readouterr().err.count("no login within 0.3 s") == 3


def test_a_thousand_silent_peers(running: ConnectableServer, bystander: None):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(1000):
                stack.enter_context(call(running))
            with running.connect() as connection:
                assert one(connection, 1) == (1,)
            assert len(running.server._strangers) <= 251
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Tap:
    """Passes bytes between the driver and the server, and can send in the driver's place once it has logged in."""

    def __init__(self, running: ConnectableServer):
        self.server = call(running)
        self.listening = threading.Event()
        self.listening.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.threads = [threading.Thread(target=self._run, daemon=True)]
        self.threads[0].start()
        port = self.listener.getsockname()[1]
        self.connection = running.connect(dsn=f"127.0.0.1:{port}/GENIUS")

    def _run(self) -> None:
        self.client, _ = self.listener.accept()
        back = threading.Thread(target=self._copy, args=(self.server, self.client), daemon=True)
        back.start()
        self._copy(self.client, self.server)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self.listening.wait(WAIT) and (part := source.recv(65536)):
                target.sendall(part)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def send(self, data: bytes) -> None:
        self.server.sendall(data)

    def dropped(self) -> bool:
        """Return whether the server ends the session: the driver's next call fails."""
        with pytest.raises(oracledb.Error):
            for _ in range(3):
                self.connection.ping()
        return True

    def close(self) -> None:
        for part in (self.server, self.client, self.listener):
            with contextlib.suppress(OSError):
                part.shutdown(socket.SHUT_RDWR)
            part.close()


@pytest.fixture
def tap(running: ConnectableServer) -> Iterator[Tap]:
    made = Tap(running)
    yield made
    made.close()


EXECUTE = bytes((3, requests.EXECUTE, 1))


@pytest.mark.parametrize(
    "packet",
    [
        b"\xff" * 100,
        struct.pack(">IBBH", 0x7FFFFFFF, 6, 0, 0),
        data_packet(b"\x63"),
        data_packet(b"", kind=1),
        data_packet(EXECUTE + b"\x09" * 40),
        data_packet(
            EXECUTE
            + ub(0x29)
            + ub(0)
            + b"\1"
            + ub(1)
            + b"\1"
            + ub(13)
            + b"\0\0"
            + ub(0) * 2
            + ub(0)
            + b"\1"
            + ub(2**40)
            + bytes(60)
        ),
        data_packet(bytes((17, requests.CLOSE_CURSORS, 1, 1, 0x81, 5)) + bytes((3, 99, 1))),
    ],
)
def test_garbage_in_a_session(tap: Tap, bystander: None, packet: bytes):
    tap.send(packet)
    with contextlib.suppress(OSError):
        tap.server.shutdown(socket.SHUT_WR)
    assert tap.dropped()


def test_a_session_whose_message_never_ends(tap: Tap, running: ConnectableServer, bystander: None):
    size = running.server.limits.message_bytes
    endless = EXECUTE + bytes((1, 0x21, 0, 1)) + ub(2**31) + b"\1" + ub(13) + b"\0\0" + ub(0) * 3 + b"\0"
    endless += ub(0) + bytes(6) + ub(0) + bytes(11) + bytes(7) + b"\xfe"
    part = ub(8000) + b"x" * 8000
    with contextlib.suppress(OSError):
        tap.send(data_packet(endless))
        for _ in range(0, 2 * size, 8000):
            tap.send(data_packet(part))
    assert tap.dropped()


def test_a_session_that_breaks_and_breaks(tap: Tap, bystander: None):
    rng = random.Random(1)
    for _ in range(500):
        tap.send(data_packet(b"", kind=12)[:8] + bytes((1, 0)))
        tap.send(struct.pack(">IBBH", 11, 12, 0, 0) + bytes((1, 0, rng.choice((1, 2, 3)))))
    tap.server.shutdown(socket.SHUT_WR)
    assert tap.dropped()


def test_a_peer_that_never_reads(running: ConnectableServer, tap: Tap, bystander: None):
    """Its reply waits, and needs the memory of one part only. When the peer goes away, its call and its session end."""
    cursor = tap.connection.cursor()
    cursor.arraysize = cursor.prefetchrows = 1_000_000
    tap.listening.clear()
    raised = []

    def fetch() -> None:
        try:
            cursor.execute("select 1000000 rows from x")
        except oracledb.Error as error:
            raised.append(error)

    stuck = threading.Thread(target=fetch)
    stuck.start()
    with running.connect() as other:
        assert len(other.cursor().execute("select 3000 rows from x").fetchall()) == 3000
    tap.close()
    tap.listening.set()
    stuck.join(WAIT)
    assert raised


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_are_a_request_or_malformed(noise: bytes, cut: int):
    parser = Requests(Caps(12, True), lambda _: None, lambda _: None)
    for part in (bytes((3, random.Random(cut).choice((94, 4, 5, 115, 118)), 1)) + noise[:cut], noise[cut:]):
        parser.feed(part)
        try:
            while parser.poll():
                pass
        except (Malformed, requests.OracleError):
            parser.clear()


def test_a_message_in_many_parts_is_parsed_once(running: ConnectableServer):
    """A row is dropped from the buffer once it is understood: a large array costs its size, not its square."""
    with running.connect(sdu=512) as connection:
        rows = [(n, "x" * 50) for n in range(20_000)]
        connection.cursor().executemany("insert into t values (:1, :2)", rows)
        connection.commit()
    assert running.database.committed == rows
