"""The report's page and CSV file from answers of the function, and what a hostile text can do there: nothing."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from datetime import date
from decimal import Decimal
from types import SimpleNamespace

import pytest
from invoke import Exit

from ops import closings, environment, ping, report, report_page
from ops.report_page import Account

PERIOD = "2025-01"
IMAGE = '"><img src=http://192.0.2.1/x onerror=alert(1)>'
MARKUP = ["<script>alert(1)</script>", IMAGE, "{{ 7654321 * 9 }}", "</style>", "-->"]
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", 'A,"B"\nC']
CONTROLS = ["\x1b[31mred\x1b[0m", "a\x00b\x07", "\u202egnp.exe"]
# More digits than Python's default of 28, and a cent that a float would lose.
LARGE = "123456789012345678901234567890123456.01"
SCHEDULE = {"DAILY_CLOSING_SCHEDULE_TIME": "20:00", "SCHEDULE_ZONE": "Asia/Jakarta", "CLOSING_DAY_OFFSET": "0"}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def run(day: str, status: str = "succeeded", **changed) -> dict:
    steps = dict.fromkeys(report_page.STEPS, "succeeded" if status == "succeeded" else "failed")
    row = {"id": f"run-{day}", "owner": "inv", "closing_date": day, "user_id": "adm", "job": "GNS", "status": status}
    row |= {"message": "", "detail": {}, "started_at": f"{day} 13:00:00+00:00", "ended_at": f"{day} 13:02:00+00:00"}
    return {**row, **steps, **changed}


def header(**changed) -> dict:
    totals = dict.fromkeys(report_page.COLUMNS.values(), "10.00")
    return {
        "ok": True, "version": "7", "period": PERIOD, "previous": "2024-12", "zone": "Asia/Jakarta", "moment": "m",
        "run": "run-2025-01-31", "job": "GNS_202501_X", "ledgerAt": "2025-01-31 13:01:00+00",
        "totals": {"genius": {"rows": 5, **totals}, "postgres": {"rows": 5, **totals, "end_debit": "10.01"}},
        "findings": [], "warnings": [], "metrics": {"values": [], "error": None}, "runs": [run("2025-01-31")],
        **changed,
    }  # fmt: skip


# Two pages; the second one repeats an account of the first.
PAGES = [
    {
        "ok": True,
        "accounts": {"1": ["Assets", None, True], "11": ["Cash", "1", True]},
        "rows": [
            ["1", "001", "0.00", LARGE, "0.01", LARGE, "0.00"],
            ["11", "001", "-1.00", LARGE, "0.01", LARGE, None],
        ],
        "next": ["11", "001"],
    },
    {
        "ok": True,
        "accounts": {"11": ["Cash", "1", True], "X": ["Unknown", None, False]},
        "rows": [["11", "002", "0.00", "0.02", "0.00", "0.02", "5.05"], ["X", "001", "0", "0", "0", "0", "-7.5"]],
        "next": None,
    },
]


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Return a function that writes a report from answers and returns page, rows of the CSV and the paths."""
    monkeypatch.setattr(report, "FOLDER", tmp_path / "reports")
    monkeypatch.setattr(closings, "state_of", lambda *_: {})
    monkeypatch.setattr(ping, "live_description", lambda target: "0123 git abc")
    target = SimpleNamespace(cfg=SCHEDULE, env="prod")

    def write(head=None, pages=PAGES):
        answers = iter([head or header(), *pages])
        monkeypatch.setattr(ping, "send", lambda *_: json.loads(json.dumps(next(answers))))
        page, table = report.write(target, PERIOD)
        return page.read_text(), list(csv.reader(table.read_text("utf-8-sig").splitlines(True))), (page, table)

    return write


def test_files_are_private_and_complete(written, tmp_path):
    page, _, files = written()
    assert [file.name for file in files] == ["prod-2025-01.html", "prod-2025-01.csv"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert sorted(tmp_path.joinpath("reports").iterdir()) == sorted(files)
    assert page.endswith("</html>") and page.count("<details>") == page.count("</details>")


def test_amounts_are_exact(written):
    page, rows, _ = written()
    assert rows[0] == list(report.HEAD)
    assert rows[1] == ["1", "Assets", "", "001", "0.00", LARGE, "0.01", LARGE, "0.00"]
    assert rows[3] == ["11", "Cash", "1", "002", "0.00", "0.02", "0.00", "0.02", "5.05"] and len(rows) == 5
    # Both branches of 11, and the change against the period before.
    assert "123,456,789,012,345,678,901,234,567,890,123,456.03" in page
    assert "123,456,789,012,345,678,901,234,567,890,123,450.98" in page
    assert "−1.00" in page and ">7.50<" in page and "X Unknown (not in the chart)" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0.00"), ("-1234.5", "−1,234.50"), ("0.001", "0.001"), ("-0.00", "−0.00"), ("1E+3", "1,000.00"),
     (f"-{LARGE}", "−123,456,789,012,345,678,901,234,567,890,123,456.01"), ("9" * 39, "999," * 12 + "999.00"),
     ("NaN", "NaN")],
)  # fmt: skip
def test_money_has_two_decimals_and_all_its_digits(value, text):
    assert report_page.money(value) == text


