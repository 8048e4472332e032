-- The tables of finance-closing itself; everything else in the schema belongs to the report.
-- Repeatable. `inv schema` names the grants that are missing; handler/schema.py has the list.
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
    -- When this run replaced the trial balance, which has the balances of the period's newest run by this time.
    ledger_at timestamptz,
    -- The job whose result this run put into the trial balance, and its end by Genius' clock.
    ledger_job text,
    ledger_job_ended_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    -- Whether the event of the run's end is in the log.
    end_logged boolean NOT NULL DEFAULT false
);

CREATE INDEX IF NOT EXISTS closing_runs_closing_date ON closing_runs (closing_date, started_at);
CREATE INDEX IF NOT EXISTS closing_runs_job ON closing_runs (job);

-- The findings of a run's newest try of a step, with the amounts of single accounts and branches. No other place outside
-- the ledger has these amounts: messages, logs and closing_runs name accounts and branches only.
CREATE TABLE IF NOT EXISTS closing_findings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES closing_runs ON DELETE CASCADE,
    step text NOT NULL,
    kind text NOT NULL,
    account text,
    branch text,
    amounts jsonb NOT NULL DEFAULT '{}',
    found_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS closing_findings_run_id ON closing_findings (run_id, step);

-- The decision of a person on a job whose outcome nobody else can know; recorded once a job, never overwritten.
CREATE TABLE IF NOT EXISTS closing_decisions (
    job text PRIMARY KEY,
    decision text NOT NULL CHECK (decision IN ('succeeded', 'failed')),
    who text NOT NULL,
    -- The date of the closing that the job belongs to; not known for a job of another program.
    closing_date date,
    period text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now()
);
