"""Rules of other engines' schedulers, on cases that can be worked out by hand: a step takes 1 s."""

from collections.abc import Sequence

import msgspec
import pytest

from llmdyno.engines._scheduling import Scheduling
from llmdyno.engines.lmdeploy import SCHEDULING as LMDEPLOY
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.rules import Ask, Happened, Load, Rules
from llmdyno.predict.server import Server, Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulation import simulate
from llmdyno.predict.steptime import MEDIANS, StepTime

H200, LLAMA = gpu_of("h200"), shape_of("meta-llama/Llama-3.1-8B")


class EvenSteps(StepTime):
    """Every step takes a second, and nothing else takes any time."""

    def __init__(self) -> None:
        server = server_of(Setup("vllm", LLAMA, H200))
        super().__init__(server.work, server.graphs, MEDIANS)
        self.api_s = self.token_api_s = 0.0

    def parts(self, *_args: float, **_named: float) -> tuple[float, float]:
        return 1.0, 0.0

    def joined_s(self, *_args: float, **_named: float) -> float:
        return 1.0


def lmdeploy(**config: bool | float | str) -> Server:
    return server_of(Setup("lmdeploy", LLAMA, H200, config={"backend": "pytorch", **config}))


def run(rules: Rules, asks: Sequence[Ask], starts_s: Sequence[float]) -> Happened:
    plain = msgspec.structs.replace(rules, plans_ahead=False)
    load = Load(asks, starts_s, closed=False, duration_s=200.0, window_s=0.0)
    return simulate(plain, EvenSteps(), load)


@pytest.mark.parametrize(("batches", "ttft_s"), [(1, 3), (4, 2)])
def test_a_pipeline_plans_one_batch_ahead_and_not_a_whole_step(batches: int, ttft_s: float) -> None:
    """Steps of 1 s begin at whole seconds; the second prompt comes in the middle of one."""
    planned = server_of(Setup("vllm", LLAMA, H200)).rules
    rules = msgspec.structs.replace(planned, batches=batches)
    load = Load([Ask(10, 0, 20)], [0.0, 3.5], closed=False, duration_s=60.0, window_s=1.5)
    [seen] = simulate(rules, EvenSteps(), load).ttft_s
    assert seen == pytest.approx(ttft_s - 0.5)


@pytest.mark.parametrize(("batches", "ahead"), [(None, 1 / 4), (4, 1 / 4), (2, 1 / 2), (1, 1)])
def test_busy_batches_of_a_pipeline_are_those_it_plans_ahead_of(
    batches: int | None, ahead: float
) -> None:
    """A lone batch has its stages to itself: its next step is planned while the last one runs."""
    config = {"pipeline_parallel_size": 4}
    found = server_of(Setup("vllm", LLAMA, H200, gpus=1, config=config, batches=batches))
    assert found.rules.ahead == ahead
    assert found.rules.batches == found.work.batches


def test_prompts_that_fit_a_step_are_not_split_to_fill_one() -> None:
    rules = lmdeploy(max_prefill_token_num=1000).rules
    seen = run(rules, [Ask(600, 0, 1), Ask(600, 0, 1)], [0.0, 0.0])
    assert (seen.ttft_s, seen.steps) == ([1.0, 2.0], 2)
    both = run(rules, [Ask(600, 0, 1), Ask(400, 0, 1)], [0.0, 0.0])
    assert both.ttft_s == [1.0, 1.0]


def test_prompts_go_first_until_half_of_the_sequences_run() -> None:
    """do_prefill_default: below half at once, else after 16 steps of decodes."""
    rules = lmdeploy(max_batch_size=8).rules
    asks = [Ask(10, 0, 60)] * 3
    assert run(rules, [*asks, Ask(10, 0, 2)], [0.0, 0.0, 0.0, 10.5]).ttft_s[3] == 1.5
    asks = [Ask(10, 0, 60)] * 4
    late = run(rules, [*asks, Ask(10, 0, 2)], [0.0, 0.0, 0.0, 0.0, 10.5]).ttft_s[4]
    assert late == 0.5 + 16 + 1


def test_prompts_that_fill_a_step_do_not_wait_for_it() -> None:
    rules = lmdeploy(max_batch_size=8, max_prefill_token_num=500).rules
    asks = [Ask(10, 0, 60)] * 4
    assert run(rules, [*asks, Ask(500, 0, 2)], [0.0] * 4 + [10.5]).ttft_s[4] == 1.5


