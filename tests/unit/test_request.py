from datetime import date

import pytest

from handler.request import check_request, real_date

TODAY = date(2025, 2, 1)


@pytest.mark.parametrize(
    "key", ["2025-02-30", "20250131", "2025-W05-5", "2025-1-31", " 2025-01-31", "2025-01-31\n", "٢٠٢٥-٠١-٣١", "", "x"]
)
def test_only_a_real_date_in_the_one_form_is_a_key(key):
    with pytest.raises(ValueError, match="is not a date; expected one that exists, as YYYY-MM-DD"):
        real_date(key)


def test_a_request_gets_all_defaults():
    assert check_request("2025-01-31", {"date": "2025-01-31"}, TODAY) == {
        "protocol": "1.0",
        "date": "2025-01-31",
        "userId": "adm",
        "skipGeniusClosing": False,
        "skipSyncTrialBalance": False,
        "skipFinancialMetrics": False,
        "resume": False,
        "adopt": False,
        "fromStep": None,
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
    ],
)
def test_a_fault_is_named(key, body, fault):
    with pytest.raises(ValueError, match=fault):
        check_request(key, body, TODAY)
