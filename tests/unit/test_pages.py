"""README.md and docs/: what they name exists, and their generated parts are up to date."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess

import botocore.session
import pytest
from botocore import xform_name
from support import pages
from support.helpers import ROOT

import tasks
from ops import docs, picture
from ops.config import ALL_SETTINGS

BLOCKS = [block for page in pages.PAGES for block in pages.blocks(page)]
ALL_PAGES = [*pages.PAGES, ROOT / ".github" / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
# The first page of the runbook is its index.
ENTRIES = [page for page in pages.PAGES if page.parent.name == "runbook" and page != pages.RUNBOOK]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
# In prose a command is in backticks and may be broken over two lines.
PROSE = "".join(pages.FENCE.sub("", page.read_text()) for page in ALL_PAGES)
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PROSE)]
LINES = [line for block in BLOCKS for line in block.text.replace("\\\n", " ").splitlines()]
SOURCES = [
    *(path for folder in ("ops", "handler", "local", "layer", "tests") for path in (ROOT / folder).rglob("*.py")),
    *(ROOT / "env").glob("*.env"),
    *(ROOT / "alarms").glob("*.json"),
    *(ROOT / ".github" / "workflows").glob("*.yml"),
    ROOT / "Makefile",
]
SOURCES_TEXT = "".join(source.read_text() for source in SOURCES)


def test_generated_tables_and_picture_are_up_to_date():
    assert docs.generate(REFERENCE) == REFERENCE, "run `inv docs`"
    assert docs.PICTURE.read_text() == picture.svg(), "run `inv docs`"


@pytest.mark.parametrize(
    ("expected", "printed"),
    [("a\n…\nc 1.2 s\n", "a\nb\nc 9.9 s\n"), ("…\nb\n", "a\nb\n"), ("a\n…\n", "a\nb\n"), ("a\n…\n", "a\n"), ("", "\n")],
)
def test_output_that_is_as_shown_has_no_difference(expected, printed):
    assert pages.difference(expected, printed) == ""


@pytest.mark.parametrize(
    ("expected", "printed"),
    [("a\nd\n", "a\nb\n"), ("b\na\n", "a\nb\n"), ("a\n", "a\nb\n"), ("…\na\n", "a\nb\n"), ("a\nb", "a")],
)
def test_output_that_differs_has_a_difference(expected, printed):
    assert pages.difference(expected, printed)


def test_block_must_fail_if_it_is_marked_so():
    failing = pages.Block(pages.README, 0, "", "false\n", None, "exit-1")
    assert pages.fault(failing, 0, "")
    assert not pages.fault(failing, 1, "")


def test_blocks_have_no_comments_and_only_known_marks():
    """An interactive zsh takes a comment for a command, or for arguments of the one before it."""
    assert [line for line in LINES if re.search(r"(^|\s)#", line)] == []
    assert {block.mark for block in BLOCKS} == {"", pages.AWS_ONLY, pages.FAILS}


def test_blocks_mean_the_same_in_bash_and_zsh():
    """zsh takes `$NAME:live` for `$NAME` in lower case and `ive`, and does not split an expansion into words."""
    assert [line for line in LINES if re.search(r"\$\w+:", line)] == []
    assert [line for line in LINES if re.search(r"\$\{\w+:\+-[\w-]+ ", line)] == []


def test_every_entry_of_the_runbook_has_when_do_verify_and_undo():
    for page in ENTRIES:
        prose = pages.FENCE.sub("", page.read_text())
        for entry in prose.split("\n## ")[1:] or [prose]:
            for word in ("**When**", "**Do**", "**Verify**", "**Undo**"):
                assert word in entry, f"{page.name}: {entry.splitlines()[0]} has no {word}"


def test_manual_commands_need_no_task():
    for page in ENTRIES:
        for part in re.findall(r"<details><summary>Manual commands.*?</details>", page.read_text(), re.DOTALL):
            assert not re.search(r"^(inv|make) ", part, re.MULTILINE), f"{page.name}: {part}"


def words_after(name: str) -> list[list[str]]:
    """Return the words of each command of this name, in blocks and in prose."""
    given = [line.split(" # ")[0] for line in LINES] + [re.sub(r"[\[\]]", " ", span) for span in SPANS]
    found = [re.search(rf"(?:^|&& |\$\(){name} ([^>)]*)", line) for line in given]
    return [shlex.split(match[1].replace("'", "").replace('"', "")) for match in found if match]


def test_every_task_and_option_exists():
    known = {name: one for one in tasks.namespace.to_contexts() for name in (one.name, *one.aliases)}
    for words in words_after("(?:.venv/bin/)?inv"):
        task, *rest = [word for word in words if word not in ("--dry", "--list", "--help")] or ["help"]
        assert task == "TASK" or task in known, words
        options = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert task == "TASK" or options <= known[task].flags.keys(), words


def test_every_command_and_option_of_aws_exists():
    """Also in the blocks that need an account, which no test runs."""
    session = botocore.session.get_session()
    # The CLI's own, and two that it renames.
    general = {"query", "output", "cli-input-json", "zip-file", "notification-endpoint"}
    checked = 0
    for words in words_after("aws"):
        words = words[2:] if words[:1] == ["--profile"] else words
        words = words[: words.index("$(aws")] if "$(aws" in words else words
        options = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        if len(words) < 2 or words[0] in ("configure", "sso") or words[0].startswith("-"):
            continue
        service, operation = words[:2]
        model = session.get_service_model(service)
        if operation == "wait":
            waiters = session.get_waiter_model(service).waiter_names
            assert words[2] in {xform_name(name, "-") for name in waiters}, words
            continue
        names = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in names, words
        taken = model.operation_model(names[operation]).input_shape
        known = {xform_name(name, "-") for name in taken.members} if taken else set()
        assert options <= known | general, words
        checked += 1
    assert checked > 40


def test_manual_commands_of_the_roles_fill_all_placeholders(tmp_path):
    """The commands need an account; here a function takes the place of the AWS CLI."""
    (block,) = (one for one in BLOCKS if "role-policy" in one.text and one.page.name == "first-deployment.md")
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    known = {setting.name: "given" for setting in ALL_SETTINGS} | {"ENV": "prod", "PATH": os.environ["PATH"]}
    script = f"set -e\naws() {{ echo 123456789012; }}\n{block.text}"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=known, check=True, stdout=subprocess.DEVNULL)
    made = list((tmp_path / "build").glob("*.json"))
    assert len(made) == 6
    for path in made:
        json.loads(path.read_text())
        assert "${" not in path.read_text(), path.name


def test_every_verb_of_make_exists():
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in words_after("make"):
        after_folder = words[words.index("-C") + 2 :] if "-C" in words else words
        assert {word for word in after_folder if not re.match(r"-|[A-Z_]+=", word)} <= targets, words


def test_reference_lists_exactly_the_settings():
    names = {setting.name for setting in ALL_SETTINGS}
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", REFERENCE, re.MULTILINE)) == names


def test_reference_lists_exactly_the_events_of_the_function():
    handler = "".join(path.read_text() for path in (ROOT / "handler").glob("*.py"))
    logged = set(re.findall(r'(?:log\.write\(|log_once\(ctx, |log_refusal\(ctx, )"(\w+)"', handler))
    ends = set(re.findall(r'"(closing_\w+)"', (ROOT / "handler" / "period.py").read_text()))
    assert logged | ends == set(docs.EVENTS)


def test_every_test_that_a_page_names_exists():
    for name in re.findall(r"`(test_\w+)`", (ROOT / "docs" / "local-cloud.md").read_text()):
        assert list((ROOT / "tests").rglob(f"{name}.py")), name


def test_every_name_in_capitals_is_a_setting_or_a_word_of_the_sources():
    used = set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", PROSE)) - {setting.name for setting in ALL_SETTINGS}
    assert [name for name in sorted(used) if name not in SOURCES_TEXT] == []


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"


def test_every_page_that_a_program_names_exists():
    """Messages, help, comments and settings of the product that name a page, with or without a heading."""
    for source in SOURCES:
        for file, anchor in re.findall(r"\b((?:README|docs/[\w/-]+|CHANGELOG)\.md)(?:#([\w-]+))?", source.read_text()):
            assert (ROOT / file).exists(), f"{source.relative_to(ROOT)} names {file}"
            assert not anchor or anchor in anchors(ROOT / file), f"{source.relative_to(ROOT)} names {file}#{anchor}"


def anchors(page) -> set[str]:
    headings = pages.HEADING.findall(pages.FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in headings}
