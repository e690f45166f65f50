"""Secrets: which variables of the environment hold one, and how to blot them out of a log."""

import os
import re
from collections.abc import Mapping, Sequence

_SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_SECRET_CHARACTERS_MIN = 6  # a shorter one, such as "1", would blot out every number


def is_secret(name: str) -> bool:
    """Return whether a variable of that name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def redact(lines: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Blot out secrets: those of our environment, and what a command's holds that is no path.

    Args:
        lines: what the command wrote.
        environment: what it was given beside ours.
    """
    hidden = [value for name, value in os.environ.items() if is_secret(name)]
    hidden += [
        value for name, value in environment.items() if is_secret(name) or not value.startswith("/")
    ]
    long_enough = {text for text in hidden if len(text) >= _SECRET_CHARACTERS_MIN}
    hidden = sorted(long_enough, key=len, reverse=True)
    if not hidden:
        return list(lines)
    pattern = re.compile("|".join(re.escape(secret) for secret in hidden))
    return [pattern.sub("•••", line) for line in lines]
