"""README.md and docs/: each block of commands runs and prints the output that the page shows."""

from __future__ import annotations

import shutil

import pytest
from support import checkout, pages, warm
from support.checkout import STATE
from support.helpers import run_rows

from ops import config
from ops.config import ALL_SETTINGS

BLOCKS = [block for page in pages.PAGES for block in pages.blocks(page) if block.runs]


def name(block: pages.Block) -> str:
    return f"{block.page.relative_to(pages.ROOT)} {block.number} {block.heading}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Yield a reader's shell in a copy of the repository, with a cloud of its own that is `local` and `prod`."""
    from local import cloud

    folder, own = tmp_path_factory.mktemp("reader") / "finance-closing", STATE.with_name("test-pages")
    checkout.copy(folder)
    (folder / ".venv").unlink()
    (folder / ".venv").symlink_to(warm.started().folder)
    shutil.copy(folder / "env" / "local.env", folder / "env" / "prod.env")
    there = cloud.Cloud(own, report=lambda line: None)
    there.reset()
    scratch = tmp_path_factory.mktemp("terminal")
    yield pages.Terminal([pages.README, pages.RUNBOOK], folder, scratch, {"FINANCE_CLOSING_STATE": str(own)})
    there.reset()


@pytest.fixture(scope="module")
def cfg(run) -> dict[str, str]:
    """Return the settings of the reader's environment, once its cloud is up."""
    run.result(BLOCKS[0])
    return config.load("local", run.environ)


@pytest.mark.parametrize("block", BLOCKS, ids=name)
def test_block_runs_and_prints_what_is_below_it(run, block):
    wrong = pages.fault(block, *run.result(block))
    assert not wrong, wrong


def test_no_block_prints_a_secret(run, cfg):
    printed = "".join(output for done in run.results.values() for _, output in done)
    assert not any(cfg[one.name] in printed for one in ALL_SETTINGS if one.secret and cfg[one.name])
    assert not list((run.checkout / "build").glob("*.environment.json"))


def test_repairs_of_the_runbook_close_the_failed_and_the_unknown_date(run, cfg):
    """The rows of closing_runs after the repairs of the page."""
    run.result([one for one in BLOCKS if one.page.name == "repair.md"][-1])
    for date, status in (("2025-05-28", "failed"), ("2025-05-30", "cancelled")):
        first, *later = run_rows(cfg, date)
        (good,) = [row for row in later if row["status"] == "succeeded"]
        assert (first["status"], first["genius"]) == (status, "failed")
        assert [good[step] for step in ("genius", "ledger", "metrics")] == ["succeeded"] * 3
        assert first["job"] != good["job"]
    assert first["detail"]["resolved"]["who"]
