"""Connections to Genius' Oracle database, and what their errors mean. Only this module and genius.py know Oracle."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import sys

from . import client, deadline, secret, settings
from .errors import LoginRefused, Refused, Unavailable

CONNECT_SECONDS = 10
CALL_SECONDS = 30
# A NAT gateway drops flows that are idle for 350 s.
EXPIRE_MINUTES = 2
DESCRIPTION = re.compile(r"\(\s*DESCRIPTION\s*=", re.IGNORECASE)
OWN_LIMITS = re.compile(r"\(\s*(TRANSPORT_CONNECT_TIMEOUT|EXPIRE_TIME)\s*=[^()]*\)", re.IGNORECASE)
# A random id that thin mode writes into its error: two tries would never have the same error.
CONNECTION = re.compile(r" \(CONNECTION_ID=[^)]*\)")
# Retrying these cannot help, and a wrong password that is tried again locks the account.
LOGIN_REFUSED = {"ORA-01017", "ORA-28000", "ORA-28001", "ORA-01045"}
# The line, the listener or the instance was not there to answer: time-outs and lost connections of both modes, TNS
# errors, an instance that starts or stops.
LINE = re.compile(
    r"DPY-(4011|4024|4005|6\d{3})|DPI-(1010|1067|1080)|ORA-12\d{3}|ORA-0311[34]|ORA-03135|ORA-03136|ORA-0103[34]"
    r"|ORA-0108[19]|ORA-0109[02]|ORA-27101|ORA-25408|ORA-01013"
)


@functools.lru_cache(maxsize=1)
def driver():
    """Return python-oracledb, imported at the first need of Oracle and initialised by the settings; raises Refused."""
    import oracledb

    oracledb.defaults.fetch_decimals = True
    oracledb.defaults.fetch_lobs = False
    if settings.current().oracle_client == "thick":
        # No fall back to thin: that would end in DPY-3010 at midnight.
        try:
            oracledb.init_oracle_client()
        except oracledb.Error as error:
            raise Refused(client.cause(str(error), client.libraries(client.folders()))) from error
        if oracledb.clientversion()[:2] < client.OLDEST:
            raise Refused(client.too_old(client_version()))
        print(f"Oracle client {client_version()}, thick mode", file=sys.stderr, flush=True)
    return oracledb


def client_version() -> str:
    import oracledb

    return ".".join(map(str, oracledb.clientversion()))


def describe_client() -> dict:
    """Return how this process reaches Oracle, without loading the client: {"mode", "driver", "version", "libraries",
    "error"}; driver: python-oracledb's version; version: the client's, None if it is not loaded."""
    mode, found = settings.current().oracle_client, sorted(client.libraries(client.folders()))
    import oracledb

    return {"mode": mode, "driver": oracledb.__version__, "version": None, "error": None, "libraries": found}


def check_client() -> dict:
    """Return describe_client() after the client was loaded, with its version or the error."""
    seen = describe_client()
    try:
        driver()
    except Refused as error:
        return seen | {"error": str(error)}
    return seen | ({"version": client_version()} if seen["mode"] == "thick" else {})


def connect_descriptor(connect_seconds: float) -> str:
    """Return the connect string with time-outs in it, in the form that thin and thick mode both take."""
    given = settings.current().oracle_connect_string
    if given.lstrip().startswith("("):
        # The driver writes a descriptor anew without what is its own default, such as LOAD_BALANCE=OFF of a
        # DESCRIPTION_LIST, and the default of Oracle's client is ON.
        limits = f"(TRANSPORT_CONNECT_TIMEOUT={connect_seconds:g})(EXPIRE_TIME={EXPIRE_MINUTES})"
        return DESCRIPTION.sub(rf"\g<0>{limits}", OWN_LIMITS.sub("", given))
    params = driver().ConnectParams()
    params.parse_connect_string(given)
    params.set(tcp_connect_timeout=connect_seconds, expire_time=EXPIRE_MINUTES)
    return params.get_connect_string()


def reach(seconds: float) -> dict:
    """Open a connection to one of the listeners and close it, without a login; raises Refused or Unavailable."""
    oracledb, given = driver(), settings.current().oracle_connect_string
    params, failures = oracledb.ConnectParams(), []
    try:
        params.parse_connect_string(given)
    except oracledb.Error as error:
        raise Refused(client.explain(first_line(error))) from error
    hosts, ports = (one if isinstance(one, list) else [one] for one in (params.host, params.port))
    if None in hosts:
        # A directory has the addresses.
        return {}
    for address in zip(hosts, ports):
        try:
            socket.create_connection(address, seconds).close()
            return {}
        except OSError as error:
            failures.append(first_line(error))
    raise Unavailable(f"Genius at {given}: {failures[0]}")


def first_line(error: Exception) -> str:
    """Return an error in one line: its first, and of an error of the driver itself also the second, the cause."""
    text = CONNECTION.sub("", str(error))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Help:")]
    if not lines:
        return type(error).__name__
    return "; ".join(line.rstrip(".") for line in lines[: 2 if lines[0].startswith("DPY-") else 1])


def call_milliseconds(seconds: float) -> int:
    """Return the time limit of one call, within the rest of the invocation; 0 would mean no limit."""
    return max(1, int(min(seconds, deadline.left()) * 1000))


def failure(error: Exception, where: str) -> Refused | Unavailable:
    """Return the error to raise for an error of the driver: Unavailable if the line or the server did not answer."""
    code = getattr(error.args[0], "full_code", "") if error.args else ""
    if isinstance(error, OSError) or LINE.match(code):
        return Unavailable(f"{where}: {first_line(error)}")
    return Refused(f"{where}: {first_line(error)}")


def log_in(connect_seconds: float = CONNECT_SECONDS, through=secret.log_in):
    """Return a connection of the settings' user; through: what resolves references and calls `connect`."""
    now = settings.current()
    connect_once = functools.partial(connect, connect_seconds)
    return through("Genius", now.oracle_user, now.oracle_password, connect_once)


