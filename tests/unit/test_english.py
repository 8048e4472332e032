"""The check of words and docstrings of `make lint`: ops/english.py."""

from __future__ import annotations

import pytest

from ops import english


@pytest.mark.parametrize(
    "text",
    [
        "Look at it",
        "it says so",
        "a job's verdict",
        "run it by hand",
        "by_hand = 1",
        "The tick of 20:00",
        "stands",
        "def test_it_says_so():",
        "    # What a task changes",
        '"""What follows',
        "-- What follows",
    ],
)
def test_word_that_is_not_used_is_found_with_its_line(text):
    assert [line for line, _ in english.unused_words(f"first line\n{text}\n")] == [2]


@pytest.mark.parametrize(
    "text",
    [
        "look it up",
        "a look-up",
        "the stand-in",
        "def stand_in():",
        "understand",
        "a ticket",
        "shelter",
        "in both directions",
        "# The changes of a task, and what it prints",
        "## What it cannot prove",
    ],
)
def test_other_words_are_accepted(text):
    assert not list(english.unused_words(text))


@pytest.mark.parametrize(
    ("docstring", "accepted"),
    [
        ("Return the jobs of a period.", True),
        ("Connect once; see `connected`.", True),
        ("What Genius still lists.", False),
        ("Whether it runs.", False),
        ("ORA-01017: refused.", False),
        ("name: only if a check has several.", False),
        ("{name: value} of a file.", False),
        ("Genius' jobs.", False),
    ],
)
def test_docstring_must_begin_with_a_verb(docstring, accepted):
    found = list(english.docstrings_without_verb(f'def jobs():\n    """{docstring}"""\n'))
    assert (found == []) == accepted


def test_only_public_functions_need_a_verb():
    text = '"""A module."""\nclass Job:\n    """A job."""\n    def _row(self):\n        """A row."""\n'
    assert not list(english.docstrings_without_verb(text + 'def test_rule():\n    """A copy fails."""\n'))


def test_faults_name_file_and_line(tmp_path):
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "jobs.py").write_text('# It stands here.\ndef jobs():\n    """The jobs."""\n')
    assert [one.partition(": ")[0] for one in english.faults(tmp_path)] == ["ops/jobs.py:1", "ops/jobs.py:2"]
