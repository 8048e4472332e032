"""The part of CloudWatch's filter language that alarms/ uses: one JSON field equal to a text, or one quoted term.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html; anything else is an error.
"""

from __future__ import annotations

import json
import re

FIELD = re.compile(r'\{\s*\$\.(\w+)\s*=\s*"([^"*]*)"\s*\}')
TERM = re.compile(r'"([^"]+)"')


def matches(pattern: str, line: str) -> bool:
    if field := FIELD.fullmatch(pattern):
        try:
            event = json.loads(line)
        except ValueError:
            return False
        return isinstance(event, dict) and event.get(field[1]) == field[2]
    if term := TERM.fullmatch(pattern):
        return term[1] in line
    raise ValueError(f"{pattern!r}: this matcher does not know that pattern")
