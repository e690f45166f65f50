"""A workload's own prompts in the simulation: what a prefix cache finds of them."""

import itertools
from pathlib import Path

import msgspec
import pytest

from llmdyno.errors import UsageError
from llmdyno.predict.asked import Plan, own_workload
from llmdyno.predict.asking import sessions, typical
from llmdyno.predict.forecast import Setup
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.planning import make
from llmdyno.predict.server import server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import Point, asked, simulated_at
from llmdyno.predict.steptime import MEDIANS
from llmdyno.spec import Workload
from llmdyno.units import Lengths

AGENT = Workload(
    name="agent",
    isl=Lengths("fixed", 800),
    osl=Lengths("fixed", 64),
    turns=Lengths("fixed", 3),
    prefix_share=0.75,
)
SETUP = Setup("vllm", shape_of("meta-llama/Llama-3.1-8B"), gpu_of("h200"))


def test_an_agents_turns_hold_all_that_was_said() -> None:
    first, second = itertools.islice(sessions(AGENT, "8", 16), 2)
    lengths = [ask.prompt for ask in first]
    assert lengths[0] == pytest.approx(800, abs=6)
    assert [later - earlier for earlier, later in itertools.pairwise(lengths)] == [64 + 200] * 2
    for earlier, later in itertools.pairwise(first):
        assert later.blocks[: len(earlier.blocks)] == earlier.blocks
        assert len(earlier.blocks) == (earlier.prompt + earlier.answer) // 16
    alike = [one == other for one, other in zip(first[0].blocks, second[0].blocks, strict=True)]
    assert alike.index(False) == sum(alike) == (lengths[0] - 200) // 16


def test_the_same_level_asks_the_same_and_another_other_prompts() -> None:
    once, again, other = (next(sessions(AGENT, stream, 16)) for stream in ("8", "8", "9"))
    assert once == again
    assert once != other


def test_what_an_agents_prompts_are_like() -> None:
    """Of 800 + 1,064 + 1,328 tokens all but three tasks of 200 (a block each is not whole)."""
    found = typical(AGENT)
    assert found.prompt == pytest.approx(1064, rel=0.01)
    assert found.answer == 64
    assert found.longest == pytest.approx(1392, rel=0.01)
    assert found.cached == pytest.approx(1 - 3 * 208 / 3192, abs=0.02)


def test_other_text_is_counted_by_its_characters(tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "' + "abcd" * 100 + '"}\n')
    found = typical(Workload(name="file", dataset=str(data), osl=Lengths("fixed", 10)))
    assert (found.prompt, found.longest) == (100, 110)
    assert found.cached > 0.9  # always the same one


def simulated(cache: bool, **more: float) -> tuple[float, float]:
    config = {"enable_prefix_caching": cache, **more}
    server = server_of(msgspec.structs.replace(SETUP, config=config))
    point = Point(users=6, duration_s=6.0, workload=AGENT)
    seen = simulated_at(server, point, MEDIANS, together=False, starts=1)
    return seen.happened.cached / seen.happened.prompts, seen.ttft_ms_p50


def test_the_simulated_cache_finds_what_one_without_a_limit_would() -> None:
    share, quick_ms = simulated(cache=True)
    assert share == pytest.approx(typical(AGENT).cached, abs=0.03)
    none, slow_ms = simulated(cache=False)
    assert none == 0.0
    assert quick_ms < 0.9 * slow_ms


def test_a_small_cache_forgets_the_turns_before() -> None:
    token_bytes = 2 * 32 * 8 * 128 * 2
    small, _ = simulated(cache=True, kv_cache_memory_bytes=3000 * token_bytes)
    full, _ = simulated(cache=True)
    assert 0.5 < small < full - 0.05  # the beginning that all share stays


def test_users_take_sessions_in_turn_and_an_open_loop_their_first_turns() -> None:
    server = server_of(SETUP)
    closed = asked(server, Point(users=2, workload=AGENT, duration_s=4.0), 0)
    assert closed.sessions is not None
    assert len(next(iter(closed.sessions))) == 3
    chat = Workload(name="chat", osl=Lengths("fixed", 20))
    open_ = asked(server, Point(request_rate=5.0, workload=chat, duration_s=4.0), 0)
    assert open_.sessions is None
    assert len(open_.asks) == len(open_.starts_s) == 20
    assert all(ask.answer == 20 and ask.blocks for ask in open_.asks)


def test_a_plan_of_a_workload_says_what_its_prompts_are() -> None:
    plan = Plan(
        model="llama-3.1-8b",
        gpu="h200",
        workload="agent",
        turns=Lengths("fixed", 3),
        isl=Lengths("fixed", 800),
        osl=Lengths("fixed", 64),
        users=(2,),
        duration_s=3.0,
        config_only=True,
    )
    [on] = make(plan).document["points"]
    [off] = make(plan, ["enable_prefix_caching=false"]).document["points"]
    assert on["isl"] == pytest.approx(1064, rel=0.01)
    assert on["ttft_ms_p50"]["mean"] < 0.9 * off["ttft_ms_p50"]["mean"]


@pytest.mark.parametrize(
    ("asks", "says"),
    [
        ({"workload": "agent", "cached": 0.5}, "--cached 50%: not together with --workload agent"),
        ({"prefix_share": 0.5}, "--prefix-share 50%: only with --workload agent"),
        ({"workload": "agent", "rates": (1.0,)}, "--workload agent: needs users, -c"),
        ({"workload": "trace"}, "--workload trace: has times of its own"),
        (
            {"workload": "chat", "prefix_share": 0.5},
            "--prefix-share 50%: only for --workload agent",
        ),
        ({"workload": "chta"}, "--workload chta: unknown.*chat"),
        ({"workload": "file"}, "--workload file: needs --dataset"),
    ],
)
def test_what_cannot_be_planned_is_refused(asks: dict[str, object], says: str) -> None:
    def planned() -> None:
        plan = Plan(model="llama-3.1-8b", gpu="h200", **asks)  # type: ignore[arg-type]
        own_workload(plan, plan.isl, plan.osl)

    with pytest.raises(UsageError, match=says):
        planned()


def test_an_open_loop_below_its_limit_gives_what_is_asked() -> None:
    """Counted from when the first requests end, as `dyno bench` counts; not from the ramp on."""
    point = Point(
        request_rate=12.0, isl=Lengths("fixed", 100), osl=Lengths("fixed", 400), duration_s=12.0
    )
    short = msgspec.structs.replace(point, arrival="constant")
    seen = simulated_at(server_of(SETUP), short, MEDIANS, together=False)
    assert seen.token_rate == pytest.approx(12 * 400, rel=0.02)
