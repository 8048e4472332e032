"""What a check of inv doctor says: one line, well or not, with the command that mends it."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One line: what was looked at, whether it is well, what was seen and the command that mends it."""

    name: str
    ok: bool
    said: str
    mend: str = ""


def well(said: str, name: str = "") -> Finding:
    return Finding(name, True, said)


def ill(said: str, mend: str, name: str = "") -> Finding:
    return Finding(name, False, said, mend)


def change(env: str, key: str, value: str) -> str:
    """The command that changes one line of an environment's file."""
    return f"sed -i 's|^{key}=.*|{key}={value}|' env/{env}.env"
