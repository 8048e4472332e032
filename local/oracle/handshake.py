"""The messages before and during a login: protocol, data types, and the login's pairs of key and value."""

from __future__ import annotations

from typing import NamedTuple

from local.oracle.requests import Caps
from local.oracle.wire import AL32UTF8, Malformed, Reader, clr, u16, ub

PROTOCOL, TYPES, PARAMETERS = 1, 2, 8
_NATIONAL_CHARSET = 2000
_FIELD_VERSION = 7
_WIDE_TYPES = 27
_HAS_NATIONAL_CHARSET = 0x80
_UNIVERSAL, _ORACLE = 1, 10
# Type 27 defines how a column's scale is sent.
_SCALE_TYPE = 27
BANNER = b"Genius stand-in, not an Oracle database"
# Field version 12, at place 7, is that of 19.1: the last without tokens, fast login and marks at the end of a reply.
COMPILE_CAPS = bytes.fromhex(
    "06 01 01 01 2f 01 01 0c 01 01 01 01 01 01 01 7f ff 03 0b 03 03"
    "01 01 ff 01 ff ff 01 0a 01 01 ff 01 06 09 60 01 7f 04 00 00"
)
RUNTIME_CAPS = bytes((2, 0, 0, 0, 0, 0, 4))


class Types(NamedTuple):
    """The client's list of data types. entries: type and its offers (conversion, representation); wide: as u16."""

    caps: Caps
    wide: bool
    entries: list[tuple[int, list[tuple[int, int]]]]


def pairs(parts: list[bytes]) -> bytes:
    """Encode pairs of a login as one message."""
    return bytes((PARAMETERS,)) + ub(len(parts)) + b"".join(parts)


def parse_protocol(reader: Reader) -> None:
    """Parse the client's first message: versions and its name, neither of which matters here."""
    if reader.u8() != PROTOCOL:
        raise Malformed("expected a protocol message")
    while reader.u8():
        pass
    while reader.u8():
        pass


def protocol() -> bytes:
    """Return the answer. Its banner must differ from a client's own: OCI would switch to native integers."""
    charset = AL32UTF8.to_bytes(2, "little")
    charsets = charset + b"\x01\0\0" + u16(11) + bytes(9) + u16(_NATIONAL_CHARSET)
    return b"\x01\x06\0" + BANNER + b"\0" + charsets + clr(COMPILE_CAPS) + clr(RUNTIME_CAPS)


def parse_types(reader: Reader) -> Types:
    """Parse the client's capabilities and data types."""
    if reader.u8() != TYPES:
        raise Malformed("expected data types")
    reader.take(4)
    flags = reader.u8()
    theirs, _ = reader.clr() or b"", reader.clr()
    if len(theirs) <= _FIELD_VERSION:
        raise Malformed("a client without capabilities")
    if flags & _HAS_NATIONAL_CHARSET:
        reader.take(2)
    wide = len(theirs) > _WIDE_TYPES and bool(theirs[_WIDE_TYPES])
    read = reader.u16 if wide else reader.u8
    entries = []
    while kind := read():
        offers = []
        while conversion := read():
            offers.append((conversion, read()))
        entries.append((kind, offers))
    version = min(theirs[_FIELD_VERSION], COMPILE_CAPS[_FIELD_VERSION])
    scale = next((choose(offers) for kind, offers in entries if kind == _SCALE_TYPE), None)
    return Types(Caps(version, scale is None or scale[1] != _UNIVERSAL), wide, entries)


def choose(offers: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the first universal offer, else the first of Oracle's own, since later ones are for older servers."""
    for wanted in (_UNIVERSAL, _ORACLE):
        for offer in offers:
            if offer[1] == wanted:
                return offer
    return None


def types(wanted: Types) -> bytes:
    """Return the answer: each type with the representation that it will have."""

    def write(value: int) -> bytes:
        return u16(value) if wanted.wide else bytes((value,))

    parts = []
    for kind, offers in wanted.entries:
        chosen = choose(offers)
        parts += [write(kind), write(chosen[0]) + write(chosen[1]) if chosen else b"", write(0)]
    return bytes((TYPES,)) + b"".join(parts) + write(0)
