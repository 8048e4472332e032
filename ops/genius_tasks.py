"""The local cloud's Genius as tasks: inv genius.sql | inject | clear | faults.

Only the tasks import the stand-in and the driver: an operator's machine has neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from decimal import Decimal

from invoke import Exit

from ops import terminal
from ops.task import MACHINE, NOTHING, task

SHOWN = 100
WIDEST = 60


@task(
    group="local",
    changes=MACHINE,
    positional=["text"],
    help={"text": "one statement or PL/SQL block", "rows": "the most to show"},
)
def sql(c, text, rows=SHOWN):
    """Run SQL or PL/SQL on the local cloud's Genius; changes are committed."""
    from local.oracle.binds import scan

    kind = scan(text).kind
    with connected() as connection, connection.cursor() as cursor:
        cursor.arraysize = 1000
        cursor.execute(text if kind == "plsql" else text.rstrip().rstrip(";"))
        if cursor.description is None:
            print(counted(cursor.rowcount) if kind == "dml" else "done")
            return
        names = [column[0] for column in cursor.description]
        found = cursor.fetchmany(rows)
        print(aligned(names, found))
        more = sum(1 for _ in cursor)
        print(f"{counted(len(found) + more)}{f', the first {len(found)} printed' if more else ''}")


@contextmanager
def connected():
    """Yield a session of the unmodified driver; an error is one line and exit 1."""
    import oracledb

    from local.services import ORACLE_SERVICE, ORACLE_USER
    from local.state import HOST, State

    settings = State().settings()
    if not settings:
        raise Exit("There is no local cloud here yet; run `inv local.up`.", code=1)
    oracledb.defaults.fetch_decimals = True
    oracledb.defaults.fetch_lobs = False
    dsn = f"{HOST}:{settings['LOCAL_ORACLE_PORT']}/{ORACLE_SERVICE}"
    try:
        with oracledb.connect(user=ORACLE_USER, password=settings["LOCAL_ORACLE_PASSWORD"], dsn=dsn) as connection:
            connection.autocommit = True
            yield connection
    except oracledb.Error as error:
        code = error.args[0].full_code
        hint = ". If it is down, run `inv local.up`" if code.startswith("DPY-6") else ""
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Help:")]
        raise Exit(f"{'; '.join(lines)}{hint}", code=1) from None


def counted(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"


def aligned(names: list[str], rows: Iterable[tuple]) -> str:
    """Format rows under their columns' names; numbers are aligned to the right, NULL is left blank."""
    rows = list(rows)
    numbers = [at for at in range(len(names)) if any(isinstance(row[at], (int, float, Decimal)) for row in rows)]
    return terminal.table([[format_value(value) for value in row] for row in rows], names, right=numbers)


def format_value(value: object) -> str:
    """Format a value in one line of at most WIDEST characters."""
    text = "" if value is None else format(value, "f") if isinstance(value, Decimal) else str(value)
    text = " ".join(text.split()) if isinstance(value, str) else text
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


@task(
    group="local",
    changes=MACHINE,
    positional=["fault"],
    help={"fault": "NAME or NAME=VALUE; `inv genius.faults` lists them"},
)
def inject(c, fault):
    """Inject a fault into the local cloud's Genius, at once and until it is cleared."""
    name, _, value = fault.partition("=")
    with known_faults() as faults:
        faults.inject(name, value)


@task(group="local", changes=MACHINE, positional=["fault"], help={"fault": "the name of an injected fault"})
def clear(c, fault):
    """Clear a fault; a fault that is not injected is no error."""
    with known_faults() as faults:
        faults.clear(fault)


@task(group="local", changes=NOTHING)
def faults(c):
    """List all faults and mark the injected ones."""
    from local.oracle.faults import KNOWN

    injected = genius_faults().injected()
    rows = [("injected" if name in injected else "", name, injected.get(name) or KNOWN[name]) for name in KNOWN]
    print(terminal.table(rows))


def genius_faults():
    """Return the faults of the local cloud's Genius."""
    from local.oracle.faults import Faults
    from local.state import State

    return Faults(State().path / "genius")


@contextmanager
def known_faults():
    """Yield the local cloud's faults, then print the injected ones; an unknown fault is one line and exit 1."""
    from local.oracle.faults import UnknownFault

    faults = genius_faults()
    try:
        yield faults
    except UnknownFault as error:
        raise Exit(str(error), code=1) from None
    injected = (f"{name}={value}" if value else name for name, value in faults.injected().items())
    print(f"injected: {', '.join(injected) or 'nothing'}")
