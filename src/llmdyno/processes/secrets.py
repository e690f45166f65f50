"""Secrets: which variables of the environment hold one, and how a log is cleared of them."""

import os
import re
from collections.abc import Mapping, Sequence

_SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_SECRET_CHARACTERS_MIN = 6  # a shorter one, such as "1", would blot out every number


def is_secret(name: str) -> bool:
    """Return whether a variable of that name is likely to hold a secret, such as HF_TOKEN."""
    return _SECRET_NAME.search(name) is not None


def redact(lines: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the lines with secrets blotted out.

    Secrets are those of our environment, and all values in the command's own that are no paths.

    Args:
        lines: the command's output.
        environment: the variables that the command got besides ours.
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
