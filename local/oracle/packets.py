"""The packets of Oracle Net: read from a stream, built as bytes."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

from local.oracle.wire import Malformed, Reader, Short, u16, u32

CONNECT, ACCEPT, REFUSE, DATA, MARKER, CONTROL = 1, 2, 4, 6, 12, 14
BREAK, RESET = 1, 2
HEADER = 8
END_OF_FILE = 0x40
NEWEST_VERSION = 317
OLDEST_VERSION = 315
SMALLEST_SDU, LARGEST_SDU = 512, 2 * 1024 * 1024
NO_SUCH_SERVICE, NO_SUCH_SID, NO_SERVICE_GIVEN, NO_HANDLER = 12514, 12505, 12504, 12516
_ACCEPT_SIZE = 41
# Native services off: clients then skip their negotiation altogether.
_NSI = 4


class Packet(NamedTuple):
    """kind: one of the numbers above; body: what follows the header."""

    kind: int
    body: bytes


class Call(NamedTuple):
    """The request of a CONNECT packet. text_follows: the address comes in a DATA packet of its own."""

    version: int
    sdu: int
    text: str
    text_follows: int


async def read(stream: asyncio.StreamReader, longest: int, wide: bool) -> Packet:
    """Read the next packet. wide: its length has 32 bits, as after ACCEPT. Raises IncompleteReadError at the end."""
    header = await stream.readexactly(HEADER)
    size = int.from_bytes(header[: 4 if wide else 2], "big")
    if not HEADER <= size <= longest:
        raise Malformed(f"a packet of {size} bytes, the most is {longest}")
    return Packet(header[4], await stream.readexactly(size - HEADER))


def _packet(kind: int, body: bytes, wide: bool) -> bytes:
    size = HEADER + len(body)
    return (u32(size) if wide else u16(size) + b"\0\0") + bytes((kind, 0, 0, 0)) + body


def data(payload: bytes, sdu: int) -> bytes:
    """Encode one message as DATA packets, none longer than the session data unit."""
    room = sdu - HEADER - 2
    if len(payload) <= room:
        return _packet(DATA, b"\0\0" + payload, wide=True)
    starts = range(0, len(payload), room)
    return b"".join(_packet(DATA, b"\0\0" + payload[start : start + room], wide=True) for start in starts)


def marker(kind: int) -> bytes:
    return _packet(MARKER, bytes((1, 0, kind)), wide=True)


def accept(call: Call) -> bytes:
    """Agree to a session; its version decides the form of all later packets."""
    small = u16(min(call.sdu, 0xFFFF))
    body = u16(min(call.version, NEWEST_VERSION)) + u16(1) + small + small
    body += b"\x01\0" + u16(0) + u16(_ACCEPT_SIZE) + bytes((_NSI, _NSI)) + bytes(8)
    return _packet(ACCEPT, body + u32(call.sdu) * 2 + b"\0", wide=False)


def refuse(code: int) -> bytes:
    """Turn a client away as the listener does."""
    text = f"(DESCRIPTION=(TMP=)(VSNNUM=0)(ERR={code})(ERROR_STACK=(ERROR=(CODE={code})(EMFI=4))))".encode()
    return _packet(REFUSE, bytes((34, 0)) + u16(len(text)) + text, wide=False)


def parse_connect(body: bytes) -> Call:
    """Take a CONNECT packet's body apart."""
    reader = Reader(body)
    try:
        version = reader.u16()
        reader.take(4)
        sdu = reader.u16()
        reader.take(8)
        size, offset = reader.u16(), reader.u16()
        reader.take(30)
        sdu = reader.u32() or sdu
    except Short:
        raise Malformed("a CONNECT packet that ends early") from None
    text = body[offset - HEADER :][:size] if offset >= HEADER else b""
    sdu = min(max(sdu, SMALLEST_SDU), LARGEST_SDU)
    return Call(version, sdu, text.decode("utf-8", "replace"), 0 if len(text) == size else size)


def refusal(address: str, service: str) -> int | None:
    """Return why the listener turns an address away: the number after TNS-, or None if it is welcome.

    The only SID is the first part of the service's name.
    """
    wanted = re.search(r"\(\s*SERVICE_NAME\s*=\s*([^)\s]*)", address, re.IGNORECASE)
    if wanted:
        return None if wanted[1].upper() == service.upper() else NO_SUCH_SERVICE
    wanted = re.search(r"\(\s*SID\s*=\s*([^)\s]*)", address, re.IGNORECASE)
    if wanted:
        return None if wanted[1].upper() == service.partition(".")[0].upper() else NO_SUCH_SID
    return NO_SERVICE_GIVEN
