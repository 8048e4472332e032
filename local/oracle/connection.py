"""One client's connection: negotiation, login, calls, breaks and the faults injected for it.

The socket is read all the time, also while a call runs in its thread: that is how a client stops a call.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import NamedTuple, TypeVar

from local.oracle import handshake, packets, replies
from local.oracle.auth import Login
from local.oracle.calls import VERSION, Calls, cancelled, version_number
from local.oracle.faults import Faults
from local.oracle.model import OracleError
from local.oracle.packets import Packet
from local.oracle.requests import AUTH_ONE, AUTH_TWO, LOGOFF, Caps, Plain, Request, Requests
from local.oracle.wire import Malformed, Reader, Short, pair

Parsed = TypeVar("Parsed")
_BEFORE_ACCEPT = 0xFFFF
_SLACK = 64
# How long before the end of a password a login begins to warn.
GRACE_DAYS = 7


class Limits(NamedTuple):
    """The limits of one peer. login_seconds: from its first byte to the end of its login."""

    login_seconds: float = 10.0
    login_bytes: int = 64 * 1024
    message_bytes: int = 64 * 1024 * 1024


class Connection:
    """Serves one socket from its first packet to its end."""

    def __init__(
        self,
        database: object,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        workers: Executor,
        limits: Limits,
        verifier: str,
        salt_key: bytes,
    ):
        self.database = database
        self.reader = reader
        self.writer = writer
        self.workers = workers
        self.limits = limits
        self.verifier = verifier
        self.salt_key = salt_key
        self.faults: Faults = database.faults
        self.loop = asyncio.get_running_loop()
        self.sdu = packets.SMALLEST_SDU
        self.longest = _BEFORE_ACCEPT
        self.wide = False
        self.calls: Calls | None = None
        self.requests: Requests | None = None
        self.user = ""
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.inbox_bytes = 0
        self.breaks = 0
        self.broken = False
        # Whether the running call goes on to its end without its client.
        self.runs_on = False
        self.broke = asyncio.Event()
        self.cancel = threading.Event()

    async def serve(self, logged_in: Callable[[], None]) -> None:
        """Serve everything until the peer goes. Raises Malformed, TimeoutError or an OSError that ended it early."""
        if not await asyncio.wait_for(self._log_in(), self.limits.login_seconds):
            return
        logged_in()
        worker = asyncio.ensure_future(self._work())
        try:
            await self._pump()
        finally:
            if not self.runs_on:
                self.calls.gone.set()
            self.inbox.put_nowait(None)
            await asyncio.shield(worker)

    # Login

    async def _log_in(self) -> bool:
        """Do listener, negotiation and password; returns False if the peer was turned away."""
        if not await self._accept():
            return False
        caps = await self._negotiate()
        first = await self._half(caps, AUTH_ONE)
        if first is None:
            return False
        login = Login(first.user.upper(), self._password(first.user.upper()), self._verifier(), self.salt_key)
        challenge = await self._in_worker(login.challenge)
        self._send(handshake.pairs(challenge) + replies.end(caps, False))
        second = await self._half(caps, AUTH_TWO)
        if second is None:
            return False
        if second.user.upper() != first.user.upper() or not await self._in_worker(lambda: login.check(second.pairs)):
            print(f"refused   a login of {first.user.upper()!r:.40}", flush=True)
            self._send(replies.end(caps, False, OracleError(1017, "invalid username/password; logon denied")))
            await self.writer.drain()
            return False
        self.user = first.user.upper()
        session = await self._in_worker(lambda: self.database.session(self.user))
        self.calls = Calls(session, caps)
        self.requests = Requests(caps, self.calls.plan, self.calls.statement)
        final = [*self._facts(caps), login.proof()]
        days = self.database.faults.value("password_expires_days")
        soon = days is not None and float(days) <= GRACE_DAYS
        warning = replies.warning(28002, f"the password will expire within {days} days") if soon else b""
        self._send(handshake.pairs(final) + warning + replies.end(caps, False))
        return True

    async def _accept(self) -> bool:
        packet = await self._read()
        if packet.kind != packets.CONNECT:
            raise Malformed(f"packet {packet.kind}, expected CONNECT")
        call = packets.parse_connect(packet.body)
        if call.text_follows:
            text = (await self._data())[: call.text_follows]
            call = call._replace(text=text.decode("utf-8", "replace"))
        code = packets.refusal(call.text, self.database.service)
        if code is None and call.version < packets.OLDEST_VERSION:
            raise Malformed(f"a client of protocol version {call.version}; {packets.OLDEST_VERSION} is the oldest")
        self.writer.write(packets.refuse(code) if code else packets.accept(call))
        await self.writer.drain()
        self.sdu, self.wide = call.sdu, True
        self.longest = max(call.sdu, _BEFORE_ACCEPT) + _SLACK
        return code is None

    async def _negotiate(self) -> Caps:
        await self._message(handshake.parse_protocol)
        self._send(handshake.protocol())
        types = await self._message(handshake.parse_types)
        self._send(handshake.types(types))
        return types.caps

    async def _half(self, caps: Caps, function: int) -> object | None:
        """Read one half of a login; None if the client leaves instead."""
        requests = Requests(caps, lambda _: None, lambda _: None)
        while True:
            data = await self._data()
            if data is None:
                return None
            requests.feed(data)
            self._bound(requests.bytes, self.limits.login_bytes)
            try:
                request = requests.poll()
            except OracleError as error:
                raise Malformed(f"{error}, before login") from None
            if request is not None:
                break
        if getattr(request.head, "function", 0) != function:
            raise Malformed("a call before login")
        return request.head

    async def _message(self, parse: Callable[[Reader], Parsed]) -> Parsed:
        """Read one message of the negotiation, from as many packets as it takes."""
        data = b""
        while True:
            more = await self._data()
            if more is None:
                raise Malformed("the end, in the middle of the negotiation")
            data += more
            self._bound(len(data), self.limits.login_bytes)
            with suppress(Short):
                return parse(Reader(data))

    async def _data(self) -> bytes | None:
        """Read the next DATA packet's payload before login; None for the end-of-file packet."""
        packet = await self._read()
        if packet.kind != packets.DATA or len(packet.body) < 2:
            raise Malformed(f"packet {packet.kind}, expected DATA")
        return None if packet.body[1] & packets.END_OF_FILE else packet.body[2:]

    def _verifier(self) -> str:
        return "11g" if (self.faults.value("verifier") or self.verifier).lower() == "11g" else "12c"

    def _password(self, user: str) -> str | None:
        """Return the password in force, which the fault `password` (USER:new) can change; None for an unknown user."""
        for line in (self.faults.value("password") or "").splitlines():
            name, _, changed = line.partition(":")
            if name.strip().upper() == user:
                return changed
        return self.database.users.get(user)

    def _facts(self, caps: Caps) -> list[bytes]:
        service = self.database.service
        number = str(getattr(self.calls.session, "number", 1))
        version = self.faults.value("database_version") or VERSION
        found = {
            "AUTH_VERSION_STRING": "- Stand-in",
            "AUTH_VERSION_SQL": "26",
            "AUTH_XACTION_TRAITS": "3",
            "AUTH_VERSION_NO": str(version_number(caps, version)),
            "AUTH_VERSION_STATUS": "0",
            "AUTH_SESSION_ID": number,
            "AUTH_SERIAL_NUM": number,
            "AUTH_INSTANCENAME": service.partition(".")[0],
            "AUTH_SC_SERVICE_NAME": service,
            "AUTH_SC_DBUNIQUE_NAME": service.partition(".")[0],
            "AUTH_MAX_OPEN_CURSORS": "300",
            "AUTH_MAX_IDEN_LENGTH": "30",
        }
        return [pair(key, value) for key, value in found.items()]

    # Reading, while calls run

    async def _pump(self) -> None:
        """Read packets until the peer goes: breaks are answered at once, calls are queued."""
        while True:
            packet = await self._read()
            if packet.kind == packets.MARKER:
                self._marker(packet)
            elif packet.kind == packets.DATA:
                if packet.body[1:2] and packet.body[1] & packets.END_OF_FILE:
                    return
                if self.broken:
                    continue
                self.inbox_bytes += len(packet.body)
                self._bound(self.inbox_bytes, self.limits.message_bytes)
                self.inbox.put_nowait(packet.body[2:])
            elif packet.kind != packets.CONTROL:
                raise Malformed(f"packet {packet.kind} in a session")

    def _marker(self, packet: Packet) -> None:
        """Handle a break: stop what runs, ignore everything until the client's reset, then report the stop.

        A call that was on its way when its client broke off counts as stopped too.
        """
        kind = packet.body[2] if len(packet.body) > 2 else packets.BREAK
        if kind != packets.RESET:
            self.breaks += 1
            self.broken = True
            self.stop()
            self._forget()
            self.writer.write(packets.marker(packets.BREAK))
            return
        self.broken = False
        self.writer.write(packets.marker(packets.RESET))
        self._send(replies.end(self.calls.caps, self.in_transaction(), cancelled()))

    def stop(self) -> None:
        """Stop the running call."""
        self.cancel.set()
        self.broke.set()

    def in_transaction(self) -> bool:
        return bool(self.calls.session.in_transaction)

    def _forget(self) -> None:
        while not self.inbox.empty():
            self.inbox.get_nowait()
        self.inbox_bytes = 0
        self.requests.clear()

    # Calls

    async def _work(self) -> None:
        """Answer calls one after another; an abandoned one must end before the next may begin."""
        try:
            while (data := await self.inbox.get()) is not None:
                self.inbox_bytes -= len(data) + 2
                self.requests.feed(data)
                self._bound(self.requests.bytes, self.limits.message_bytes)
                while request := self._next():
                    if isinstance(request.head, Plain) and request.head.function == LOGOFF:
                        self._send(replies.status(False))
                        continue
                    await self._call(request)
        except Exception as error:  # Without a report to the pump the peer would wait for ever.
            self.reader.set_exception(error)
        finally:
            await self._in_worker(self.calls.close)

    def _next(self) -> Request | None:
        try:
            return self.requests.poll()
        except OracleError as error:
            self.requests.clear()
            self._send(self.calls.failure(error))
            return None

    async def _call(self, request: Request) -> None:
        breaks, self.cancel, self.broke = self.breaks, threading.Event(), asyncio.Event()
        text = self.calls.text(request)
        await self._latency()
        if breaks != self.breaks:
            return
        if self._hit("cut_before", text):
            return self.cut()
        during, after = self._hit("cut_during", text), self._hit("cut_after", text)
        cancel, self.runs_on = self.cancel, during

        def run() -> bytes:
            if during:
                self.loop.call_soon_threadsafe(self.cut)
            return self.calls.answer(request, cancel, lambda part: self._part(part, breaks, after or during))

        reply = await self._in_worker(run)
        if after:
            self.cut()
        if breaks != self.breaks or self.writer.is_closing():
            return self.calls.undelivered()
        self._send(reply)
        await self.writer.drain()

    def _part(self, part: bytes, breaks: int, withheld: bool) -> bool:
        """Send a part of a reply, from the worker's thread; waits while the client is slow."""
        if withheld:
            return True

        async def send() -> bool:
            if breaks != self.breaks or self.writer.is_closing():
                return False
            self._send(part)
            await self.writer.drain()
            return True

        try:
            return asyncio.run_coroutine_threadsafe(send(), self.loop).result()
        except OSError:
            return False

    # Faults

    async def _latency(self) -> None:
        if wanted := self.faults.value("latency_ms"):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.broke.wait(), float(wanted) / 1000)

    def _hit(self, fault: str, text: str) -> bool:
        """Return whether a one-shot fault is meant for this call; it is consumed only then."""
        pattern = self.faults.value(fault)
        if pattern is None or not re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            return False
        return self.faults.take(fault) is not None

    def cut(self) -> None:
        """Drop the connection the hard way: the client sees a reset, not an end."""
        raw = self.writer.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    # Small change

    async def _read(self) -> Packet:
        return await packets.read(self.reader, self.longest, self.wide)

    def _send(self, payload: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(packets.data(payload, self.sdu))

    async def _in_worker(self, work: Callable[[], Parsed]) -> Parsed:
        return await self.loop.run_in_executor(self.workers, work)

    @staticmethod
    def _bound(size: int, most: int) -> None:
        if size > most:
            raise Malformed(f"a message of more than {most} bytes")
