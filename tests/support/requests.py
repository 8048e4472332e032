"""Generated requests to every handler: half of them valid but for one fault, the others random."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import date, timedelta
from urllib.parse import quote

HANDLERS = {
    "DailyClosing": ("run", "getStatus"),
    "ClosingPeriod": ("close", "status", "inspect", "stop_job", "resolve"),
    "DailyClosingScheduler": ("start", "stop", "trigger", "status", "hold", "release"),
}
BODYLESS = {"getStatus", "status", "stop_job", "start", "stop"}
PER_HANDLER = 46
FUTURE = date.today() + timedelta(days=400)

BAD_DATES = ["2024-02-30", "2024-13-01", "20240229", "2024-2-1", " 2024-02-01", "2024-02-01\n", "٢٠٢٤-٠٢-٠١", "null"]
BAD_DATES += ["2024-02-01' OR '1'='1", "2024-W05-4", "0000-00-00", "1024-02-01", "x" * 300, "2024-02-01;--", "%"]
BAD_PERIODS = ["2024-13", "2024-00", "202402", "24-02", "2024-02-01", "2024-02%' OR '1'='1", "2024-02\n", "٢٠٢٤-٠٢"]
BAD_PERIODS += ["1024-02", "2024-02';DROP TABLE closing_runs;--", "p" * 300, "2024_02", " 2024-02", "2024-2", "%"]
BAD_MAINS = ["Main", "main ", "main2", "nightly", "MAIN", "maın", "m" * 300, "main' OR '1'='1", "%", "main\n", "null"]
VALUES = [None, 0, -1, 1.5, 10**30, True, "", "x" * 300, "' OR '1'='1", "\u0000", "\ud800", [], {}, ["x"], {"a": 1}]
WILD = [b"", b"null", b"{}", b"[]", b"0", b"true", b'""', b"not json", b"{", b"\xff\xfe{}", b"NaN", b'{"date": NaN}']
WILD += [b"[" * 3000, b'{"a":' * 600, b"1" * 4000, b'{"date": "' + b"9" * 9000 + b'"}', b'{"a": 1, "a": 2}', b"\x00"]
WILD += [b'{"protocol": "2.0"}', b'{"protocol": 1}', b"<xml/>", b"date=2024-02-01", b'{"date": "2024-02-01"', b"-"]
WILD += [b"\xef\xbb\xbf{}"]


@dataclass
class Generated:
    """One request. sends: by /send; valid: a control that must succeed."""

    service: str
    key: str
    handler: str
    body: bytes = b""
    content_type: str = "application/json"
    sends: bool = False
    valid: bool = False
    answer: dict = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/{self.service}/{quote(self.key, safe='')}/{self.handler}{'/send' if self.sends else ''}"


def generate(seed: int) -> list[Generated]:
    """Yield invalid requests alone, PER_HANDLER for each handler, in a mixed order that the seed decides."""
    chance = random.Random(seed)
    days = (date(2020, 1, 1) + timedelta(days=one) for one in range(2000))
    found = []
    for service, handlers in HANDLERS.items():
        for handler in handlers:
            for number in range(PER_HANDLER):
                one = (near if number % 2 else wild)(chance, service, handler, f"{next(days)}")
                one.sends = number % 4 > 1
                found.append(one)
    chance.shuffle(found)
    return found


def valid(service: str, handler: str, day: str) -> Generated:
    """Return a request that is accepted, for a day that no other one names."""
    key = {"DailyClosing": day, "ClosingPeriod": day[:7], "DailyClosingScheduler": "main"}[service]
    bodies = {
        "run": {
            "date": day,
            "userId": "adm",
            "fromStep": None,
            "skipGeniusClosing": True,
            "skipSyncTrialBalance": True,
            "skipFinancialMetrics": True,
        },
        "close": {"date": day},
        "inspect": {"date": day},
        "resolve": {"job": "GNS_X", "as": "failed", "who": "siti"},
        "hold": {"who": "siti", "reason": "Oracle patch", "until": None},
        "release": {"who": "siti"},
    }
    body = json.dumps(bodies[handler]).encode() if handler in bodies else b""
    return Generated(service, key, handler, body, "application/json" if body else "", valid=True)


def near(chance: random.Random, service: str, handler: str, day: str) -> Generated:
    """Return a valid request with one fault: in the key, in one field, in the body's form."""
    one = valid(service, handler, day)
    one.valid = False
    fields = json.loads(one.body or b"{}")
    if (not fields and handler != "trigger") or chance.random() < 0.3:
        keys = {"DailyClosing": BAD_DATES, "ClosingPeriod": BAD_PERIODS, "DailyClosingScheduler": BAD_MAINS}
        one.key = chance.choice(keys[service])
        return one
    if handler == "trigger":
        fields = {"generation": chance.choice([value for value in VALUES if not is_generation(value)])}
    elif chance.random() < 0.4:
        fields |= chance.choice(
            [{"skipGenius": True}, {"protocol": "2.0"}, {"protocol": 1}, {"x": 1}, {"userId ": "a"}, {"date ": day}]
        )
    else:
        name = chance.choice(list(fields))
        fields[name] = chance.choice(fault_of(name))
        if chance.random() < 0.2:
            del fields[name]
            fields.setdefault("x", 1)
    one.body, one.content_type = json.dumps(fields).encode(), "application/json"
    return one


def is_generation(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def fault_of(name: str) -> list:
    """Return values that a field cannot have."""
    if name == "date":
        return [*VALUES, *BAD_DATES, f"{FUTURE}"]
    if name.startswith("skip"):
        return [value for value in VALUES if not isinstance(value, bool)]
    if name == "until":
        return [value for value in VALUES if value is not None]
    if name == "reason":
        return [value for value in VALUES if value != "' OR '1'='1"]
    if name in ("job", "who"):
        return [value for value in VALUES if value not in ("x" * 300, "' OR '1'='1")] + ["x" * 129]
    return [value for value in VALUES if value is not None] if name == "fromStep" else VALUES


def wild(chance: random.Random, service: str, handler: str, day: str) -> Generated:
    """Return a request with a random body or key, never a valid one."""
    one = valid(service, handler, day)
    one.valid = False
    one.content_type = chance.choice(["application/json"] * 4 + ["text/plain", "application/octet-stream", ""])
    one.body = chance.choice([*WILD, chance.randbytes(chance.randrange(1, 200))])
    if handler == "trigger" and one.body in (b"", b"null", b"{}"):
        one.body = b"[0]"
    if handler in BODYLESS and not one.body:
        one.key = "'\"; --"
    return one
