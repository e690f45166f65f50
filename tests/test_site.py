"""The docs site: every page is built and found, and a reader needs no network."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, opened
from documents import DOCS, ROOT

SITE = ROOT / "build" / "site"
SCRIPT = ROOT / "dev" / "docs_site.py"
# What a browser fetches by itself: not links, which a reader follows.
FETCHED = (
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'> ]+",
    (
        r"<link\b[^>]*\brel=[\"']?(?:stylesheet|icon|preload|preconnect|dns-prefetch|manifest)[^>]*"
        r"\bhref=[\"']?(?:https?:)?//[^\"'> ]+"
    ),
    r"@import[^;]*//[^;]+",
    r"url\([\"']?(?:https?:)?//[^)]+",
)


def in_nav(part: Any) -> Iterator[str]:
    """Yield the pages that the navigation leads to."""
    if isinstance(part, str):
        yield part
    for inner in (
        part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    ):
        yield from in_nav(inner)


def test_every_page_is_in_the_navigation() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    named = list(in_nav(config["nav"]))

    assert len(named) == len(set(named))
    ours = {page for page in named if not page.startswith("repo/")}
    assert ours == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_what_is_staged_is_what_the_navigation_and_the_pages_need(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SCRIPT, "--stage"], check=True, cwd=tmp_path)
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    source = ROOT / config["docs_dir"]

    assert not [page for page in in_nav(config["nav"]) if not (source / page).is_file()]
    method = (source / "method.md").read_text()
    assert "](repo/benchmarks/client/README.md)" in method
    assert "](doubts.md)" in (source / "reading-a-report.md").read_text()
    tutorial = (source / "tutorials" / "tune-vllm.md").read_text()
    assert "](../repo/evidence/h200-x4/README.md)" in tutorial
    evidence = (source / "repo" / "evidence" / "h200" / "README.md").read_text()
    assert "](../h200-x4/README.md)" in evidence


@pytest.fixture(scope="module")
def site() -> Path:
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("needs zensical: pip install '.[docs]'")
    built = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=False, timeout=120
    )
    assert built.returncode == 0, built.stderr
    return SITE


def test_it_is_built_strictly_with_every_page(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}

    assert pages <= {path.relative_to(site) for path in site.rglob("*.html")}
    assert (site / "search.js").is_file()  # the search works from disk


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix in {".html", ".css"} and not path.is_relative_to(site / "repo" / "evidence"):
            text = path.read_text()
            found = [one for pattern in FETCHED for one in re.findall(pattern, text)]
            assert not found, (path, found)


def test_nothing_is_fetched_later_by_what_a_page_holds(site: Path) -> None:
    # What the theme's script would load from elsewhere if a page had it.
    later = re.compile(
        r"class=\"[^\"]*\\b(mermaid|glightbox)\\b|data-md-exec|data-md-component=\"source\""
    )

    assert not [path for path in site.rglob("*.html") if later.search(path.read_text())]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_search_works_from_disk(site: Path, tmp_path: Path) -> None:
    # What the reader does: open the page, press Search, write a word, look at what comes.
    typed = (
        "<script>setTimeout(() => { document.querySelector('.md-search__button').click();"
        "setTimeout(() => { const roots = () => [...document.querySelectorAll('*')]"
        ".map((one) => one.shadowRoot).filter(Boolean); const input = roots()"
        ".map((one) => one.querySelector('input')).find(Boolean); input.value = 'dynamometer';"
        "input.dispatchEvent(new InputEvent('input', { bubbles: true, composed: true }));"
        "setTimeout(() => { document.body.dataset.found = roots()"
        ".map((one) => [...one.querySelectorAll('a')].map((link) => link.href)).join(' ');"
        "}, 3000); }, 2500); }, 1500);</script></body>"
    )
    page = (site / "index.html").read_text().replace("</body>", typed)
    copy = shutil.copytree(site, tmp_path / "site")

    dom, console = opened(page, copy)

    assert console == []
    (found,) = re.findall(r'data-found="([^"]*)"', dom)
    assert "index.html" in found


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://a.b/c.js">',
        "<link rel=stylesheet href=//a.b/c.css>",
        '<img alt="x" src="http://a.b/c.png">',
        "body{background:url(https://a.b/c.png)}",
        '@import "https://a.b/c.css";',
    ],
)
def test_what_would_be_fetched_is_seen(text: str) -> None:
    assert [pattern for pattern in FETCHED if re.search(pattern, text)]
