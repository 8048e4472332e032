"""inv local.screens: what the demo prints and Restate's page of its closing, as pictures in build/screens/."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

from local.errors import LocalError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "screens"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PAGE = "<meta charset=utf-8><style>body{{background:#1e1e1e;color:#ddd;font:14px/1.4 monospace}}</style><pre>{}</pre>"
# What Restate's page may take to load its parts; a browser ends by itself after it.
LOADING_MILLISECONDS = 15_000
SECONDS = 120


def take(demo: str) -> list[Path]:
    """demo: what `inv demo` has printed. Returns the pictures; raises LocalError where there is no browser."""
    browser = find_browser()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    printed = FOLDER / "demo.html"
    printed.write_text(PAGE.format(html.escape(demo)))
    pages = re.findall(r"http://\S+/ui/invocations/\S+", demo)
    if not pages:
        raise LocalError("the demo named no page of Restate; run `make demo` and read what it says")
    return [
        shoot(browser, printed.as_uri(), FOLDER / "demo.png", (1400, 1000)),
        shoot(browser, pages[0], FOLDER / "closing.png", (1400, 1600)),
    ]


def find_browser() -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get("BROWSER", ""), *BROWSERS))), None)
    if not found:
        raise LocalError("no Chromium here; `apt-get install chromium-headless-shell`, or name one as BROWSER=path")
    return found


def shoot(browser: str, url: str, picture: Path, size: tuple[int, int]) -> Path:
    command = [browser, "--headless", "--disable-gpu", "--hide-scrollbars", f"--window-size={size[0]},{size[1]}"]
    # Chromium has no sandbox for root, and both pages are ours.
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    command += [f"--virtual-time-budget={LOADING_MILLISECONDS}", f"--screenshot={picture}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode or not picture.exists():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise LocalError(f"{browser} made no picture of {url}: {said[-1] if said else f'exit {done.returncode}'}")
    return picture
