"""README.md and docs/: each block of commands runs and prints the output that the page shows."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
from support import checkout, pages, warm
from support.checkout import STATE
from support.helpers import run_rows

from ops import config
from ops.config import ALL_SETTINGS

REPAIR = pages.ROOT / "docs" / "runbook" / "repair.md"
# Two readers, each with a cloud and about half of the time, read side by side. Both begin with the first pages.
SECOND_READER = ("repair.md", "schedule.md", "watch.md")


def reader_of(page: Path) -> str:
    return "second-reader" if page.name in SECOND_READER else "first-reader"


BLOCKS = [
    pytest.param(
        block,
        id=f"{page.relative_to(pages.ROOT)} {block.number} {block.heading}",
        marks=pytest.mark.xdist_group(reader_of(page)),
    )
    for page in pages.PAGES
    for block in pages.blocks(page)
    if block.runs
]


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Return a function of a page: its reader's shell in a copy of the repository; the cloud is `local` and `prod`."""
    from local import cloud

    clouds = []

    @functools.cache
    def of_reader(name: str) -> pages.Terminal:
        folder, own = tmp_path_factory.mktemp(name) / "finance-closing", STATE.with_name(f"test-pages-{name}")
        checkout.copy(folder)
        checkout.compile_modules(folder)
        (folder / ".venv").unlink()
        (folder / ".venv").symlink_to(warm.started().folder)
        shutil.copy(folder / "env" / "local.env", folder / "env" / "prod.env")
        clouds.append(cloud.Cloud(own, report=lambda line: None))
        clouds[-1].reset()
        scratch = tmp_path_factory.mktemp("terminal")
        return pages.Terminal([pages.README, pages.RUNBOOK], folder, scratch, {"FINANCE_CLOSING_STATE": str(own)})

    yield lambda page: of_reader(reader_of(page))
    for there in clouds:
        there.reset()


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs_and_prints_what_is_below_it_and_no_secret(shell, block):
    terminal = shell(block.page)
    code, printed = terminal.result(block)
    wrong = pages.fault(block, code, printed)
    assert not wrong, wrong
    cfg = config.load("local", terminal.environ)
    assert not [one.name for one in ALL_SETTINGS if one.secret and cfg[one.name] and cfg[one.name] in printed]
    assert not list((terminal.checkout / "build").glob("*.environment.json"))


@pytest.mark.xdist_group(reader_of(REPAIR))
def test_repairs_of_the_runbook_close_the_failed_and_the_unknown_date(shell):
    """The rows of closing_runs after the repairs of the page."""
    terminal = shell(REPAIR)
    terminal.result([block for block in pages.blocks(REPAIR) if block.runs][-1])
    cfg = config.load("local", terminal.environ)
    for date, status in (("2025-05-28", "failed"), ("2025-05-30", "cancelled")):
        first, *later = run_rows(cfg, date)
        (good,) = [row for row in later if row["status"] == "succeeded"]
        assert (first["status"], first["genius"]) == (status, "failed")
        assert [good[step] for step in ("genius", "ledger", "metrics")] == ["succeeded"] * 3
        assert first["job"] != good["job"]
    assert first["detail"]["resolved"]["who"]
