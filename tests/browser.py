"""A headless Chromium that opens a page from disk and tells what it drew and said."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def opened(page: str, folder: Path) -> tuple[str, list[str]]:
    """Open a page from disk; return its document once it is drawn, and what the console said."""
    assert CHROMIUM is not None
    file = folder / "page.html"
    file.write_text(page)
    finished = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--v=0",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    console = [line for line in finished.stderr.splitlines() if "CONSOLE" in line]
    return finished.stdout, console


def drawn(dom: str) -> dict[str, int]:
    """Return how many marks of data each chart has."""
    parts = re.split(r'class="chart[^"]*" id="chart-(\w+)"', dom)
    marks = r'aria-roledescription="(?:bar|point|line mark|errorbar|circle|rule)"'
    return {
        name: len(re.findall(marks, body.split("</figure>")[0]))
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
