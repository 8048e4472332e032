"""A finding of the doctor: one line."""

from __future__ import annotations

from typing import NamedTuple

from ops import terminal

STYLES = {"ok": terminal.GOOD, "warn": terminal.WARNING, "FAILED": terminal.BAD}


class Finding(NamedTuple):
    """One line of the doctor: the check's name, whether it passed, what it found, and the command that fixes it.

    warning: it passed, but somebody must act soon.
    """

    name: str
    passed: bool
    message: str
    fix: str = ""
    warning: bool = False


def passed(message: str, name: str = "") -> Finding:
    """Return a finding that passed; name: only if a check has several, otherwise `examine` fills it in."""
    return Finding(name, True, message)


def warned(message: str, fix: str, name: str = "") -> Finding:
    return Finding(name, True, message, fix, True)


def failed(message: str, fix: str, name: str = "") -> Finding:
    return Finding(name, False, message, fix)


def line(finding: Finding) -> str:
    kind = "FAILED" if not finding.passed else "warn" if finding.warning else "ok"
    fix = f"; fix: {finding.fix}" if finding.fix else ""
    message = finding.message.removesuffix(".") if fix else finding.message
    return f"{terminal.styled(f'{kind:<6}', STYLES[kind])} {finding.name:<12} {message}{fix}"
