"""The cloud on this machine: restate-server, PostgreSQL, AWS Lambda (ministack) and a Genius stand-in.

    import cloud
    cloud.up()
    cloud.kill("genius"); cloud.start("genius")
    cloud.status()["genius"]["up"]
    cloud.down()

Each function works on the state folder of the moment (FINANCE_CLOSING_STATE, or .local); Cloud(path) on a given one.
"""

from __future__ import annotations

from .cloud import Cloud
from .errors import LocalError
from .parts import NAMES

__all__ = ["NAMES", "Cloud", "LocalError", "down", "kill", "reset", "settings", "start", "status", "stop", "up"]


def up(procedure_seconds: float | None = None) -> None:
    Cloud().up(procedure_seconds)


def down() -> None:
    Cloud().down()


def reset() -> None:
    Cloud().reset()


def status() -> dict[str, dict]:
    return Cloud().status()


def settings() -> dict[str, str]:
    return Cloud().settings()


def kill(part: str) -> None:
    Cloud().kill(part)


def stop(part: str) -> None:
    Cloud().stop(part)


def start(part: str) -> None:
    Cloud().start(part)
