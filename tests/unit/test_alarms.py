"""The alarms' documents, and how they count closings that end badly or do not begin."""

from __future__ import annotations

import json

import pytest
from support.helpers import ROOT
from support.logpattern import matches

from ops import alarms

CFG = {"FUNCTION_NAME": "finance-closing"}
TOPIC = "arn:aws:sns:ap-southeast-3:000000000000:ops"
WANTED = alarms.wanted_alarms(CFG, TOPIC)
# Alarms on AWS's own metrics, without an event of the function's log.
METRICS = {"errors", "throttles"}
TIMED_OUT = "2026-01-02T03:04:05.678Z 5a3c3f2e-0000-4000-8000-000000000000 Task timed out after 900.10 seconds"


def test_time_out_is_counted():
    assert matches(WANTED["time-outs"]["filter"]["filterPattern"], TIMED_OUT)
    assert not matches(WANTED["no-closing"]["filter"]["filterPattern"], TIMED_OUT)
    assert not matches(
        WANTED["no-closing"]["filter"]["filterPattern"], '{"event": "step", "message": "closing_completed"}'
    )


def test_no_closing_for_26_hours_is_an_alarm():
    alarm = WANTED["no-closing"]["alarm"]
    assert alarm["Period"] * alarm["EvaluationPeriods"] == 26 * 3600 and alarm["DatapointsToAlarm"] == 26
    # CloudWatch's limit for periods of an hour and longer.
    assert alarm["Period"] >= 3600 and alarm["Period"] * alarm["EvaluationPeriods"] <= 604_800
    assert (alarm["TreatMissingData"], alarm["ComparisonOperator"]) == ("breaching", "LessThanThreshold")


@pytest.mark.parametrize("name", sorted(WANTED))
def test_alarm_has_a_next_step_and_a_topic(name):
    alarm = WANTED[name]["alarm"]
    assert alarm["AlarmName"] == f"finance-closing-{name}" and alarm["AlarmActions"] == [TOPIC]
    message, _, command = alarm["AlarmDescription"].partition(" Next: ")
    assert message.endswith(".") and set(message) & set(",;:") and "${" not in json.dumps(WANTED[name])
    assert command.startswith(("inv ", "make ", "aws "))
    if "filter" in WANTED[name]:
        (made,) = WANTED[name]["filter"]["metricTransformations"]
        assert (made["metricName"], made["metricNamespace"]) == (alarm["MetricName"], alarm["Namespace"])


def test_every_event_that_an_alarm_counts_is_logged_by_the_handler():
    source = "".join(path.read_text() for path in (ROOT / "handler").glob("*.py"))
    for name in set(WANTED) - METRICS - {"time-outs"}:
        event = WANTED[name]["filter"]["filterPattern"].split('"')[1]
        assert f'"{event}"' in source, name


def test_table_has_the_minutes_of_the_settings_and_of_cloudwatch():
    rows = {row[0]: row for row in alarms.signals()}
    assert set(rows) == set(WANTED)
    minutes = {name: row[1] for name, row in rows.items()}
    assert (minutes["step-stuck"], minutes["no-closing"], minutes["closing-failed"]) == ("10", "1560", "5")
    # 0.5 + 1 + 2 + … + 32 + 60 + 60 seconds until the tenth try.
    assert minutes["closing-pauses"] == "8" and minutes["errors"] == "10"
    assert rows["closing-failed"][3] == "`inv history --env ENV`"
