"""The fixed prompts of the quality gate."""

from llmdyno.quality.prompts import PROMPTS, prompts


def test_they_are_thirty_two_of_eight_kinds_and_no_two_alike() -> None:
    assert {len(kind) for kind in PROMPTS.values()} == {4}
    assert len(prompts()) == len(set(prompts())) == 32
    assert prompts() == prompts()
    assert prompts()[:8] == [kind[0] for kind in PROMPTS.values()]
