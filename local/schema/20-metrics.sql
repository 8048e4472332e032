-- The metrics of an insurer, from the trial balance of one period.

-- Group of accounts (a code of two digits) -> its balance at the period's end over all branches, as it is usually
-- read: assets and expenses as debits, the rest as credits. The groups are one whole level of the tree, so that no
-- amount counts twice.
CREATE OR REPLACE FUNCTION financial_report.group_balances(p_year integer, p_month integer)
RETURNS TABLE (code text, amount numeric)
LANGUAGE sql STABLE
AS $$
    SELECT b.chart_of_account_code,
           sum(b.end_balance) * CASE WHEN left(b.chart_of_account_code, 1) IN ('1', '5') THEN 1 ELSE -1 END
    FROM financial_report.legacy_trial_balances b
    JOIN financial_report.legacy_chart_of_accounts c ON c.code = b.chart_of_account_code
    WHERE b.year = p_year AND b.month = p_month AND c.level = 2
    GROUP BY b.chart_of_account_code
$$;

CREATE OR REPLACE FUNCTION financial_report.metric_amounts(p_year integer, p_month integer)
RETURNS TABLE (metric text, value numeric)
LANGUAGE sql STABLE
AS $$
    WITH wanted (metric, prefix, factor) AS (VALUES
        ('total_assets', '1', 1), ('current_assets', '11', 1), ('investments', '12', 1),
        ('reinsurance_assets', '13', 1),
        ('total_liabilities', '2', 1), ('technical_reserves', '21', 1),
        ('current_liabilities', '22', 1), ('current_liabilities', '23', 1),
        ('equity', '3', 1), ('equity', '4', 1), ('equity', '5', -1), ('share_capital', '31', 1),
        ('total_income', '4', 1), ('premium_income', '41', 1), ('investment_income', '42', 1),
        ('total_expenses', '5', 1), ('claims_expense', '51', 1), ('commission_expense', '52', 1),
        ('operating_expense', '53', 1), ('reinsurance_expense', '54', 1),
        ('net_premium_income', '41', 1), ('net_premium_income', '54', -1),
        ('underwriting_result', '41', 1), ('underwriting_result', '5', -1),
        ('net_income', '4', 1), ('net_income', '5', -1)
    )
    SELECT w.metric, coalesce(sum(g.amount * w.factor), 0)
    FROM wanted w
    LEFT JOIN financial_report.group_balances(p_year, p_month) g ON starts_with(g.code, w.prefix)
    GROUP BY w.metric
$$;

-- Ratio -> its parts among the amounts above.
CREATE OR REPLACE FUNCTION financial_report.metric_ratios(amounts jsonb)
RETURNS TABLE (metric text, value numeric)
LANGUAGE sql IMMUTABLE
AS $$
    WITH wanted (metric, numerators, denominator) AS (VALUES
        ('claims_ratio', ARRAY['claims_expense'], 'premium_income'),
        ('commission_ratio', ARRAY['commission_expense'], 'premium_income'),
        ('expense_ratio', ARRAY['operating_expense'], 'premium_income'),
        ('combined_ratio', ARRAY['claims_expense', 'commission_expense', 'operating_expense'], 'premium_income'),
        ('reinsurance_ratio', ARRAY['reinsurance_expense'], 'premium_income'),
        ('net_margin', ARRAY['net_income'], 'total_income'),
        ('return_on_equity', ARRAY['net_income'], 'equity'),
        ('return_on_assets', ARRAY['net_income'], 'total_assets'),
        ('current_ratio', ARRAY['current_assets'], 'current_liabilities'),
        ('solvency_ratio', ARRAY['equity'], 'net_premium_income'),
        ('leverage', ARRAY['total_liabilities'], 'equity'),
        ('reserve_coverage', ARRAY['investments', 'reinsurance_assets'], 'technical_reserves'),
        ('investment_yield', ARRAY['investment_income'], 'investments')
    )
    SELECT w.metric, round(
        (SELECT sum((amounts ->> part)::numeric) FROM unnest(w.numerators) part)
            / nullif((amounts ->> w.denominator)::numeric, 0), 6)
    FROM wanted w
$$;

-- Compute and store the metrics of a period as run p_run_id. A run can be repeated and gives the same rows; a later run
-- replaces the rows of an earlier one. Raises an error if the period has no balances; then nothing is changed.
CREATE OR REPLACE FUNCTION financial_report.calculate_financial_metrics(
    p_run_id uuid, p_year integer, p_month integer
) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    balances bigint;
    amounts jsonb;
    warnings text[];
    stored integer;
BEGIN
    PERFORM pg_advisory_xact_lock(807, p_year * 100 + p_month);
    SELECT count(*) INTO balances
    FROM financial_report.legacy_trial_balances WHERE year = p_year AND month = p_month;
    IF balances = 0 THEN
        RAISE EXCEPTION 'no trial balance for %-%; load the period, then calculate again',
            p_year, to_char(p_month, 'FM00');
    END IF;
    INSERT INTO financial_report.calculation_runs (id, status, total_steps, started_at)
    VALUES (p_run_id, 'running', 3, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET status = 'running', completed_steps = 0, total_steps = 3, error_count = 0,
        warning_count = 0, metadata = '{}', started_at = clock_timestamp(), finished_at = NULL;
    DELETE FROM financial_report.financial_metrics WHERE year = p_year AND month = p_month;

    SELECT jsonb_object_agg(a.metric, a.value) INTO amounts
    FROM financial_report.metric_amounts(p_year, p_month) a;
    INSERT INTO financial_report.financial_metrics (year, month, metric, value, run_id)
    SELECT p_year, p_month, a.key, a.value::numeric, p_run_id FROM jsonb_each_text(amounts) a;
    UPDATE financial_report.calculation_runs SET completed_steps = 1 WHERE id = p_run_id;

    INSERT INTO financial_report.financial_metrics (year, month, metric, value, run_id)
    SELECT p_year, p_month, r.metric, r.value, p_run_id FROM financial_report.metric_ratios(amounts) r;
    UPDATE financial_report.calculation_runs SET completed_steps = 2 WHERE id = p_run_id;

    warnings := ARRAY(
        SELECT metric || ': division by zero' FROM financial_report.financial_metrics
        WHERE year = p_year AND month = p_month AND value IS NULL ORDER BY metric);
    IF (amounts ->> 'total_assets')::numeric
            <> (amounts ->> 'total_liabilities')::numeric + (amounts ->> 'equity')::numeric THEN
        warnings := warnings || 'total_assets differs from total_liabilities + equity'::text;
    END IF;
    SELECT count(*) INTO stored
    FROM financial_report.financial_metrics WHERE year = p_year AND month = p_month;
    UPDATE financial_report.calculation_runs
    SET status = 'completed', completed_steps = 3, warning_count = cardinality(warnings),
        finished_at = clock_timestamp(),
        metadata = jsonb_build_object('year', p_year, 'month', p_month, 'balances', balances, 'metrics', stored,
            'warnings', to_jsonb(warnings))
    WHERE id = p_run_id;
    RETURN format('%s metrics for %s-%s, %s warnings', stored, p_year, to_char(p_month, 'FM00'), cardinality(warnings));
END
$$;

GRANT EXECUTE ON FUNCTION
    financial_report.group_balances(integer, integer),
    financial_report.metric_amounts(integer, integer),
    financial_report.metric_ratios(jsonb),
    financial_report.calculate_financial_metrics(uuid, integer, integer)
    TO finance;
