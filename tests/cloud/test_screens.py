"""The pictures of make screens: a real browser where there is one, and one line where there is none."""

from __future__ import annotations

import pytest

from local import screens
from local.errors import LocalError


def test_without_a_browser_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("BROWSER", raising=False)
    with pytest.raises(LocalError, match="apt-get install chromium-headless-shell"):
        screens.find_browser()


def test_a_browser_that_fails_is_one_line(tmp_path):
    with pytest.raises(LocalError, match="made no picture of file:///x: exit 1"):
        screens.shoot("/bin/false", "file:///x", tmp_path / "x.png", (10, 10))


def test_a_page_becomes_a_picture(tmp_path):
    try:
        browser = screens.find_browser()
    except LocalError as error:
        pytest.skip(str(error))
    page = tmp_path / "page.html"
    page.write_text(screens.PAGE.format("a line"))
    picture = screens.shoot(browser, page.as_uri(), tmp_path / "page.png", (200, 100))
    assert picture.read_bytes().startswith(b"\x89PNG")
