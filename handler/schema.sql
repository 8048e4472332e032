-- The one table of finance-closing itself; everything else in the schema belongs to the report.
-- Repeatable. Needs: USAGE and CREATE on the schema, TEMPORARY on the database; SELECT on legacy_chart_of_accounts;
-- SELECT, INSERT and DELETE on legacy_trial_balances; SELECT on calculation_runs; EXECUTE on
-- calculate_financial_metrics. `inv schema` names those that are missing.
CREATE TABLE IF NOT EXISTS closing_runs (
    id uuid PRIMARY KEY,
    owner text NOT NULL,
    closing_date date NOT NULL,
    period text NOT NULL,
    user_id text NOT NULL,
    job text,
    status text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled', 'blocked')),
    genius text NOT NULL DEFAULT 'pending',
    ledger text NOT NULL DEFAULT 'pending',
    metrics text NOT NULL DEFAULT 'pending',
    message text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}',
    -- The job whose result this run put into the trial balance, and its end by Genius' clock.
    ledger_job text,
    ledger_job_ended_at timestamp,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);

CREATE INDEX IF NOT EXISTS closing_runs_closing_date ON closing_runs (closing_date, started_at);

-- For a table of an earlier release.
ALTER TABLE closing_runs ADD COLUMN IF NOT EXISTS ledger_job text;
ALTER TABLE closing_runs ADD COLUMN IF NOT EXISTS ledger_job_ended_at timestamp;