def test_head_and_totals_are_shown(written):
    page, *_ = written(header(runs=[run("2025-01-30", "failed", message="ORA-1\nat line 2"), run("2025-01-31")]))
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for words in ("Run run-2025-01-31", "Job in Genius GNS_202501_X", "Asked for by adm",
                  "Started 2025-01-31 20:00:00 WIB", "Ended 2025-01-31 20:02:00 WIB", "7, 0123 git abc",
                  "end debit 10.00 10.01 DIFFERENT", "start debit 10.00 10.00 equal",
                  "30 failed ORA-1 at line 2", "31 closed", "Findings None."):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("text", [*MARKUP, *FORMULAS, *CONTROLS])
def test_hostile_text_is_harmless(written, text):
    found = {"kind": "k", "count": 1, "text": text, "refused": False, "places": [[text, text, {"start_debit": "1"}]]}
    rows = [run("2025-01-30", "failed", message=text, user_id=text), run("2025-01-31", user_id=text)]
    values = [[PERIOD, text, "1.5"], ["2024-12", text, None]]
    head = header(findings=[found], warnings=[text], runs=rows, job=text, metrics={"values": values, "error": None})
    account = {"ok": True, "accounts": {text: [text, text, False]}, "rows": [[text, text, "1", "0", "0", "1", None]]}
    page, table, _ = written(head, [{**account, "next": None}])
    clean, *_ = written()
    for tag in ("<script", "<img", "</style", "-->"):
        assert page.lower().count(tag) == clean.lower().count(tag)
    assert (
        not re.search(r"\{\{|[\x00-\x09\x0b-\x1f\x7f\u202e]", page.replace("{{ 7654321 * 9 }}", ""))
        and "68888889" not in page
    )
    for value in (one for row in table for one in row):
        assert not value.startswith(("=", "+", "@", "\t", "\r")) and (
            value[:1] != "-" or report.NUMBER.fullmatch(value)
        )
        assert value.isprintable()
    assert len(table) == 2


def test_hostile_text_of_a_difference_and_of_an_error_is_harmless(monkeypatch):
    (line,) = report.difference_lines([["\x1b]0;x\x07", "0\n1", {"end_debit": [LARGE, "0.02"]}]])
    assert line.isprintable() and line.endswith("difference +123456789012345678901234567890123455.99")
    monkeypatch.setattr(ping, "send", lambda *_: {"ok": False, "error": "\x1b[2J\nsee `inv next --env ENV`"})
    with pytest.raises(Exit) as stop:
        report.ask(SimpleNamespace(env="prod"), "report", {})
    assert stop.value.message.isprintable() and "`inv next --env prod`" in stop.value.message


def test_old_version_has_no_report(monkeypatch):
    monkeypatch.setattr(ping, "send", lambda *_: {"statusCode": 404})
    with pytest.raises(Exit, match="the live version has no report; run `inv deploy --env prod`"):
        report.ask(SimpleNamespace(env="prod"), "report", {})


def test_report_that_breaks_leaves_the_one_before(written, tmp_path):
    before, *_ = written()
    with pytest.raises(Exit, match="run it again"):
        written(pages=[PAGES[0], {"ok": False, "error": "replaced; run it again"}])
    assert (tmp_path / "reports" / "prod-2025-01.html").read_text() == before
    assert len(list((tmp_path / "reports").iterdir())) == 2


