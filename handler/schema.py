"""This service's own tables, and its requirements for the report's tables and function in PG_SCHEMA.

`inv schema`, the deep ping and the doctor all check them by find_faults.
"""

from __future__ import annotations

import time
from pathlib import Path

from . import settings
from .errors import Refused, Unavailable
from .postgres import Session, connected, transaction

PING_SECONDS = 5
METRICS = "calculate_financial_metrics"
METRICS_ARGUMENTS = "uuid, integer, integer"

# Families of types, as format_type writes them without their size.
TEXT = ("text", "character varying", "character")
WHOLE = ("integer", "bigint", "smallint")
EXACT = ("numeric",)
UUID = ("uuid",)
MOMENT = ("timestamp with time zone", "timestamp without time zone")
ZONED = ("timestamp with time zone",)
JSON = ("jsonb", "json")
AMOUNTS = [f"{kind}_{side}" for kind in ("start", "movement", "end") for side in ("debit", "credit", "balance")]

# Table -> the privileges that this service needs, and the columns that it uses with the types that it accepts.
REPORT_TABLES: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "legacy_chart_of_accounts": (("SELECT",), dict.fromkeys(("code", "parent_code", "name"), TEXT)),
    "branches": (("SELECT",), {"code": TEXT}),
    "legacy_trial_balances": (
        ("SELECT", "INSERT", "DELETE"),
        {"id": UUID, "year": WHOLE, "month": WHOLE, "created_at": MOMENT, "updated_at": MOMENT}
        | dict.fromkeys(("chart_of_account_code", "description", "branch_code", "currency_code"), TEXT)
        | dict.fromkeys(AMOUNTS, EXACT),
    ),
    "calculation_runs": (
        ("SELECT",),
        {"id": UUID, "status": TEXT, "metadata": JSON}
        | dict.fromkeys(("completed_steps", "total_steps", "error_count", "warning_count"), WHOLE),
    ),
}
OWN_TABLES: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "closing_runs": (
        ("SELECT", "INSERT", "UPDATE"),
        {"id": UUID, "closing_date": ("date",), "detail": ("jsonb",), "end_logged": ("boolean",)}
        | dict.fromkeys(("owner", "period", "user_id", "job", "status", "genius", "ledger", "metrics"), TEXT)
        | dict.fromkeys(("message", "ledger_job"), TEXT)
        | dict.fromkeys(("ledger_at", "ledger_job_ended_at", "started_at", "ended_at"), ZONED),
    ),
    "closing_findings": (
        ("SELECT", "INSERT", "DELETE"),
        {"id": WHOLE, "run_id": UUID, "amounts": ("jsonb",), "found_at": ZONED}
        | dict.fromkeys(("step", "kind", "account", "branch"), TEXT),
    ),
    "closing_decisions": (
        ("SELECT", "INSERT"),
        {"decided_at": ZONED, "closing_date": ("date",)} | dict.fromkeys(("job", "decision", "who", "period"), TEXT),
    ),
}
# The oldest version of PostgreSQL that has hash_record_extended, which rollup.py uses.
OLDEST = 14
# The catalogue is queried directly: to_regclass fails if USAGE is missing.
COLUMNS = """
SELECT relname, attname, format_type(atttypid, NULL)
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid
 WHERE nspname = :schema AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'f', 'm')"""
FUNCTIONS = """
SELECT oidvectortypes(proargtypes), has_function_privilege(pg_proc.oid, 'EXECUTE')
  FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname = :schema AND proname = :name"""
RIGHTS = """
SELECT has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE'),
       has_database_privilege(current_database(), 'TEMPORARY')
  FROM pg_namespace WHERE nspname = :schema"""
TABLE_RIGHTS = """
SELECT relname, privilege FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) needed (privilege)
 WHERE nspname = :schema AND relkind IN ('r', 'p', 'v', 'f', 'm') AND has_table_privilege(pg_class.oid, privilege)"""


def apply() -> str:
    """Create what is missing of our own tables, and return the schema that has them.

    Raises Refused with a list of all that is missing; the tables that could be created stay.
    """
    schema = settings.current().pg_schema
    with connected() as session:
        failure = create(session, schema)
        faults = find_faults(session) or failure
    if faults:
        raise Refused(f"{'; '.join(faults)}; then `inv schema --env ENV` again")
    return schema


def create(session: Session, schema: str) -> list[str]:
    """Run schema.sql if the user is allowed to; return why it failed, if it did."""
    rights = session.run(RIGHTS, schema=schema)
    # An existing table needs no CREATE privilege, which an administrator can have revoked since.
    if not rights or not rights[0][0] or not (rights[0][1] or not absent(session, schema, OWN_TABLES)):
        return []
    try:
        with transaction(session):
            for statement in statements((Path(__file__).parent / "schema.sql").read_text()):
                session.run(statement)
    except (Refused, Unavailable) as error:
        if session.broken:
            raise
        # An administrator can own our tables; find_faults reports whether they are as needed.
        return [] if "must be owner of" in str(error) else [str(error)]
    return []


