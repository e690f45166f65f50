"""A tritonserver that was found or installed here (install.py, home.py)."""

from collections.abc import Mapping
from pathlib import Path

import msgspec


class Triton(msgspec.Struct, frozen=True, kw_only=True):
    """A tritonserver, and what its process and its Python models need to find things."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    python: Path  # one that has Triton's schema, where a config needs it