def test_tree_lists_each_account_once_whatever_the_chart():
    def codes(*pairs):
        flat = report_page.tree({code: Account(code, "", parent, True) for code, parent in pairs})
        assert sum(one.is_parent for one in flat) == sum(one.closes for one in flat)
        return [(one.code, one.depth) for one in flat]

    assert codes(("1", None), ("2", None), ("12", "1"), ("11", "1"), ("111", "11")) == [
        ("1", 0), ("11", 1), ("111", 2), ("12", 1), ("2", 0)
    ]  # fmt: skip
    assert codes(("a", "gone"), ("b", "b")) == [("a", 0), ("b", 0)]
    assert sorted(codes(("a", "b"), ("b", "a"), ("c", None))) == [("a", 0), ("b", 0), ("c", 0)]
    assert codes(*[(f"{n:05}", f"{n - 1:05}" if n else None) for n in range(3000)])[-1] == ("02999", 2999)


def test_calendar_names_the_state_of_each_date():
    skipped = run("2025-01-03", genius="skipped", metrics="skipped")
    rows = [
        run("2025-01-02"), skipped, run("2025-01-04", "failed", message="no license"), run("2025-01-06"),
        run("2025-01-08", "blocked", message="job unknown"),
        run("2025-01-09", "failed", started_at="2025-01-09 12:00:00+00:00"), run("2025-01-09"),
    ]  # fmt: skip
    by_siti, by_budi = {"who": "siti", "reason": "patch"}, {"who": "budi", "reason": "audit"}
    schedule = {
        "covered": [{"from": "2025-01-12", "to": "2025-01-12", "by": "2025-01-13"}],
        "leftOut": [{"from": "2025-01-10", "to": "2025-01-11"}],
        "heldDates": [
            {"from": "2025-01-05", "to": "2025-01-06", **by_budi},
            {"from": "2025-01-11", "to": "2025-01-12", **by_budi},
            {"from": "2025-01-20", "to": "2025-01-22", **by_siti},
        ],
    }
    days = report_page.calendar(PERIOD, rows, schedule, date(2025, 1, 21))
    assert len(days) == 31
    found = {int(one["date"][8:]): (one["state"], one["words"]) for one in days}
    assert found[1] == ("covered", "covered by 2025-01-02")
    assert found[2] == ("closed", "") and found[9] == ("closed", "2 runs")
    assert found[3] == ("partly closed", "genius skipped, metrics skipped; covered by 2025-01-06")
    assert found[4] == ("failed", "no license; covered by 2025-01-06")
    assert found[8] == ("failed", "blocked; job unknown; covered by 2025-01-09")
    assert found[5] == ("covered", "covered by 2025-01-06; held by budi: audit")
    assert found[6] == ("closed", "held by budi: audit")
    assert found[10] == ("missed", "left out after an outage")
    assert found[11] == ("missed", "left out after an outage; held by budi: audit")
    assert found[12] == ("covered", "covered by 2025-01-13; held by budi: audit")
    assert found[13] == found[19] == ("missed", "no closing began")
    assert found[20] == found[22] == ("held", "held by siti: patch")
    assert found[23] == found[31] == ("not due", "")


def test_newest_due_date_follows_the_schedule():
    # 2025-01-20T20:00 in Jakarta.
    evening = 1737378000
    assert report.newest_due(SCHEDULE, evening - 1) == date(2025, 1, 19)
    assert report.newest_due(SCHEDULE, evening) == date(2025, 1, 20)
    assert report.newest_due({**SCHEDULE, "CLOSING_DAY_OFFSET": "-1"}, evening) == date(2025, 1, 19)


def test_durations_have_the_median_of_complete_closings():
    rows = [
        run(f"2025-01-0{n}", ended_at=f"2025-01-0{n} 13:0{n}:00+00:00") for n in (3, 1, 2)
    ] + [run("2025-01-04", "failed"), run("2025-01-05", "running", ended_at=None)]  # fmt: skip
    found = report_page.durations(rows)
    assert (found["median"], found["complete"]) == ("2:00", 3)
    assert [one["height"] for one in found["chart"]["bars"]] == [20.0, 40.0, 60.0, 40.0]
    assert found["chart"]["median"] == 20.0
    assert report_page.durations([])["lines"] == []


def test_metrics_keep_their_digits_and_negative_bars_hang_below_zero():
    (one,) = report_page.metrics([["2024-11", "m", "-2"], ["2024-12", "m", LARGE], [PERIOD, "m", "0.1"]], PERIOD)
    assert one["value"] == "0.1" and one["change"] == Decimal("-123456789012345678901234567890123455.91")
    (two,) = report_page.metrics([["2024-11", "m", "-2"], ["2024-12", "m", None], [PERIOD, "m", "4"]], PERIOD)
    assert (two["before"], two["change"]) == (None, None)
    chart = two["chart"]
    assert [(bar["y"], bar["height"]) for bar in chart["bars"]] == [(16.0, 8.0), (16.0, 0.0), (0.0, 16.0)]
    assert chart["zero"] == 16.0
    (odd,) = report_page.metrics([[PERIOD, "m", "NaN"]], PERIOD)
    assert odd["chart"]["bars"][0]["height"] == 0.0


