"""What a study found, in the sentences of its page: the end of `dyno tune`, and `dyno report`."""

from collections.abc import Mapping
from typing import Any

from llmdyno import plugins
from llmdyno.knobs import Knob
from llmdyno.predict.limits import with_limits
from llmdyno.results import findings, study_doubts


def key_findings(study: Mapping[str, Any]) -> list[str]:
    """Return the key findings of a study's document, a sentence or a few each."""
    changed = study_doubts.changed_settings(study, guide_of(study))
    return findings.key_findings(with_limits(study), changed)


def guide_of(document: Mapping[str, Any]) -> dict[str, Knob]:
    """Return the guide to the settings of a study's engine and front, by name."""
    parts = (plugins.load("engines", document["engine"]), plugins.load("fronts", document["front"]))
    return {knob.name: knob for part in parts for knob in part.knobs}
