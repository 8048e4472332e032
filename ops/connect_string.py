"""Check ORACLE_CONNECT_STRING with the parser of the function's own driver, before anything is deployed."""

from __future__ import annotations

import re

from invoke import Exit

from ops.target import Target

BY_SID = "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST={host})(PORT={port}))(CONNECT_DATA=(SID={sid})))"
FORMS = f"host:port/service, or for a SID {BY_SID.format(host='host', port='1521', sid='sid')}"
JDBC = re.compile(r"jdbc:oracle:\w+:(?:[^@]*)@(?://)?(.*)", re.IGNORECASE)
# host:port:SID, which only JDBC reads.
WITH_SID = re.compile(r"(?://)?([^\s:/()@]+):(\d+):(\w+)")
WITHOUT_SERVICE = re.compile(r"(?://)?[^\s:/()@]+:\d+")
# Of a directory or a store of configurations; the driver would search the file on this machine.
ELSEWHERE = re.compile(r"(?!tcps?:)[\w-]+://.*", re.IGNORECASE)


def check(target: Target) -> None:
    """Raise Exit with the right form if the driver could not use the environment's connect string.

    Without a value the function keeps its own.
    """
    fault = find_fault(target.cfg["ORACLE_CONNECT_STRING"])
    if fault:
        raise Exit(f"env/{target.env}.env: ORACLE_CONNECT_STRING {fault}. Nothing was changed.")


def find_fault(value: str) -> str:
    """Return what is wrong with a connect string and the form to use, "" if nothing is."""
    if not value:
        return ""
    if found := JDBC.fullmatch(value):
        return f"is a JDBC URL, which only Java reads; write {rewritten(found[1])}"
    if WITH_SID.fullmatch(value):
        return f"names a SID as host:port:SID, which only JDBC reads; write {rewritten(value)}"
    if "@" in value:
        return f"has a user or a password before '@'; set ORACLE_USER and ORACLE_PASSWORD, and write here {FORMS}"
    if WITHOUT_SERVICE.fullmatch(value):
        return f"{value!r} names neither a service nor a SID; write {FORMS}"
    if ELSEWHERE.fullmatch(value):
        return f"{value!r} names the place of an address, which the function does not search; write {FORMS}"
    if not re.search(r"[/(]", value):
        return f"{value!r} is a TNS alias, and the function has no tnsnames.ora; write {FORMS}"
    return driver_fault(value)


def rewritten(address: str) -> str:
    """Return an address of a JDBC URL in the form that Oracle's own clients read."""
    found = WITH_SID.fullmatch(address)
    if found:
        return BY_SID.format(host=found[1], port=found[2], sid=found[3])
    return FORMS if not address or find_fault(address) else address


def driver_fault(value: str) -> str:
    """Return the driver's error for a connect string, or a fault of what it has parsed."""
    # Imported here, because only a check of an environment needs the driver, and its import takes time.
    import oracledb

    params = oracledb.ConnectParams()
    try:
        params.parse_connect_string(value)
    except oracledb.Error as error:
        code = error.args[0].full_code
        reason = "is no address" if code == "DPY-4027" else f"is refused by the driver ({first_line(error)})"
        return f"{value!r} {reason}; write {FORMS}"
    parts = {name: as_list(getattr(params, name)) for name in ("host", "port", "service_name", "sid")}
    if not all(parts["host"]):
        return f"{value!r} names no host; write {FORMS}"
    if not all(0 < port < 65536 for port in parts["port"]):
        return f"{value!r} has a port that is not from 1 to 65535"
    if not all(service or sid for service, sid in zip(parts["service_name"], parts["sid"])):
        return f"{value!r} names neither a service nor a SID; write {FORMS}"
    return ""


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
