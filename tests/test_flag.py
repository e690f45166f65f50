from typing import Annotated, Any

import msgspec
import pytest

from llmdyno import flag
from llmdyno.errors import UsageError
from llmdyno.flag import LENGTHS, SECONDS, TEXT, WHOLE, Flag, Kind, all_fields, own_fields
from llmdyno.spec import SLOS
from llmdyno.units import Lengths


class Part(msgspec.Struct, frozen=True):
    time_s: Annotated[float, Flag(SECONDS, "A time.")] = 60.0
    seed: Annotated[int, Flag(WHOLE, "The part's seed.")] = 1


class Whole(msgspec.Struct, kw_only=True):
    first: Annotated[str, Flag(TEXT, "First.")]
    part: Part = Part(time_s=1.5)
    plain: int = 3
    seed: Annotated[int, Flag(WHOLE, "The whole's seed.")] = 0


def test_a_flag_is_called_as_its_field_without_the_unit() -> None:
    (time, _) = own_fields(Part)

    assert (time.name, time.attribute, time.option) == ("time", "time_s", "--time")
    assert time.shown_default == "1m"
    assert time.read("250ms") == 0.25


def test_the_flags_of_a_part_stand_in_its_place_with_the_defaults_that_hold_there() -> None:
    fields = {field.name: field for field in all_fields(Whole)}

    assert list(fields) == ["first", "time", "seed"]
    assert fields["first"].default is msgspec.NODEFAULT
    assert fields["time"].shown_default == "1.5s"
    assert (fields["seed"].flag.help, fields["seed"].shown_default) == ("The whole's seed.", "0")


def test_a_flag_of_a_plug_in_names_those_that_there_are() -> None:
    class Served(msgspec.Struct):
        front: Annotated[str, Flag(TEXT, "Server", plugins="fronts")] = "native"

    (field,) = own_fields(Served)

    assert field.help == "Server: bentoml, native, triton."


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (flag.WHOLE, 2.5, "--x 2.5: must be a whole number."),
        (flag.WHOLE, True, "--x True: must be a whole number."),
        (flag.NUMBER, "2", "--x 2: must be a number."),
        (flag.TRUTH, 1, "--x 1: must be true or false."),
        (flag.TEXT, 1, "--x 1: must be a text in quotes."),
        (flag.TEXT, {"fast": [1, 2]}, "--x: is a table; write a text in quotes, as it follows the"),
        (flag.FILE_TEXT, "nowhere.txt", "--x nowhere.txt: cannot be read: "),
        (flag.COUNTS, "2,many", "--x 2,many: write whole numbers, e.g. 10,50,100."),
        (flag.RATES, "fast", "--x fast: write requests per second, e.g. 1,2.5,4."),
        (flag.COUNT_OR_AUTO, "all", "--x all: write a whole number, or auto."),
        (flag.CONFIG, 3, "--x 3: must be a table of knobs."),
        (flag.CONFIGS, [3], "x [3]: must be tables of knobs, each under [[x]]."),
        (flag.SECONDS, "soon", "--x soon: write a duration such as"),
        (flag.SHARE, "most", "--x most: write a share such as"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(kind: Kind, value: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        kind.read(value, "--x")

    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (flag.COUNTS, (1, 2)),
        (flag.RATES, (0.5, 4.0)),
        (flag.NAMES, ("a", "b")),
        (flag.PAUSE, (0.5, 2.0)),
        (flag.PAUSE, 0.01),
        (flag.SECONDS, 90.0),
        (flag.SHARE, 0.025),
        (LENGTHS, Lengths("normal", 128, 32)),
        (flag.COUNT_OR_AUTO, "auto"),
        (flag.COUNT_OR_AUTO, 4),
    ],
)
def test_what_is_shown_is_read_as_the_same(kind: Kind, value: Any) -> None:
    assert kind.read(kind.show(value), "--x") == value


@pytest.mark.parametrize("given", [[1, 2], "1,2", "1, 2"])
def test_a_list_of_a_file_and_a_text_are_read_alike(given: Any) -> None:
    assert flag.COUNTS.read(given, "--x") == (1, 2)


def test_slos_may_be_a_list_in_a_file() -> None:
    kind = SLOS.kind
    texts = ["ttft:p99<2s", "tpot:p95<50ms"]

    assert kind.read(texts, "--slo") == kind.read(",".join(texts), "--slo")
    with pytest.raises(UsageError, match="must be a list of texts, each in quotes"):
        kind.read([2], "--slo")
    with pytest.raises(UsageError, match="--slo 2: must be a text in quotes"):
        kind.read(2, "--slo")
