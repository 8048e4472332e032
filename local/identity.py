"""restate-server's request identity: the key with which it signs each call, and that a service verifies.

https://docs.restate.dev/services/security
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .state import State, write_private

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def key_file(state: State) -> Path:
    """Return the path of the private key."""
    return state.path / "restate" / "identity.pem"


def public_key(state: State) -> str:
    """Return the public key as Restate and its SDKs write it, publickeyv1_…; make the private key if it is missing."""
    file = key_file(state)
    if not file.exists():
        state.make("restate")
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(file, pem.decode())
    private = serialization.load_pem_private_key(file.read_bytes(), None)
    return f"publickeyv1_{base58(private.public_key().public_bytes_raw())}"


def base58(content: bytes) -> str:
    """Encode bytes as Bitcoin's base58."""
    number, text = int.from_bytes(content, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(content) - len(content.lstrip(b"\0"))) + text