def test_a_step_of_decodes_lies_between_the_chunks_of_a_long_prompt() -> None:
    rules = lmdeploy(max_prefill_token_num=1000).rules
    seen = run(rules, [Ask(10, 0, 60), Ask(2500, 0, 2)], [0.0, 5.5])
    assert seen.ttft_s[1] == 0.5 + 5  # chunk, decode, chunk, decode, chunk
    alone = run(rules, [Ask(2500, 0, 2)], [0.0])
    assert alone.ttft_s == [3.0]


def test_a_long_prompt_keeps_others_out_of_its_steps() -> None:
    rules = lmdeploy(max_prefill_token_num=1000).rules
    seen = run(rules, [Ask(1500, 0, 1), Ask(100, 0, 1)], [0.0, 0.0])
    assert seen.ttft_s == [2.0, 3.0]


def test_the_core_that_serves_says_which_rules_hold() -> None:
    assert server_of(Setup("lmdeploy", LLAMA, H200)).rules.mixes
    served = lmdeploy().rules
    assert (served.mixes, served.whole, served.interval) == (False, True, 16)
    assert (served.sequences, served.tokens, served.block) == (1024, 8192, 64)
    assert (lmdeploy().prefix_cache, lmdeploy(enable_prefix_caching=True).prefix_cache) == (
        *(False, True),
    )


def test_only_decodes_are_graphs_in_lmdeploy() -> None:
    graphs = lmdeploy(max_batch_size=256).graphs
    assert (graphs.decode_max, graphs.prompts_max, graphs.pieces_max) == (256, 0, 0)
    assert lmdeploy(eager_mode=True).graphs.decode_max == 0
    assert server_of(Setup("lmdeploy", LLAMA, H200)).graphs.decode_max == 1_000_000


def test_a_cache_may_be_given_in_blocks() -> None:
    given = lmdeploy(num_gpu_blocks=2400)
    assert given.rules.cache_tokens == pytest.approx(2400 * 64)
    assert lmdeploy(num_gpu_blocks=2400, cache_block_seq_len=32).rules.cache_tokens == (
        pytest.approx(2400 * 32)
    )
    smaller = lmdeploy(num_gpu_blocks=2400, quant_policy=8)
    assert smaller.rules.cache_tokens == pytest.approx(2400 * 64)
    assert smaller.work.kv_bytes == given.work.kv_bytes / 2
    assert lmdeploy(num_gpu_blocks=0).rules.cache_tokens > 500_000


def test_sglang_that_never_splits_prompts() -> None:
    """chunked_prefill_size -1: max_prefill_tokens limits a step, and prompts stay whole."""
    rules = server_of(Setup("sglang", LLAMA, H200, config={"chunked_prefill_size": -1})).rules
    assert (rules.chunks, rules.tokens) == (False, 16384)
    seen = run(rules, [Ask(20_000, 0, 1), Ask(100, 0, 1)], [0.0, 0.0])
    assert seen.ttft_s == [1.0, 2.0]


def test_sglang_computes_prompts_first_and_splits_them_to_fill_a_step() -> None:
    config = {"chunked_prefill_size": 1024}
    rules = server_of(Setup("sglang", LLAMA, H200, config=config)).rules
    seen = run(rules, [Ask(600, 0, 3), Ask(600, 0, 3)], [0.0, 0.0])
    assert seen.ttft_s == [1.0, 2.0]
    assert seen.e2e_s == [4.0, 4.0]  # the first waits while the second's rest is computed


def test_sglangs_prefix_cache_can_be_turned_off() -> None:
    setup = Setup("sglang", LLAMA, H200)
    assert server_of(setup).prefix_cache
    off = msgspec.structs.replace(setup, config={"disable_radix_cache": True})
    assert not server_of(off).prefix_cache


def test_variants_name_the_same_knobs() -> None:
    """Whoever asks for a knob's name need not know the config."""
    variant: Scheduling = LMDEPLOY.variants["pytorch"]
    for name in ("sequences", "tokens", "gpus", "weights", "cache", "memory_share", "cache_blocks"):
        assert getattr(variant, name) == getattr(LMDEPLOY, name)


def test_openvino_computes_a_prompt_as_far_as_there_is_room() -> None:
    """A cache of 64: who decodes takes a token more each step, from the prompt that came last."""
    rules = server_of(Setup("openvino", LLAMA, H200)).rules
    assert rules.partly
    rules = msgspec.structs.replace(rules, cache_tokens=64.0, block=1)
    seen = run(rules, [Ask(30, 0, 12), Ask(40, 0, 3)], [0.0, 0.0])
    assert seen.ttft_s[0] == 1.0  # the second's first 32 tokens come with it
    assert seen.e2e_s[0] == 12.0
    assert seen.ttft_s[1] == 13.0
    assert seen.unfinished == 0