def connect(connect_seconds: float, user: str, password: str):
    """Log in once; see `connected` for the errors."""
    oracledb, now = driver(), settings.current()
    try:
        return oracledb.connect(user=user, password=password, dsn=connect_descriptor(connect_seconds))
    except oracledb.Error as error:
        code, reason = error.args[0].full_code, client.explain(first_line(error))
        if code.startswith(("DPI-", "DPY-2", "DPY-3")):
            raise Refused(f"the Oracle driver cannot connect: {reason}") from error
        if code in LOGIN_REFUSED:
            # The usual fix, a corrected setting, is not that of a reference.
            reason = reason if password == now.oracle_password else first_line(error)
            raise LoginRefused(f"Genius refused the login of {now.oracle_user}: {reason}") from error
        kind = type(failure(error, ""))
        raise kind(f"Genius at {now.oracle_connect_string}: {reason}") from error
    except OSError as error:
        # Thin mode resolves the host's name outside of its own errors: socket.gaierror.
        raise Unavailable(f"Genius at {now.oracle_connect_string}: {first_line(error)}") from error


@contextlib.contextmanager
def connected(call_seconds: float = CALL_SECONDS, *, connect_seconds: float = CONNECT_SECONDS):
    """Open one connection for one step.

    Raises Unavailable for a line that does not work, LoginRefused for a refused login, and Refused for any other answer
    that the block does not handle itself: it would come again at each try.
    """
    oracledb = driver()
    connection = log_in(connect_seconds)
    try:
        connection.call_timeout = call_milliseconds(call_seconds)
        connection.outputtypehandler = keep_undecodable
        yield connection
    except (oracledb.Error, OSError) as error:
        raise failure(error, "Genius") from error
    finally:
        with contextlib.suppress(oracledb.Error):
            connection.close()


def keep_undecodable(cursor, column):
    """Read text whose bytes are not valid UTF-8 as lone surrogates, so that our own checks can name its account."""
    oracledb = driver()
    if column.type_code not in (oracledb.DB_TYPE_VARCHAR, oracledb.DB_TYPE_CHAR):
        return None
    return cursor.var(
        column.type_code, column.internal_size, arraysize=cursor.arraysize, encoding_errors="surrogateescape"
    )


def exact_text(cursor, column):
    """Read numbers as their exact text, without a Decimal in between, and text as keep_undecodable does."""
    oracledb = driver()
    if column.type_code == oracledb.DB_TYPE_NUMBER:
        return cursor.var(str, arraysize=cursor.arraysize)
    return keep_undecodable(cursor, column)
