"""The view of a closing, as lines and as the picture of a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from ops.closing_view import Answer, View, lines, picture, step_states

CALLS = [
    ("DailyClosing/2025-01-31/run", "suspended", ""),
    ("ClosingPeriod/2025-01/close", "failed 7 times, next try at 20:01:00 UTC", "[500] ORA: [no] listener"),
]
ADVICE = "the closing of 2025-01-31 is suspended. Next: `inv status --env prod --date 2025-01-31 --watch`"
VIEW = View(CALLS, "wait RUNNING", "no answer", 1000.0, Answer("GNS_1 is RUNNING", ADVICE, 7200.0, 4595.0), False)


def test_lines_show_each_call_job_step_time_and_the_next_command():
    assert lines(VIEW, 4600.0) == [
        "Restate   DailyClosing/2025-01-31/run: suspended",
        "          ClosingPeriod/2025-01/close: failed 7 times, next try at 20:01:00 UTC; [500] ORA: [no] listener",
        "Genius    GNS_1 is RUNNING",
        "step      wait RUNNING: no answer",
        "time      has run for 1:00:00, usually 2:00:00",
        ADVICE,
    ]


def test_closed_date_has_the_advice_alone():
    closed = "2025-01-31 is closed. Nothing is to be done."
    assert lines(View([], "", "", None, Answer("", closed, None, 0), True), 0) == [closed]


def drawn(**options) -> str:
    console = Console(file=io.StringIO(), width=140, **options)
    console.print(picture(VIEW, 4600.0))
    return console.file.getvalue()


def test_picture_has_the_progress_and_takes_an_error_as_it_is(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    text = drawn(force_terminal=True)
    assert "\033[" in text
    plain = drawn()
    assert "wait RUNNING  1:00:00 of usually 2:00:00" in plain and "ORA: [no] listener" in plain
    assert "GNS_1 is RUNNING, asked 5.0 s ago" in plain
    assert "failed 7 times" in plain and "error: no answer" in plain and ADVICE[:40] in plain


def test_picture_does_not_wait_for_the_function():
    console = Console(file=io.StringIO(), width=140)
    console.print(picture(VIEW._replace(answer=None), 4600.0))
    assert "wait RUNNING  1:00:00" in console.file.getvalue() and "usually" not in console.file.getvalue()


def test_each_step_has_its_state():
    assert step_states("") == [("genius", "waits"), ("ledger", "waits"), ("metrics", "waits")]
    assert step_states("other job GNS_1") == [("genius", "runs"), ("ledger", "waits"), ("metrics", "waits")]
    assert step_states("ledger") == [("genius", "done"), ("ledger", "runs"), ("metrics", "waits")]
    assert step_states("metrics") == [("genius", "done"), ("ledger", "done"), ("metrics", "runs")]
    assert "genius   runs" in drawn()


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\033[3" not in drawn(force_terminal=True) and "\033[9" not in drawn(force_terminal=True)
