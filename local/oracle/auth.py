"""Passwords, checked as Oracle checks them: neither side sends one in plain text."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from local.oracle.wire import pair

VERIFIERS = {"12c": 0x4815, "11g": 0x1B25}
_KEY_ROUNDS, _SESSION_ROUNDS = 4096, 3
_BLOCK = 16


def encrypt(key: bytes, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(_BLOCK))).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def decrypt(key: bytes, data: bytes) -> bytes:
    """Decrypt some bytes. Raises ValueError for what is not whole blocks."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(_BLOCK))).decryptor()
    return decryptor.update(data) + decryptor.finalize()


def _text(data: bytes) -> str:
    return data.hex().upper()


@lru_cache(256)
def _hash(kind: str, password: str, salt: bytes) -> bytes:
    """Return the verifier that a database keeps in place of a password; the key of the first exchange."""
    if kind == "11g":
        return hashlib.sha1(password.encode() + salt).digest() + bytes(4)
    stretched = hashlib.pbkdf2_hmac("sha512", password.encode(), salt + b"AUTH_PBKDF2_SPEEDY_KEY", _KEY_ROUNDS, 64)
    return hashlib.sha512(stretched + salt).digest()[:32]


class Login:
    """One attempt to log in: `challenge`, then `check`, then `proof`.

    An unknown user gets a challenge too, for an unknown password, so that both fail in the same way.
    """

    def __init__(self, user: str, password: str | None, kind: str, salt_key: bytes):
        self.kind = kind
        self.password = secrets.token_hex(16) if password is None else password
        digest = hmac.new(salt_key, f"{kind}:{user}".encode(), "sha256").digest()
        self.salt = digest[: 10 if kind == "11g" else 16]
        self.ours = secrets.token_bytes(48 if kind == "11g" else 32)
        self.session_salt = secrets.token_bytes(16)
        self.session_key = b""

    def challenge(self) -> list[bytes]:
        """Return the pairs that answer the first half of a login."""
        key = _hash(self.kind, self.password, self.salt)
        return [
            pair("AUTH_SESSKEY", _text(encrypt(key, self.ours))),
            pair("AUTH_VFR_DATA", _text(self.salt), VERIFIERS[self.kind]),
            pair("AUTH_PBKDF2_CSK_SALT", _text(self.session_salt)),
            pair("AUTH_PBKDF2_VGEN_COUNT", str(_KEY_ROUNDS)),
            pair("AUTH_PBKDF2_SDER_COUNT", str(_SESSION_ROUNDS)),
            pair("AUTH_GLOBALLY_UNIQUE_DBID\0", _text(bytes(16))),
        ]

    def check(self, answer: dict[str, str]) -> bool:
        """Return whether the second half of a login proves the password."""
        key = _hash(self.kind, self.password, self.salt)
        try:
            theirs = decrypt(key, bytes.fromhex(answer["AUTH_SESSKEY"]))
            self.session_key = self._combine(theirs)
            sent = decrypt(self.session_key, bytes.fromhex(answer["AUTH_PASSWORD"]))
        except (KeyError, ValueError):
            return False
        sent = sent[_BLOCK : len(sent) - sent[-1]] if sent else b""
        return hmac.compare_digest(sent, self.password.encode())

    def _combine(self, theirs: bytes) -> bytes:
        """Return the session key, made of both sides' halves. Raises ValueError for a half of the wrong size."""
        if len(theirs) < len(self.ours):
            raise ValueError("half a session key is missing")
        if self.kind == "11g":
            mixed = bytes(a ^ b for a, b in zip(self.ours[16:40], theirs[16:40], strict=True))
            return (hashlib.md5(mixed[:16]).digest() + hashlib.md5(mixed[16:]).digest())[:24]
        halves = _text(theirs[:32] + self.ours).encode()
        return hashlib.pbkdf2_hmac("sha512", halves, self.session_salt, _SESSION_ROUNDS, 32)

    def proof(self) -> bytes:
        """Return the pair by which the client knows that this side knew the password too."""
        words = secrets.token_bytes(_BLOCK) + b"SERVER_TO_CLIENT" + bytes((_BLOCK,)) * _BLOCK
        return pair("AUTH_SVR_RESPONSE", _text(encrypt(self.session_key, words)))
