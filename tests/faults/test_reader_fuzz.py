"""The fuzzer of fuzz_reader.py, a little of it at every run, and the event splitter by itself."""

import asyncio
import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from faults.fuzz_reader import fuzz, try_one
from llmdyno.wire.sse import events

LINES = st.lists(
    st.sampled_from([b"data: a", b"data:b", b":c", b"\r", b"\n", b"\r\n", b"\n\n", b"data", b"x"]),
    max_size=16,
).map(b"".join)


def test_some_thousand_inputs() -> None:
    found = asyncio.run(fuzz(5_000, seed=7))

    assert found["whole"] > 2_000
    assert len(found) > 5  # the mutations reach many ends


@settings(deadline=None, max_examples=300)
@given(rng=st.randoms(use_true_random=False))
def test_inputs_that_hypothesis_looks_for(rng: random.Random) -> None:
    async def one() -> str:
        return try_one(rng)

    asyncio.run(one())


@settings(deadline=None, max_examples=500)
@given(body=LINES, data=st.data())
def test_events_are_the_same_wherever_the_body_is_cut(body: bytes, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    cut = [body[low:high] for low, high in itertools.pairwise([0, *edges, len(body)])]

    together = [event for _, event in events([(0, body)])]
    apart = [event for _, event in events(enumerate(cut))]

    assert apart == together
