-- The one table of finance-closing itself; everything else in the schema belongs to the report.
-- Repeatable. Needs: USAGE and CREATE on the schema; SELECT on legacy_chart_of_accounts and branches; SELECT,
-- INSERT and DELETE on legacy_trial_balances; SELECT on calculation_runs; EXECUTE on calculate_financial_metrics.
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
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);

CREATE INDEX IF NOT EXISTS closing_runs_closing_date ON closing_runs (closing_date, started_at);