def test_openvino_preempts_no_more_than_is_needed() -> None:
    rules = server_of(Setup("openvino", LLAMA, H200)).rules
    rules = msgspec.structs.replace(rules, cache_tokens=100.0, block=1)
    asks = [Ask(40, 0, 20), Ask(40, 0, 20)]
    partly = run(rules, asks, [0.0, 0.0])
    wholly = run(msgspec.structs.replace(rules, partly=False), asks, [0.0, 0.0])
    assert partly.preempted == 1
    assert partly.chunk < wholly.chunk


def tensorrt_llm(cache: float = 310.0, **config: bool | int | str) -> Rules:
    """Return its rules with a cache of so many tokens, in blocks of one."""
    rules = server_of(Setup("tensorrt-llm", LLAMA, H200, config=config)).rules
    return msgspec.structs.replace(rules, cache_tokens=cache, block=1)


def test_guaranteed_no_evict_lets_in_whom_it_can_take_to_the_end() -> None:
    """Room for 2 of 100 + 50 tokens: the third comes in when they have left, after 50 steps."""
    rules = tensorrt_llm()
    assert rules.admission == "whole"  # unset, as with GUARANTEED_NO_EVICT
    seen = run(rules, [Ask(100, 0, 50)] * 3, [0.0] * 3)
    assert seen.ttft_s == [1.0, 1.0, 51.0]
    assert seen.e2e_s == [50.0, 50.0, 100.0]
    assert seen.preempted == 0


def test_guaranteed_no_evict_keeps_room_for_what_is_still_to_come_only() -> None:
    """The first has 20 of its 50 tokens left after 30 steps: what it made is in the cache."""
    rules = tensorrt_llm(cache=260.0)
    seen = run(rules, [Ask(100, 0, 50), Ask(60, 0, 45)], [0.0, 29.5])
    assert seen.ttft_s == [1.0, 1.5]


def test_max_utilization_lets_in_whose_prompts_fit_and_pauses_the_last() -> None:
    """All three prompts fit; their answers do not, so the last one in gives its room back."""
    rules = tensorrt_llm(capacity_scheduler_policy="MAX_UTILIZATION")
    seen = run(rules, [Ask(100, 0, 50)] * 3, [0.0] * 3)
    assert seen.ttft_s == [1.0, 1.0, 1.0]
    assert seen.preempted > 0
    ends = sorted(seen.e2e_s)
    assert ends[0] <= ends[1] < ends[2] <= 101.0
    # With room for all of them nobody is paused.
    roomy = tensorrt_llm(cache=460.0, capacity_scheduler_policy="MAX_UTILIZATION")
    seen = run(roomy, [Ask(100, 0, 50)] * 3, [0.0] * 3)
    assert (seen.e2e_s, seen.preempted) == ([50.0] * 3, 0)


def test_who_waits_behind_one_that_does_not_fit_waits_too() -> None:
    """The first that cannot be taken ends the look at those who wait, however small they are."""
    rules = tensorrt_llm()
    asks = [Ask(100, 0, 50), Ask(200, 0, 50), Ask(10, 0, 2)]
    assert run(rules, asks, [0.0, 0.25, 0.5]).ttft_s == [1.0, 50.75, 50.5]


def test_without_chunked_prefill_a_prompt_waits_for_a_step_with_room() -> None:
    """Off unless it is turned on; decodes take one token of the step each."""
    rules = tensorrt_llm(cache=10_000.0, max_num_tokens=128, max_batch_size=64)
    assert not rules.chunks
    seen = run(rules, [*[Ask(10, 0, 20)] * 10, Ask(120, 0, 2)], [0.0] * 10 + [5.5])
    assert seen.ttft_s[10] == 20 - 5.5 + 1  # 10 + 120 tokens are more than 128 until they end
    split = tensorrt_llm(
        cache=10_000.0, max_num_tokens=128, max_batch_size=64, enable_chunked_prefill=True
    )
    seen = run(split, [*[Ask(10, 0, 20)] * 10, Ask(120, 0, 2)], [0.0] * 10 + [5.5])
    assert seen.ttft_s[10] == 0.5 + 2  # 118 tokens, then 2
