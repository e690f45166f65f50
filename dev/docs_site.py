"""The docs site: docs/ and the pages outside it that docs/ links to, built strictly.

python dev/docs_site.py            # writes build/site; open build/site/index.html from disk
python dev/docs_site.py --stage    # only gathers the pages, into build/site-source

A page of docs/ may link to a file outside it, such as ../evidence/h200/README.md. The site must
hold all that it links to, for it is read without a network. So such files are copied to repo/
beside the pages, and the links are changed to lead there.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
CONFIG = ROOT / "zensical.toml"
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))|(<img src=\")([^\"]+)(\")")
_IS_CODE = re.compile(r" {4}|\t")
# What the pages would fetch from elsewhere, and what of ours does the same.
_FETCHED, _OURS = re.compile(r"https://unpkg\.com/iframe-worker/shim"), "worker.js"
_LARGEST_BYTES = 2_000_000  # of a file that is copied; a larger one is not for reading


def stage() -> None:
    """Gather the pages, and what they link to, in SOURCE."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    waiting = sorted(path for path in DOCS.rglob("*") if path.is_file())
    done: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in done:
            continue
        done.add(file)
        target = SOURCE / _staged(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            text, linked = _with_links(file)
            target.write_text(text)
            waiting += linked
        else:
            shutil.copyfile(file, target)


def _staged(file: Path) -> Path:
    """Return where a file of the repository stands in SOURCE."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS)
    return Path("repo") / file.relative_to(ROOT)


def _with_links(page: Path) -> tuple[str, list[Path]]:
    """Return a page's text with its links changed, and the files that they lead to."""
    linked: list[Path] = []

    def change(found: re.Match[str]) -> str:
        before, link, after = found.groups()[:3] if found[2] else found.groups()[3:]
        if re.match(r"[a-z]+:", link):
            return found[0]
        file = (page.parent / link).resolve()
        if file.is_dir():
            file /= "README.md"
        if not file.is_file():
            return found[0]  # the strict build names it
        if file.stat().st_size > _LARGEST_BYTES:
            raise SystemExit(f"{page}: {link} is too large for the site; link to its page.")
        linked.append(file)
        relative = os.path.relpath(_staged(file), _staged(page).parent)
        return f"{before}{relative}{after}"

    lines, fenced = [], False
    for line in page.read_text().splitlines(keepends=True):
        fenced ^= line.lstrip().startswith("```")
        is_code = fenced or _IS_CODE.match(line)
        lines.append(line if is_code else _LINK.sub(change, line))
    return "".join(lines), linked


def build() -> None:
    """Build the site from SOURCE; a broken link or anchor ends it."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(CONFIG)]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, stdout=subprocess.PIPE, check=False
    )
    if built.returncode:
        sys.stderr.write(built.stdout.decode())
        raise SystemExit("the site was not built: see the warnings above.")
    for page in SITE.rglob("*.html"):
        text = page.read_text()
        ours = os.path.relpath(SITE / _OURS, page.parent)
        page.write_text(_FETCHED.sub(ours, text))


if __name__ == "__main__":
    stage()
    if "--stage" not in sys.argv:
        build()
        print(SITE / "index.html")
