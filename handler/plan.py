"""Which steps of a date are done, and which a new run leaves out: plain values in, plain values out."""

from __future__ import annotations

from .request import STEPS


def done(rows: list[dict]) -> list[str]:
    """Return the steps that need not be done again, given a date's earlier runs in the order of their start.

    A step counts only on top of the one before it: a procedure that ran later makes ledger and metrics stale, and
    one that failed later leaves Genius' balances in doubt.
    """
    found: list[str] = []
    for row in rows:
        if row["genius"] == "succeeded":
            found = ["genius"]
        elif row["genius"] in ("failed", "unknown"):
            found = []
        for step, below in (("ledger", "genius"), ("metrics", "ledger")):
            if row[step] == "succeeded" and below in found:
                found = [*STEPS[: STEPS.index(step)], step]
    return found


def plan(rows: list[dict], resume: bool, first: str | None) -> list[str]:
    """Return the steps that a new run of a date leaves out; raises ValueError if it must not start.

    resume: go on at the first step that has not succeeded; first: go on there, whatever has succeeded.
    """
    already = done(rows)
    if already == list(STEPS) and first is None:
        raise ValueError("is closed already; to repeat it from a step on: `inv rerun --from genius|ledger|metrics`")
    if not resume:
        return []
    before = list(STEPS[: STEPS.index(first)]) if first else already
    missing = [step for step in before if step not in already]
    if missing:
        raise ValueError(
            f"has no {missing[0]} step that succeeded; rerun it without --from, or with --from {missing[0]}"
        )
    return before
