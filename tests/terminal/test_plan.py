"""A plan in the terminal: what a person must be able to read off it."""

import io

from llmdyno.predict.asked import Plan
from llmdyno.predict.planning import make
from llmdyno.results.slo import parse_slos
from llmdyno.terminal.plan import show_plan
from llmdyno.units import Lengths


def test_before_what_if_and_what_bounds_them_are_printed() -> None:
    plan = Plan(
        model="llama-3.1-8b",
        gpu="h200",
        users=(2,),
        isl=Lengths("fixed", 100),
        osl=Lengths("fixed", 20),
        duration_s=5.0,
        config_only=True,
        price_per_h=3.5,
        what_if=("gpu=l4",),
    )
    out = io.StringIO()
    show_plan(make(plan, ["max_num_seqs=64"]).document, out)
    text = out.getvalue()
    assert "Predicted, not measured: llama-3.1-8b (8.03 billion parameters)" in text
    assert "from data sheets alone" in " ".join(text.split())
    assert "vllm, before: max_num_seqs=64" in text
    assert "vllm on L4, if gpu=l4: max_num_seqs=64" in text
    assert "2 users" in text
    assert "of limit" in text
    assert "Recommended" not in text  # nothing was asked but this config


def test_what_does_not_fit_is_said_in_its_place() -> None:
    plan = Plan(model="llama-3.1-8b", gpu="h200", users=(1,), config_only=True, what_if=("gpu=t4",))
    out = io.StringIO()
    show_plan(make(plan).document, out)
    assert "does not fit: weights 15.0 GiB" in out.getvalue()


def test_gpus_are_a_table_with_the_cheapest_first() -> None:
    plan = Plan(
        model="llama-3.1-8b",
        gpu="h200,h100,t4",
        users=(4,),
        isl=Lengths("fixed", 100),
        osl=Lengths("fixed", 20),
        duration_s=5.0,
        slos=tuple(parse_slos("tpot:p50<50ms")),
        price_per_h={"h200": 9.0, "h100": 2.4, "t4": 0.3},
    )
    out = io.StringIO()
    show_plan(make(plan).document, out)
    text = " ".join(out.getvalue().split())
    assert "on 1 x H200 SXM, H100 SXM, T4, 100 tokens in" in text
    table = text[text.index("GPUs at 4 users, the cheapest first") :]
    assert table.index("H100 SXM vllm") < table.index("H200 SXM vllm")
    assert "T4 does not fit: weights 15.0 GiB" in table
    assert "No measured run on such a GPU has tested the predictor: T4." in table
    assert "Recommended: vllm on H100 SXM" in table
    assert "vllm on H200 SXM, before" not in text  # its row says the best that it can do
