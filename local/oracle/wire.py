"""The building blocks of Oracle Net's messages: integers and bytes with their lengths. No sockets, no state.

`Reader` takes the bytes of one message apart and raises `Short` if they end too early. The functions below it
build bytes.
"""

from __future__ import annotations

NULL = b"\0"
LONGEST_SHORT = 252
LONG = 254
CHUNK = 32767
AL32UTF8 = 873


class Short(Exception):
    """The bytes end before the message does; the message has at least `needed` bytes."""

    def __init__(self, needed: int):
        super().__init__(needed)
        self.needed = needed


class Malformed(Exception):
    """Bytes that no client sends; the text describes the fault."""


class Reader:
    """Takes one message apart, front to back.

    memo: shared by all attempts at a message, so that a long text is read once, even if more attempts end as Short.
    """

    __slots__ = ("data", "memo", "pos")

    def __init__(self, data: bytes | bytearray, memo: dict[int, tuple[bytearray, int]] | None = None):
        self.data = data
        self.pos = 0
        self.memo = {} if memo is None else memo

    def take(self, count: int) -> bytes:
        """Read the next `count` bytes."""
        end = self.pos + count
        if end > len(self.data):
            raise Short(end)
        part = bytes(self.data[self.pos : end])
        self.pos = end
        return part

    def u8(self) -> int:
        try:
            value = self.data[self.pos]
        except IndexError:
            raise Short(self.pos + 1) from None
        self.pos += 1
        return value

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def ub(self) -> int:
        """Read an integer that brings its own length; the length's top bit is the sign."""
        head = self.u8()
        size = head & 0x7F
        if size > 8:
            raise Malformed(f"an integer of {size} bytes")
        value = int.from_bytes(self.take(size), "big") if size else 0
        return -value if head & 0x80 else value

    def clr(self) -> bytes | None:
        """Read bytes with their length, in chunks if they are long. FD 01 is a null of thick clients."""
        size = self.u8()
        if size == 0 or size == 255:
            return None
        if size == 253:
            self.u8()
            return None
        if size != LONG:
            return self.take(size)
        return self._chunks()

    def _chunks(self) -> bytes:
        start = self.pos
        whole, self.pos = self.memo.get(start, (bytearray(), start))
        while True:
            try:
                size = self.ub()
                if size < 0:
                    raise Malformed("a chunk of negative length")
                chunk = self.take(size)
            except Short:
                self.memo[start] = (whole, self.memo.get(start, (whole, start))[1])
                raise
            if not size:
                return bytes(whole)
            whole += chunk
            self.memo[start] = (whole, self.pos)

    def dalc(self) -> bytes:
        """Read bytes behind two lengths."""
        return (self.clr() or b"") if self.ub() else b""

    def skip(self, form: str) -> None:
        """Skip fields without a meaning here: one letter each, 1 for a u8 and n for a ub."""
        for field in form:
            self.u8() if field == "1" else self.ub()


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _ub(value: int) -> bytes:
    size = (abs(value).bit_length() + 7) // 8
    return bytes((size | 0x80 if value < 0 else size,)) + abs(value).to_bytes(size, "big")


_SMALL = [_ub(value) for value in range(256)]


def ub(value: int) -> bytes:
    """Encode an integer with its own length."""
    return _SMALL[value] if 0 <= value < 256 else _ub(value)


LENGTH = [bytes((size,)) for size in range(256)]


def clr(value: bytes | None) -> bytes:
    """Encode bytes with their length; empty is null."""
    if not value:
        return NULL
    if len(value) <= LONGEST_SHORT:
        return LENGTH[len(value)] + value
    chunks = [value[start : start + CHUNK] for start in range(0, len(value), CHUNK)]
    return b"\xfe" + b"".join(_ub(len(chunk)) + chunk for chunk in chunks) + b"\0"


def dalc(value: bytes) -> bytes:
    """Encode bytes behind two lengths."""
    return ub(len(value)) + clr(value) if value else NULL


def pair(key: str, value: str, flags: int = 0) -> bytes:
    """Encode one key and value of a login."""
    return dalc(key.encode()) + dalc(value.encode()) + ub(flags)
