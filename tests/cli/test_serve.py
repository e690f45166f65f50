"""What is served: from the flags, with the defaults of a study."""

import pytest

from llmdyno.cli.flags import study_spec
from llmdyno.cli.serve import checked_stack, read_stack, served, stack_flags
from llmdyno.errors import UsageError
from llmdyno.processes.launch import Launch


def test_the_defaults_are_those_of_a_study() -> None:
    stack, config = checked_stack(study_spec({}), None)

    assert (stack.engine.name, stack.front.name, stack.model) == ("openvino", "native", "tiny")
    assert config == {}
    assert [field.shown_default for field in stack_flags("engine", "front", "model")] == [
        *("openvino", "native", "tiny"),
    ]


def test_the_help_of_what_takes_one_engine_speaks_of_no_other() -> None:
    flags = {field.name: field.flag for field in stack_flags("engine", "front", "engine_arg")}

    assert {flags[name].metavar for name in ("engine", "front")} == {"NAME"}
    assert flags["engine_arg"].help == (
        "A word for the engine's own command line, for what has no knob; may be repeated."
    )
    assert not [name for name, flag in flags.items() if "several" in flag.help]


def test_settings_are_read_alone_and_checked_together() -> None:
    asked = study_spec({"engine": "timed.engine", "model": "m"})

    assert read_stack(asked, ["itl_ms=13"])[1] == {"itl_ms": 13}
    with pytest.raises(UsageError, match="brings bad luck"):
        checked_stack(asked, ["itl_ms=13"])
    with pytest.raises(UsageError, match=r"no knob .itl.\. Did you mean .itl_ms.\?"):
        read_stack(asked, ["itl=13"])


def test_what_is_kept_of_a_server_has_the_words_of_engine_arg() -> None:
    asked = study_spec({"engine": "vllm", "model": "m", "engine_arg": ["--my-flag=1"]})
    stack, config = read_stack(asked, ["max_num_seqs=64"])

    launch = Launch(argv=("x",), url="http://x", endpoint="openai-chat", model="as asked")
    kept = served(stack, config, launch, ("127.0.0.2", 8123))
    assert kept.engine_args == ("--my-flag=1",)
    assert (kept.host, kept.port, kept.names) == ("127.0.0.2", 8123, ("as asked",))
    assert (kept.engine, kept.config) == ("vllm", {"max_num_seqs": 64})
