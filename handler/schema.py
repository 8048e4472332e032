"""The one table of our own, and the rights that this service needs to what it finds in PG_SCHEMA."""

from __future__ import annotations

from pathlib import Path

from . import settings
from .errors import Refused
from .ledger import connected, transaction

METRICS = "calculate_financial_metrics(uuid, integer, integer)"
# What this service does with what it finds in the schema; the function's own rights are the report's business.
# The catalogue is read by itself: to_regclass fails where USAGE is what is missing.
GRANTS = f"""
WITH given AS (SELECT oid, nspname AS schema FROM pg_namespace WHERE nspname = :schema),
present AS (
  SELECT relname AS name, pg_class.oid FROM given JOIN pg_class ON relnamespace = given.oid
  UNION ALL SELECT proname, pg_proc.oid FROM given JOIN pg_proc ON pronamespace = given.oid
),
needed (name, privilege, what) AS (VALUES
  ('legacy_chart_of_accounts', 'SELECT', 'legacy_chart_of_accounts'),
  ('legacy_trial_balances', 'SELECT', 'legacy_trial_balances'),
  ('legacy_trial_balances', 'INSERT', 'legacy_trial_balances'),
  ('legacy_trial_balances', 'DELETE', 'legacy_trial_balances'),
  ('calculation_runs', 'SELECT', 'calculation_runs'),
  ('calculate_financial_metrics', 'EXECUTE', 'FUNCTION {METRICS}'))
SELECT 'USAGE ON SCHEMA ' || schema, '' FROM given WHERE NOT has_schema_privilege(oid, 'USAGE')
UNION ALL SELECT 'CREATE ON SCHEMA ' || schema, '' FROM given
 WHERE NOT has_schema_privilege(oid, 'CREATE') AND 'closing_runs' NOT IN (SELECT name FROM present)
UNION ALL SELECT 'TEMPORARY ON DATABASE ' || current_database(), ''
 WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
UNION ALL SELECT privilege || ' ON ' || regexp_replace(what, '^(FUNCTION )?', '\\1' || schema || '.'),
   CASE WHEN present.oid IS NULL THEN name ELSE '' END
  FROM needed CROSS JOIN given LEFT JOIN present USING (name)
 WHERE present.oid IS NULL OR NOT CASE privilege
   WHEN 'EXECUTE' THEN has_function_privilege(present.oid, privilege)
   ELSE has_table_privilege(present.oid, privilege) END"""


def apply() -> str:
    """Create what is missing of our own table, and return the schema that has it.

    Raises Refused with the grants that this service needs and does not have; what could be made is made even so.
    """
    now = settings.current()
    with connected() as session:
        if not session.run("SELECT FROM pg_namespace WHERE nspname = :schema", schema=now.pg_schema):
            raise Refused(f"no schema {now.pg_schema} in database {now.pg_database}; correct PG_SCHEMA or have it made")
        lacking = session.run(GRANTS, schema=now.pg_schema)
        if not any("ON SCHEMA" in grant for grant, _ in lacking):
            with transaction(session):
                for statement in statements((Path(__file__).parent / "schema.sql").read_text()):
                    session.run(statement)
    absent = sorted({name for _, name in lacking if name})
    if absent:
        raise Refused(f"schema {now.pg_schema} has no {', '.join(absent)}; PG_SCHEMA must be the report's own schema")
    if lacking:
        wanted = "; ".join(f"GRANT {grant} TO {now.pg_user}" for grant, _ in lacking)
        raise Refused(f"{now.pg_user} lacks grants; have the schema's owner run: {wanted}; then `inv schema` again")
    return now.pg_schema


def statements(script: str) -> list[str]:
    """A script of plain statements, each ended by a semicolon at a line's end."""
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]
