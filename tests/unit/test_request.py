from datetime import date

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from handler import request
from handler.request import (
    check_close,
    check_inspect,
    check_request,
    check_resolve,
    check_trigger,
    decode,
    protocol,
    real_date,
)

TODAY = date(2025, 2, 1)


@pytest.mark.parametrize(
    "key", ["2025-02-30", "20250131", "2025-W05-5", "2025-1-31", " 2025-01-31", "2025-01-31\n", "٢٠٢٥-٠١-٣١", "", "x"]
)
def test_only_a_real_date_in_the_one_form_is_a_key(key):
    with pytest.raises(ValueError, match="is not a date; expected one that exists, as YYYY-MM-DD"):
        real_date(key)


def test_a_request_gets_all_defaults():
    assert check_request("2025-01-31", {"date": "2025-01-31"}, TODAY) == {
        "protocol": protocol(),
        "date": "2025-01-31",
        "userId": "adm",
        "skipGeniusClosing": False,
        "skipSyncTrialBalance": False,
        "skipFinancialMetrics": False,
        "resume": False,
        "adopt": False,
        "despiteHold": False,
        "fromStep": None,
        "procedure": "run",
    }


def test_today_is_allowed():
    assert check_request("2025-02-01", {"date": "2025-02-01"}, TODAY)["date"] == "2025-02-01"


@pytest.mark.parametrize(
    ("key", "body", "fault"),
    [
        ("2025-02-02", {"date": "2025-02-02"}, "in the future"),
        ("2025-01-31", {"date": "2025-01-30"}, "is not the key"),
        ("2025-01-31", {}, "is not the key"),
        ("2025-01-31", {"date": "2025-01-31", "userId": "o'neill"}, "userId"),
        ("2025-01-31", {"date": "2025-01-31", "userId": "x" * 31}, "userId"),
        ("2025-01-31", {"date": "2025-01-31", "userId": None}, "userId"),
        ("2025-01-31", {"date": "2025-01-31", "fromStep": "begin"}, "expected one of genius, ledger, metrics"),
        ("2025-01-31", {"date": "2025-01-31", "resume": 1}, "expected true or false"),
        ("2025-01-31", {"date": "2025-01-31", "skipGenius": True}, "unknown field 'skipGenius'"),
        ("2025-01-31", {"date": "2025-01-31", "skipGeniusClosing": "no"}, "expected true or false"),
        ("2025-01-31", ["2025-01-31"], "must be a JSON object"),
        ("2025-01-31", None, "must be a JSON object"),
        ("1025-01-31", {"date": "1025-01-31"}, "is before 2000-01-01"),
        ("2025-01-31", {"date": "2025-01-31", "protocol": "2.0"}, f"protocol 2.0 is newer than {protocol()}"),
        ("2025-01-31", {"date": "2025-01-31", "protocol": 1}, f"expected a version such as {protocol()!r}"),
    ],
)
def test_a_fault_is_named(key, body, fault):
    with pytest.raises(ValueError, match=fault):
        check_request(key, body, TODAY)


@pytest.mark.parametrize(
    ("period", "day", "fault"),
    [
        ("2025-06", "2031-01-31", "is not in the period 2025-06"),
        ("2031-01", "2031-01-31", "in the future"),
        ("2025-13", "2025-12-31", "is not a period"),
        ("2025-01%' OR '1'='1", "2025-01-31", "is not a period"),
        ("2025-01", None, "is not a date"),
    ],
)
def test_only_a_past_date_of_its_period_is_closed(period, day, fault):
    for check in (check_close, check_inspect):
        with pytest.raises(ValueError, match=fault):
            check(period, {"date": day}, TODAY)


def test_fields_of_a_newer_minor_version_are_dropped_and_those_of_an_older_one_get_defaults():
    newer = {"protocol": "1.9", "date": "2025-01-31", "newField": {"a": 1}}
    assert check_close("2025-01", newer, TODAY) == check_close("2025-01", {"date": "2025-01-31"}, TODAY)
    assert check_trigger("main", {"protocol": "1.9", "generation": 3, "newField": 1}) == 3
    with pytest.raises(ValueError, match="unknown field 'newField'"):
        check_close("2025-01", {**newer, "protocol": "1.0"}, TODAY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({*request.FIELDS, "generation", "job", "as", "who"})
BODIES = JSON | st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["2025-01-31", "1.0", "failed"]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(key=st.text() | st.sampled_from(["2025-01", "2025-01-31", "main"]), body=BODIES)
def test_checks_raise_value_error_in_one_line_or_accept(key, body):
    checks = [
        lambda: check_request(key, body, TODAY),
        lambda: check_close(key, body, TODAY),
        lambda: check_inspect(key, body, TODAY),
        lambda: check_resolve(key, body),
        lambda: check_trigger(key, body),
    ]
    for check in checks:
        try:
            check()
        except ValueError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 400


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_bytes_are_json_or_refused(body):
    try:
        decode(body)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"NaN", "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1, "a": 2}', "occurs twice"),
        (b"\xff", "not UTF-8"),
        (b'{"a":' * 700, "nested too deeply|is not JSON"),
        (b"1" * 5000, "at most 4096"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)
def test_body_that_readers_could_take_in_two_ways_is_refused(body, fault):
    with pytest.raises(ValueError, match=fault):
        decode(body)
