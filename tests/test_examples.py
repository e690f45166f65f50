"""The examples: a whole engine outside the package proves itself with the shipped contract."""

import pytest
from llamacpp.engine import ENGINE

from llmdyno.errors import UsageError
from llmdyno.testing.engines import EngineContract


class TestLlamaCpp(EngineContract):
    engine = ENGINE
    model = "model.gguf"


def test_a_pass_is_not_larger_than_its_step() -> None:
    ENGINE.check("model.gguf", {"batch_size": 512, "ubatch_size": 512})

    with pytest.raises(UsageError, match="ubatch_size=1024: is more than batch_size=512"):
        ENGINE.check("model.gguf", {"batch_size": 512, "ubatch_size": 1024})


def test_knobs_become_flags() -> None:
    launch = ENGINE.launch(
        "m/model.gguf", {"batch_size": 512, "flash_attn": "on"}, artifact=None, host="h", port=1
    )

    assert launch.argv[-4:] == ("--batch-size", "512", "--flash-attn", "on")
    assert launch.model == "model.gguf"
