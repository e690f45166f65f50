"""What a page says, for tests: its visible text, its headline, its sections and charts."""

import html
import re


def words(page: str) -> str:
    """Return the page's visible text, without tags, scripts and line breaks."""
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def headline(page: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", page, flags=re.DOTALL)
    assert found
    return " ".join(html.unescape(found[1]).split())


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page)


def charts(page: str) -> list[str]:
    return re.findall(r'class="chart" id="chart-(\w+)"', page)
