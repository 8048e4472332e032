"""The two errors by which a step reports whether a retry can help, and the text that a message can contain."""

from __future__ import annotations

LONGEST_MESSAGE = 8000


def clean(text: str, codec: str = "utf-8") -> str:
    """Return a text that every store accepts: '?' for NUL and what codec cannot encode, at most LONGEST_MESSAGE long.

    Text of Genius can hold bytes that are not valid UTF-8; they arrive as lone surrogates.
    """
    if len(text) > LONGEST_MESSAGE:
        text = text[: LONGEST_MESSAGE - 1] + "…"
    return text.replace("\0", "?").encode(codec, "replace").decode(codec)


class _Reported(Exception):
    """An error whose message goes to journals, logs and tables."""

    def __init__(self, message: str):
        super().__init__(clean(message))

    # Restate shows an exception by its repr.
    __repr__ = Exception.__str__


class Refused(_Reported):
    """A retry cannot help; the message names the item and what to do next."""


class LoginRefused(Refused):
    """A database refused the login, or its password cannot be read; the same password must not be tried again."""

    kind = "refused"


class Unavailable(_Reported):
    """Something did not answer or is not ready; a later try may succeed."""