def test_metrics_older_than_the_trial_balance_are_named():
    def source(*metrics: str) -> str:
        newest, own, oldest = (run(f"2025-01-{31 - n}", metrics=one) for n, one in enumerate(metrics))
        return report_page.metrics_source([newest, own, oldest], own["id"])

    of_own = source("skipped", "succeeded", "succeeded")
    assert of_own == "Computed by the closing of 2025-01-30, run run-2025-01-30."
    assert source("succeeded", "succeeded", "failed").endswith("run run-2025-01-31.")
    assert "run run-2025-01-29. The trial balance above is newer" in source("failed", "skipped", "succeeded")
    assert source("failed", "skipped", "failed") == "No closing has computed the metrics of this period."


def test_hold_in_force_holds_the_dates_from_its_begin_to_the_next(monkeypatch):
    target = SimpleNamespace(cfg=SCHEDULE)
    earlier = {"from": "2025-01-05", "to": "2025-01-06", "who": "budi", "reason": "audit"}
    # The schedule time of 2025-01-20 has passed; that of 2025-01-21 has not.
    for at, first in (("2025-01-20T20:30:00+07:00", "2025-01-21"), ("2025-01-20T19:30:00+07:00", "2025-01-20")):
        found = {"hold": {"who": "siti", "reason": "patch", "at": at, "until": None}, "heldDates": [earlier]}
        monkeypatch.setattr(closings, "state_of", lambda *_, found=found: found)
        state, _ = report.schedule_state(target, date(2025, 1, 22))
        assert state["heldDates"] == [earlier, {"from": first, "to": "2025-01-23", "who": "siti", "reason": "patch"}]


def test_schedule_that_cannot_be_read_is_a_note_and_a_hold_is_shown(written, monkeypatch):
    def silent(*_):
        raise Exit("Restate does not answer")

    monkeypatch.setattr(closings, "state_of", silent)
    assert "the schedule cannot be read" in written()[0]
    hold = {"who": "siti", "reason": "Oracle <patch>", "at": "2025-01-20T10:00:00+07:00", "until": None}
    monkeypatch.setattr(closings, "state_of", lambda *_: {"hold": hold})
    assert "closings are held by siti since 2025-01-20T10:00:00+07:00: Oracle &lt;patch&gt;" in written()[0]


@pytest.mark.skipif(not BROWSER, reason="needs Chromium: chromium, google-chrome or chromium-browser on PATH")
def test_browser_opens_and_expands_the_page_without_errors_and_requests(written, tmp_path):
    values = [["2024-12", "ratio", "1.5"], [PERIOD, "ratio", "-2.5"]]
    page, *_ = written(header(warnings=[IMAGE], metrics={"values": values, "error": None}))
    # A script of the test's own in a copy of the page, with the right to run there.
    nonce = re.search(r'<script nonce="([^"]+)">', page)[1]
    first = f"""<script nonce="{nonce}">
      window.faults = [];
      addEventListener("error", (event) => faults.push(String(event.message)));
      addEventListener("securitypolicyviolation", (event) => faults.push(event.blockedURI));
      addEventListener("load", () => {{
        const count = () => document.querySelectorAll("#tree details[open]").length;
        const seen = [count()];
        document.querySelector("#tree summary").click(); seen.push(count());
        document.getElementById("close").click(); seen.push(count());
        document.getElementById("open").click(); seen.push(count());
        dispatchEvent(new Event("beforeprint"));
        seen.push(document.querySelectorAll("details:not([open])").length);
        document.title = JSON.stringify({{
            seen, faults, bars: document.querySelectorAll("rect").length,
            requests: performance.getEntriesByType("resource").length,
        }});
      }});</script></head>"""
    copy = tmp_path / "probe.html"
    copy.write_text(page.replace("</head>", first))
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", copy.as_uri()]
    environ = environment.clean(HOME=str(tmp_path))
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=120)
    found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert found["seen"] == [0, 1, 0, 1, 0]
    assert (found["faults"], found["requests"], found["bars"]) == ([], 0, 3)
    assert "CONSOLE" not in done.stderr, done.stderr
