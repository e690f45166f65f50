"""Sets a page as HTML: one self-contained document that fetches nothing."""

import jinja2
import markupsafe

from llmdyno.report import drawing
from llmdyno.report.pages import Page


def set_page(page: Page) -> str:
    """Set the page: one self-contained document that fetches nothing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmdyno.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [section for section in page.sections if section.says_something()]
    drawn = {
        figure.name: figure.specification for section in sections for figure in section.figures
    }
    # The one text that is not escaped: it comes from vl-convert, not from a server or a user.
    bundle = drawing.javascript() if drawn else ""
    return environment.get_template("page.html.j2").render(
        page=page,
        sections=sections,
        shown={section.name for section in sections},
        drawn=drawn,
        bundle=markupsafe.Markup(bundle),  # noqa: S704
    )
