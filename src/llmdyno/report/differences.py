"""What makes two runs unlike: the machine, its software, and what was asked.

A ratio of two numbers says nothing of what was changed if more than that was changed. So a
comparison names every fact in which the two runs differ before it names the ratio.
"""

import textwrap

from llmdyno.machine import environment
from llmdyno.report import documents
from llmdyno.report.documents import Document


def between(before: Document, after: Document) -> list[str]:
    """Return, in words, each fact of environment and specification in which two runs differ."""
    old, new = (documents.flat(documents.part(side, "spec")) for side in (before, after))
    return of_environments(before, after) + [
        f"{name}: {_told(old.get(name))} before, {_told(new.get(name))} after"
        for name in dict.fromkeys([*old, *new])
        # A threshold judges a measurement and does not change it.
        if old.get(name) != new.get(name) and not name.startswith("slos")
    ]


def _told(value: str | None) -> str:
    # A system prompt may have thousands of words.
    return "not set" if value is None else textwrap.shorten(value, 80, placeholder=" …")


def of_environments(before: Document, after: Document) -> list[str]:
    """Return, in words, each fact of the environment in which two runs differ."""
    return environment.differences(
        documents.part(before, "environment"), documents.part(after, "environment")
    )
