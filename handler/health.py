"""The answer of a ping: the version, how long it has been up, and whether and how fast the databases answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from . import genius, oracle, postgres, schema, secret, settings
from .errors import Refused, Unavailable

STARTED = time.time()
# After this time without an answer a database has failed; a deep ping takes only a little longer.
DEEP_SECONDS = 8.0
REACH_SECONDS = 5.0
# The time for PostgreSQL if the Oracle client has used all of it.
LEAST_SECONDS = 2.0


class ColdStart:
    """Whether this process has answered an event before."""

    events = 0
    # CPU seconds from the start of the process to the end of the imports.
    imports: float | None = None


def shallow() -> dict:
    return {
        "ok": True,
        "version": os.environ.get("AWS_LAMBDA_FUNCTION_VERSION"),
        "cold": ColdStart.events <= 1,
        "uptimeSeconds": round(time.time() - STARTED, 3),
        "importSeconds": ColdStart.imports,
    }


def reach(bound: float = REACH_SECONDS) -> dict:
    """Return the shallow answer with "postgres" and "oracle": whether each answers at its port, {"ok", "seconds"} or
    with "error". Nobody logs in, so that a ping from cron cannot lock an account whose password is wrong."""
    checks = {"postgres": lambda: postgres.reach(bound), "oracle": lambda: oracle.reach(bound)}
    found = measure(checks, bound)
    return shallow() | {"ok": all(one["ok"] for one in found.values()), **found}


def deep(bound: float = DEEP_SECONDS) -> dict:
    """Return the shallow answer with "client", "postgres" and "oracle".

    client: how Oracle is reached, with the seconds of the driver's import and the client's load, 0 in a warm process;
    the two databases: {"ok", "seconds"} with "version" and "connectSeconds", or "error" in one line;
    "postgres" also with "faults", which schema.py finds there. Both databases are asked at the same time, each in a
    thread of its own: thick mode cannot be interrupted while it connects. Before that, a child process tries out an
    Oracle client that this process has not loaded yet.
    """
    # Imported here, because a shallow ping starts no process.
    from . import first_connect

    tried = first_connect.attempt(bound)
    begin = time.monotonic()
    client = oracle.describe_client() | {"error": tried.crash} if tried.crash else oracle.check_client()
    client["seconds"] = round(time.monotonic() - begin, 3)
    # A refused login is not tried a second time.
    error = Refused(client["error"]) if client["error"] else tried.error
    checks = {"postgres": schema.ping}
    if not error:
        checks["oracle"] = genius.ping
    found = measure(checks, max(LEAST_SECONDS, bound - tried.seconds))
    if error:
        found["oracle"] = {"ok": False, "seconds": tried.seconds, **failure(error)}
    passed = all(one["ok"] and not one.get("faults") for one in found.values())
    return shallow() | {"ok": passed, "client": client, **found}


def secrets(bound: float = DEEP_SECONDS) -> dict:
    """Return for "postgres" and "oracle", if user or password is a reference, whether it resolves and logs in.

    Each is {"ok", "seconds"}, or {"ok", "seconds", "error", "kind"}; kind: see
    secret.py. No value is in it.
    """
    now = settings.current()
    checks = {}
    if settings.is_reference(now.pg_user) or settings.is_reference(now.pg_password):
        checks["postgres"] = lambda: check_login(postgres.log_in(through=secret.check)[0])
    if settings.is_reference(now.oracle_user) or settings.is_reference(now.oracle_password):
        checks["oracle"] = lambda: check_login(oracle.log_in(through=secret.check))
    return measure(checks, bound)


def check_login(connection) -> dict:
    connection.close()
    return {}


def readiness(bound: float = DEEP_SECONDS) -> dict:
    """Return the deep answer with "facts", those of readiness.read; without Genius there are none."""
    from . import readiness as facts

    answer = deep(bound)
    return answer | {"facts": facts.read() if answer["oracle"]["ok"] else {}}


def measure(checks: dict[str, Callable[[], dict]], bound: float) -> dict[str, dict]:
    """Return each check's result or error and its seconds; a check that exceeds the bound is abandoned."""
    found: dict[str, dict] = {}
    threads = [threading.Thread(target=measured, args=(found, *check), daemon=True) for check in checks.items()]
    until = time.monotonic() + bound
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    silent = {"ok": False, "seconds": bound, "error": f"no answer within {bound:g} s"}
    # A copy: an abandoned check can still end.
    answered = dict(found)
    return {name: answered.get(name, silent) for name in checks}


def failure(error: Refused | Unavailable) -> dict:
    """Return {"error", "kind"} of a failed check; without "kind" if neither login nor reference is the cause."""
    kind = getattr(error, "kind", None)
    return {"error": str(error)} | ({"kind": kind} if kind else {})


def measured(found: dict[str, dict], name: str, check: Callable[[], dict]) -> None:
    begin = time.monotonic()
    try:
        answer = {"ok": True, **check()}
    except (Refused, Unavailable) as error:
        answer = {"ok": False, **failure(error)}
    except Exception as error:
        answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    found[name] = answer | {"seconds": round(time.monotonic() - begin, 3)}
