"""A headless Chromium that opens a page from disk and tells what it drew and said."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def opened(page: str, folder: Path, *, dark: bool = False) -> tuple[str, list[str]]:
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
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
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


def violations(page: str, axe: str, folder: Path, *, dark: bool = False) -> list[str]:
    """Return what axe-core, given as its source, finds serious or critical: "rule: element"."""
    probe = f"""<script>{axe}</script><script>
    setTimeout(async () => {{
      for (const folded of document.querySelectorAll("details")) folded.open = true;
      const found = await axe.run(document);
      const lines = found.violations
        .filter((one) => ["serious", "critical"].includes(one.impact))
        .flatMap((one) => one.nodes.map((node) => `${{one.id}}: ${{node.html.slice(0, 200)}}`));
      const told = document.createElement("pre");
      told.id = "axe";
      told.textContent = JSON.stringify(lines);
      told.className = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      document.body.append(told);
    }}, 3000);</script>"""
    # The libraries of the charts hold another "</body>", as a text.
    before, end, after = page.rpartition("</body>")
    dom, console = opened(f"{before}{probe}{end}{after}", folder, dark=dark)
    assert console == []
    found = re.search(r'<pre id="axe" class="(\w+)">(.*?)</pre>', dom, flags=re.DOTALL)
    assert found, "axe has not answered"
    assert (found[1] == "dark") == dark
    lines: list[str] = json.loads(html.unescape(found[2]))
    return lines


def drawn(dom: str) -> dict[str, int]:
    """Return how many marks of data each chart has."""
    parts = re.split(r'class="chart[^"]*" id="chart-(\w+)"', dom)
    marks = r'aria-roledescription="(?:bar|point|line mark|errorbar|circle|rule)"'
    return {
        name: len(re.findall(marks, body.split("</figure>")[0]))
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
