-- The tables of the report, which the service finds in PG_SCHEMA. The service creates its own tables.

CREATE SCHEMA IF NOT EXISTS financial_report AUTHORIZATION finance;

CREATE TABLE IF NOT EXISTS financial_report.legacy_chart_of_accounts (
    code text PRIMARY KEY,
    -- Checked at the commit: the chart is loaded in any order.
    parent_code text REFERENCES financial_report.legacy_chart_of_accounts DEFERRABLE INITIALLY DEFERRED,
    level integer NOT NULL CHECK (level > 0),
    name text NOT NULL
);

CREATE TABLE IF NOT EXISTS financial_report.branches (
    code text PRIMARY KEY,
    name text NOT NULL
);

-- A balance is debit minus credit.
CREATE TABLE IF NOT EXISTS financial_report.legacy_trial_balances (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    chart_of_account_code text NOT NULL,
    description text,
    branch_code text NOT NULL,
    year integer NOT NULL,
    month integer NOT NULL CHECK (month BETWEEN 1 AND 12),
    currency_code text NOT NULL DEFAULT 'IDR',
    start_debit numeric(38, 2) NOT NULL DEFAULT 0,
    start_credit numeric(38, 2) NOT NULL DEFAULT 0,
    start_balance numeric(38, 2) NOT NULL DEFAULT 0,
    movement_debit numeric(38, 2) NOT NULL DEFAULT 0,
    movement_credit numeric(38, 2) NOT NULL DEFAULT 0,
    movement_balance numeric(38, 2) NOT NULL DEFAULT 0,
    end_debit numeric(38, 2) NOT NULL DEFAULT 0,
    end_credit numeric(38, 2) NOT NULL DEFAULT 0,
    end_balance numeric(38, 2) NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (chart_of_account_code, year, month, branch_code, currency_code)
);
CREATE INDEX IF NOT EXISTS legacy_trial_balances_period ON financial_report.legacy_trial_balances (year, month);

CREATE TABLE IF NOT EXISTS financial_report.calculation_runs (
    id uuid PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('running', 'completed', 'failed')),
    completed_steps integer NOT NULL DEFAULT 0,
    total_steps integer NOT NULL DEFAULT 0,
    error_count integer NOT NULL DEFAULT 0,
    warning_count integer NOT NULL DEFAULT 0,
    metadata jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- One value per period and metric: a later run replaces an earlier one. NULL if it would divide by zero.
CREATE TABLE IF NOT EXISTS financial_report.financial_metrics (
    year integer NOT NULL,
    month integer NOT NULL CHECK (month BETWEEN 1 AND 12),
    metric text NOT NULL,
    value numeric,
    run_id uuid NOT NULL REFERENCES financial_report.calculation_runs,
    PRIMARY KEY (year, month, metric)
);

GRANT USAGE, CREATE ON SCHEMA financial_report TO finance;
GRANT SELECT ON financial_report.legacy_chart_of_accounts, financial_report.branches TO finance;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    financial_report.legacy_trial_balances, financial_report.calculation_runs, financial_report.financial_metrics
    TO finance;
