"""YAML as people like to read it: keys in our order, texts of many lines as such."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, and texts of many lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's own interface
        """Write an object that occurs twice in full both times, without YAML's anchors."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(documents: Sequence[Mapping[str, Any]], *, heading: str, mind: str = "") -> str:
    """Write documents, with lines of comment before them; `mind` is what their user must know."""
    body = yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        width=96,
        allow_unicode=True,
        explicit_start=len(documents) > 1,
    )
    said = [*heading.splitlines(), *([f"Mind: {mind}"] if mind else [])]
    comment = "".join(f"# {line}\n" for line in said)
    return comment + str(body)
