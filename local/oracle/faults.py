"""Faults on demand: one file per fault in the folder `faults` under the stand-in's data.

The file's name is the fault, its content is the value: `echo 5 > data/faults/procedure_seconds`, or
`inv genius.inject procedure_seconds=5`. A one-shot fault is consumed by removing its file, so exactly one call meets
it. Files outlive a restart of the stand-in, need no connection (the listener may be the fault), and `ls` shows what
is injected. KNOWN is the list of all.

The value of a cut is a regular expression that the call must match: its SQL, FETCH and the SQL for a fetch, COMMIT,
ROLLBACK or PING; an empty one matches the next call.
"""

from __future__ import annotations

from pathlib import Path

KNOWN = {
    "procedure_seconds": "seconds that the closing procedure takes",
    "procedure_holds": "it does not end before this is cleared",
    "procedure_status": "what it gives as its status, such as 0 or NULL; the balances then stay stale",
    "procedure_message": "what it gives as its message, if procedure_status is injected",
    "procedure_error": "an error inside it, such as ORA-01555: snapshot too old",
    "open_balances": 'more rows in AC_GLOPENBALANCE, as JSON: [["2025-01", account, name, branch, 6 amounts], …]',
    "slave_dies": "once: the process under the running, or else the next, job is gone, and the job STOPPED",
    "jobs_never_start": "jobs stay SCHEDULED, as with JOB_QUEUE_PROCESSES = 0",
    "restart_on_recovery": "as 12c: what ran when the database went down is started again when it comes up",
    "log_purged": "no run detail can be seen",
    "detail_gap_seconds": "seconds from a run's end until its detail can be seen; without it 0.02",
    "scheduler_attributes": 'more of ALL_SCHEDULER_GLOBAL_ATTRIBUTE, as JSON: {"SCHEDULER_DISABLED": "TRUE"}',
    "procedure_arguments": "how many of the procedure's six arguments ALL_ARGUMENTS lists",
    "password_expires_days": "days until each user's password expires; at most 7: a login warns with ORA-28002",
    "nls_characterset": "the database's character set in NLS_DATABASE_PARAMETERS",
    "database_version": "the database's version as the login reports it, in five parts, such as 10.2.0.5.0",
    "latency_ms": "milliseconds before each call",
    "listener_down": "new connections are dropped at once; sessions go on",
    "cut_before": "once: the call never runs and its connection is reset",
    "cut_during": "once: the call runs to its end but its connection is reset while it does",
    "cut_after": "once: the call runs, commits included, and its connection is reset before the reply",
    "password": "USER:new, in force instead of that user's own",
    "verifier": "11g or 12c, how passwords are checked",
}


class UnknownFault(ValueError):
    """An unknown fault; the text lists the known ones."""

    def __init__(self, name: str):
        super().__init__(f"No fault '{name}'. Known: {', '.join(sorted(KNOWN))}.")


class Faults:
    """The faults injected under one data folder; read anew at every use."""

    def __init__(self, data: Path):
        self.folder = Path(data) / "faults"
        self.folder.mkdir(parents=True, exist_ok=True)

    def value(self, name: str) -> str | None:
        """Return the content of an injected fault, stripped, or None if it is not injected."""
        try:
            return self._path(name).read_text(errors="surrogateescape").strip()
        except FileNotFoundError:
            return None

    def take(self, name: str) -> str | None:
        """Consume a one-shot fault: return its content to exactly one caller, None to all others."""
        path = self._path(name)
        claimed = path.with_name(f".{name}.taken")
        try:
            path.rename(claimed)
        except FileNotFoundError:
            return None
        value = claimed.read_text().strip()
        claimed.unlink()
        return value

    def inject(self, name: str, value: object = "") -> None:
        """Inject a fault, completely or not at all."""
        path, partial = self._path(name), self.folder / f".{name}.new"
        partial.write_text(str(value), errors="surrogateescape")
        partial.rename(path)

    def clear(self, name: str) -> None:
        """Clear a fault; a fault that is not injected is no error."""
        self._path(name).unlink(missing_ok=True)

    def injected(self) -> dict[str, str]:
        """Return the injected faults, by name, with their values."""
        found = {name: self.value(name) for name in KNOWN}
        return {name: value for name, value in found.items() if value is not None}

    def _path(self, name: str) -> Path:
        """Return a fault's file; raises UnknownFault, because a mistyped one would have no effect."""
        if name not in KNOWN:
            raise UnknownFault(name)
        return self.folder / name
