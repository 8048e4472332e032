"""The function's log: one JSON object a line on stderr, never a secret and never a row of the ledger."""

from __future__ import annotations

import json
import sys


def write(event: str, **fields) -> None:
    """Write one event; a value without a JSON form is written as text."""
    print(json.dumps({"event": event, **fields}, default=str, ensure_ascii=False), file=sys.stderr, flush=True)
