"""What a request says of sampling, in the library's own config."""

import openvino_genai
import pytest

from llmdyno.embedded import sampling
from llmdyno.embedded.messages import Sampling

END, OTHER = 2, 9


def config(*, ignore_eos: bool = False) -> openvino_genai.GenerationConfig:
    made = openvino_genai.GenerationConfig()
    made.max_new_tokens = 8
    made.set_eos_token_id(END)
    made.ignore_eos = ignore_eos
    return made


def test_nothing_said_is_greedy() -> None:
    made = config()
    sampling.apply(Sampling(), made)
    made.validate()
    assert made.is_greedy_decoding()


def test_everything_said_is_passed_on() -> None:
    made = config()
    asked = Sampling(
        temperature=0.5,
        top_k=7,
        top_p=0.5,
        min_p=0.25,
        seed=3,
        min_tokens=4,
        repetition_penalty=1.5,
        presence_penalty=0.25,
        frequency_penalty=0.75,
    )
    sampling.apply(asked, made)
    made.validate()
    assert made.do_sample
    assert (made.temperature, made.top_k, made.top_p, made.min_p) == (0.5, 7, 0.5, 0.25)
    assert (made.rng_seed, made.min_new_tokens, made.repetition_penalty) == (3, 4, 1.5)
    assert (made.presence_penalty, made.frequency_penalty) == (0.25, 0.75)


@pytest.mark.parametrize(
    "asked",
    [
        Sampling(temperature=1e-300),
        Sampling(temperature=1.0, top_p=1e-300),
        Sampling(min_tokens=9),
        Sampling(temperature=1.0, top_k=2**31 - 1),
    ],
)
def test_what_is_at_the_edge_is_not_refused_by_the_library(asked: Sampling) -> None:
    made = config()
    sampling.apply(asked, made)
    made.validate()


def test_stop_ids_stand_beside_the_end_and_in_its_place_where_that_is_ignored() -> None:
    made, ignoring = config(), config(ignore_eos=True)
    for each in (made, ignoring):
        sampling.apply(Sampling(stop_ids=(OTHER,)), each)
        each.validate()
    assert made.stop_token_ids == {END, OTHER}
    assert ignoring.stop_token_ids == {OTHER}
