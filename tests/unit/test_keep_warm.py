"""Intervals of the keep-warm rule, and the report of each fault of it."""

from __future__ import annotations

import pytest
from invoke import Exit

from ops import keep_warm


def test_each_fault_of_the_rule_has_its_own_report():
    alias = "arn:aws:lambda:r:1:function:f:live"
    well = {
        "rule": {"Name": "f-keep-warm", "State": "ENABLED"},
        "targets": [keep_warm.wanted_target(alias)],
        "permitted": 1,
    }
    assert keep_warm.find_fault(well, alias) == ""
    assert "is disabled" in keep_warm.find_fault({**well, "rule": {"Name": "f", "State": "DISABLED"}}, alias)
    assert "does not ping" in keep_warm.find_fault({**well, "targets": [keep_warm.wanted_target(f"{alias}2")]}, alias)
    assert "may not invoke" in keep_warm.find_fault({**well, "permitted": False}, alias)
    assert keep_warm.rule_arn({"FUNCTION_NAME": "f"}, alias) == "arn:aws:events:r:1:rule/f-keep-warm"


@pytest.mark.parametrize(
    ("every", "expression"), [("5m", "rate(5 minutes)"), ("1m", "rate(1 minute)"), ("2h", "rate(2 hours)")]
)
def test_interval_becomes_a_rate_expression(every, expression):
    assert keep_warm.rate(every) == expression


@pytest.mark.parametrize("every", ["5", "0m", "5s", "m", "5 m"])
def test_malformed_interval_is_refused(every):
    with pytest.raises(Exit, match="is malformed: expected"):
        keep_warm.rate(every)
