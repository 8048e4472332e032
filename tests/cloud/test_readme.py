"""README.md: each block runs and prints what it shows, and what it names is there."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
from support import checkout
from support import readme_script as readme
from support.checkout import STATE
from support.helpers import ROOT, run_rows

import tasks
from ops import config
from ops import docs as made
from ops.config import ALL_SETTINGS

TEXT = readme.README.read_text()
PAGE = readme.blocks(TEXT)
# In prose a command stands in backticks and may be broken over two lines.
PROSE = readme.FENCE.sub("", TEXT)
OTHER_PAGES = "".join((ROOT / name).read_text() for name in (".github/CONTRIBUTING.md", "CHANGELOG.md"))
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PROSE + OTHER_PAGES)]
LINES = [line for block in PAGE for line in block.text.replace("\\\n", " ").splitlines()]
CODE = r"\b(?:(?:DPI|DPY|ORA)-\d+|META\d+|[A-Z]\w+(?:Exception|OutOfMemory|Accepted))\b"
# Names in capitals that are no keys of an environment.
OTHER_NAMES = {
    "AC_GLOPENBALANCE",
    "AWS_DEPLOY_ROLE_ARN",
    "AWS_INVOKE_ROLE_ARN",
    "CREATE_JOB",
    "DBMS_SCHEDULER",
    "ENV_FILE",
    "EXPIRE_TIME",
    "INSTANT_CLIENT",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A reader's shell in a copy of the repository, with a cloud of its own that is `local` and `prod`."""
    from local import cloud

    folder, own = tmp_path_factory.mktemp("reader") / "finance-closing", STATE.with_name("test-readme")
    checkout.copy(folder)
    shutil.copy(folder / "env" / "local.env", folder / "env" / "prod.env")
    there = cloud.Cloud(own, report=lambda line: None)
    there.reset()
    yield readme.Terminal(PAGE, folder, tmp_path_factory.mktemp("terminal"), {"FINANCE_CLOSING_STATE": str(own)})
    there.reset()


@pytest.fixture(scope="module")
def cfg(run) -> dict[str, str]:
    """The settings of the reader's environment, once its cloud is up."""
    run.result(PAGE[0])
    return config.load("local", run.environ)


@pytest.mark.parametrize("block", [one for one in PAGE if one.runs], ids=lambda one: f"{one.number} {one.heading}")
def test_a_block_runs_and_prints_what_stands_below_it(run, block):
    wrong = readme.fault(block, *run.result(block))
    assert not wrong, wrong


def test_no_secret_was_printed(run, cfg):
    printed = "".join(came for _, came in run.came.values())
    assert not any(cfg[one.name] in printed for one in ALL_SETTINGS if one.secret and cfg[one.name])
    assert not list((run.checkout / "build").glob("*.environment.json"))


def test_what_is_made_is_fresh():
    assert made.made(TEXT) == TEXT, "run `inv readme`"


@pytest.mark.parametrize(
    ("shown", "came"),
    [("a\n…\nc 1.2 s\n", "a\nb\nc 9.9 s\n"), ("…\nb\n", "a\nb\n"), ("a\n…\n", "a\nb\n"), ("a\n…\n", "a\n"), ("", "\n")],
)
def test_an_output_is_as_shown(shown, came):
    assert readme.difference(shown, came) == ""


@pytest.mark.parametrize(
    ("shown", "came"),
    [("a\nd\n", "a\nb\n"), ("b\na\n", "a\nb\n"), ("a\n", "a\nb\n"), ("…\na\n", "a\nb\n"), ("a\nb", "a")],
)
def test_an_output_that_is_another_is_seen(shown, came):
    assert readme.difference(shown, came)


def test_a_block_has_to_fail_where_the_page_says_so():
    failing = readme.Block(0, "", "false # exit 1\n", None)
    assert readme.fault(failing, 0, "")
    assert not readme.fault(failing, 1, "")


def test_a_job_that_failed_and_one_that_nobody_knows_of_are_made_good(run, cfg):
    """What the repairs of the page have left in closing_runs."""
    run.result([one for one in PAGE if one.runs][-1])
    for date, status in (("2025-05-28", "failed"), ("2025-05-30", "cancelled")):
        first, *later = run_rows(cfg, date)
        (good,) = [row for row in later if row["status"] == "succeeded"]
        assert (first["status"], first["genius"]) == (status, "failed")
        assert [good[step] for step in ("genius", "ledger", "metrics")] == ["succeeded"] * 3
        assert first["job"] != good["job"]
    assert first["detail"]["resolved"]["who"]


def words_after(name: str) -> list[list[str]]:
    """The words of each command of this name, wherever it stands."""
    given = [line.split(" # ")[0] for line in LINES] + [re.sub(r"[\[\]]", " ", span) for span in SPANS]
    found = [re.search(rf"(?:^|&& |\$\(){name} ([^>)]*)", line) for line in given]
    return [shlex.split(match[1].replace("'", "").replace('"', "")) for match in found if match]


def test_every_task_and_option_is_there():
    known = {name: one for one in tasks.namespace.to_contexts() for name in (one.name, *one.aliases)}
    for words in words_after("(?:.venv/bin/)?inv"):
        task, *rest = [word for word in words if word not in ("--dry", "--list", "--help")] or ["readme"]
        assert task == "TASK" or task in known, words
        options = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert task == "TASK" or options <= known[task].flags.keys(), words


def test_every_verb_of_make_is_there():
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in words_after("make"):
        after_folder = words[words.index("-C") + 2 :] if "-C" in words else words
        assert {word for word in after_folder if not re.match(r"-|[A-Z_]+=", word)} <= targets, words


def test_every_key_of_an_environment_is_there_and_the_other_way_round():
    names = {setting.name for setting in ALL_SETTINGS}
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE)) == names
    used = set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", PROSE))
    assert used - names == OTHER_NAMES


def test_every_error_of_the_table_is_raised_by_a_test_or_its_source_is_named():
    tested = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if "readme" not in path.name)
    rows = TEXT.partition("## Troubleshooting")[2].partition("\n## ")[0].splitlines()
    for row in rows:
        for code in re.findall(CODE, row.split("|")[1] if "|" in row else ""):
            assert code in tested or "documents)" in row, f"{code} is raised by no test"


def test_every_heading_that_is_linked_to_is_there():
    anchors = {re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in readme.HEADING.findall(PROSE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
