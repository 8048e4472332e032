"""AWS CLI commands as text, every one with its region and profile on show."""

from __future__ import annotations

from shlex import quote as q


def aws(cfg: dict, words: str) -> str:
    profile = f" --profile {q(cfg['AWS_PROFILE'])}" if cfg["AWS_PROFILE"] else ""
    return f"aws --region {q(cfg['AWS_REGION'])}{profile} {words}"
