"""A model repository: which models, with which config and files; an engine's backend says so.

The configs are plain mappings in the shape of Triton's ModelConfig; pbtxt.py makes text of them.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno.errors import StorageError
from llmdyno.processes.starting import starting


class OpenAiPort(msgspec.Struct, frozen=True, kw_only=True):
    """What openai_port.py must know to call the engine's model."""

    engine: str  # the model that takes token ids
    model: str  # as OpenAI's clients name it
    place: str  # where its files are
    context_length: int


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written, and how a client asks for a token."""

    configs: Mapping[str, Mapping[str, Any]] = {}  # model → Triton's ModelConfig
    files: Mapping[str, str] = {}  # path in the repository → content
    model: str  # the one that clients call
    empty: tuple[str, ...] = ()  # folders that must be there
    imports: tuple[str, ...] = ()  # models whose code is ours: they must find llmdyno
    openai: OpenAiPort | None = None  # None: OpenAI's protocol is not spoken


def write(content: Repository, models: Path, python: Path, package: Path) -> None:
    """Write a repository.

    Args:
        content: the models and their files.
        models: the folder of the repository; it is made.
        python: a Python that has Triton's schema; it writes the configs.
        package: the folder of llmdyno, to which the links of our models point.

    Raises:
        StorageError: the folder cannot be written.
        ServerError: the system starts no further process.
    """
    try:
        for name in (*content.configs, *content.empty):
            (models / name).mkdir(parents=True, exist_ok=True)
        for name, text in content.files.items():
            (models / name).parent.mkdir(parents=True, exist_ok=True)
            (models / name).write_text(text, "utf-8")
        for name in content.imports:
            link = models / name / "1" / "llmdyno"
            if not link.is_symlink():
                link.symlink_to(package)
    except OSError as error:
        raise StorageError(f"cannot write {models}: {error.strerror}.") from error
    if not content.configs:  # they are among the files
        return
    with starting("The Python that writes Triton's configs"):
        done = subprocess.run(
            [str(python), "-I", str(Path(__file__).with_name("pbtxt.py")), "write", str(models)],
            input=json.dumps(content.configs),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