def ping() -> dict:
    """Connect anew and return {"version", "faults", "connectSeconds"}: the server's version, faults of the schema."""
    begin = time.monotonic()
    with connected(PING_SECONDS, PING_SECONDS) as session:
        known = {"connectSeconds": round(time.monotonic() - begin, 3)}
        return known | {"version": session.run("SHOW server_version")[0][0], "faults": find_faults(session)}


def find_faults(session: Session) -> list[str]:
    """Return one line, with its fix, for each requirement that the database or the schema does not meet."""
    now = settings.current()
    rights = session.run(RIGHTS, schema=now.pg_schema)
    if not rights:
        return [f"no schema {now.pg_schema} in database {now.pg_database}; correct PG_SCHEMA or create it"]
    tables = REPORT_TABLES | OWN_TABLES
    missing = absent(session, now.pg_schema, tables)
    faults = [*server_faults(session), *table_faults(missing), *column_faults(session, tables, missing)]
    grants = missing_grants(session, rights[0], missing)
    functions = dict(session.run(FUNCTIONS, schema=now.pg_schema, name=METRICS))
    if METRICS_ARGUMENTS not in functions:
        known = f"it has {METRICS}({'), ('.join(functions)})" if functions else "PG_SCHEMA must be the report's schema"
        faults.append(f"schema {now.pg_schema} has no function {METRICS}({METRICS_ARGUMENTS}); {known}")
    elif not functions[METRICS_ARGUMENTS]:
        grants.append(f"EXECUTE ON FUNCTION {now.pg_schema}.{METRICS}({METRICS_ARGUMENTS})")
    if grants:
        # Queried, because PG_USER can be a reference.
        ((user,),) = session.run("SELECT session_user")
        wanted = "; ".join(f"GRANT {grant} TO {user}" for grant in grants)
        faults.append(f"{user} lacks grants; the schema's owner must run: {wanted}")
    return faults


def absent(session: Session, schema: str, tables: dict) -> list[str]:
    present = {row[0] for row in session.run(COLUMNS, schema=schema)}
    return [name for name in tables if name not in present]


def server_faults(session: Session) -> list[str]:
    ((name, encoding, number, version),) = session.run(
        "SELECT current_database(), current_setting('server_encoding'),"
        " CAST(current_setting('server_version_num') AS int), current_setting('server_version')"
    )
    faults = []
    if encoding != "UTF8":
        faults.append(f"database {name} is encoded in {encoding}, expected UTF8: it cannot hold every text of Genius")
    if number < OLDEST * 10000:
        faults.append(f"PostgreSQL {version} is too old; the ledger step needs version {OLDEST} or later")
    return faults


def table_faults(missing: list[str]) -> list[str]:
    schema = settings.current().pg_schema
    theirs = [name for name in missing if name in REPORT_TABLES]
    ours = [name for name in missing if name in OWN_TABLES]
    faults = {
        f"schema {schema} has no {', '.join(theirs)}; PG_SCHEMA must be the report's own schema": theirs,
        f"schema {schema} has no {', '.join(ours)}; run `inv schema --env ENV`": ours,
    }
    return [fault for fault, names in faults.items() if names]


def column_faults(session: Session, tables: dict, missing: list[str]) -> list[str]:
    schema = settings.current().pg_schema
    found = {(table, column): kind for table, column, kind in session.run(COLUMNS, schema=schema)}
    faults = []
    for table, (_, columns) in tables.items():
        for column, kinds in columns.items() if table not in missing else ():
            kind = found.get((table, column))
            if kind is None:
                faults.append(f"{schema}.{table} has no column {column} ({kinds[0]})")
            elif kind not in kinds:
                faults.append(f"{schema}.{table}.{column} is {kind}, expected {' or '.join(kinds)}")
    return faults


def missing_grants(session: Session, rights: list, missing: list[str]) -> list[str]:
    """Return the grants that this service lacks, in the form of a GRANT."""
    now = settings.current()
    usage, create, temporary = rights
    grants = [] if usage else [f"USAGE ON SCHEMA {now.pg_schema}"]
    grants += [f"CREATE ON SCHEMA {now.pg_schema}"] if set(missing) & set(OWN_TABLES) and not create else []
    grants += [] if temporary else [f"TEMPORARY ON DATABASE {now.pg_database}"]
    granted = {(table, privilege) for table, privilege in session.run(TABLE_RIGHTS, schema=now.pg_schema)}
    needed = [(table, one) for table, (some, _) in (REPORT_TABLES | OWN_TABLES).items() for one in some]
    return grants + [
        f"{privilege} ON {now.pg_schema}.{table}"
        for table, privilege in needed
        if table not in missing and (table, privilege) not in granted
    ]


def statements(script: str) -> list[str]:
    """Split a script of plain statements, each ended by a semicolon at a line's end."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]
