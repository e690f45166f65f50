"""Flags that several commands take."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer


def given_flags(values: Mapping[str, Any], *, without: tuple[str, ...]) -> dict[str, Any]:
    """Return the flags that were given."""
    return {
        name: value for name, value in values.items() if value is not None and name not in without
    }


def option(*names: str, help: str, metavar: str | None = None) -> Any:  # noqa: A002  # typer's own word
    """Return an option whose help says its default itself."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


# What `bench` and `tune` both take.
Text = str | None
Users = Annotated[
    Text,
    option(
        "-c",
        "--users",
        "--concurrency",
        help="Users, a level each. [10,50,100]",
        metavar="N[,N...]",
    ),
]
Ramp = Annotated[
    Text,
    option("--ramp", help="Users come, a rate grows within it. [20s or --duration/4; rate: 0s]"),
]
Duration = Annotated[Text, option("--duration", help="Of a level, its ramp included. [5m]")]
Interval = Annotated[Text, option("--interval", help="Between samples of the time series. [5s]")]
WorkloadName = Annotated[
    Text, option("--workload", help="chat, chat-system, synthetic, sessions, file. [chat]")
]
Dataset = Annotated[
    Text,
    option("--dataset", help="Prompts or a trace: FILE or hf:ORG/NAME.", metavar="FILE"),
]
Isl = Annotated[
    Text, option("--isl", "--input-len", help="Input tokens: 128, 64-256, normal:128,32.")
]
Osl = Annotated[
    Text, option("--osl", "--output-len", help="Output tokens, exact. [the model's, up to 512]")
]
SystemPrompt = Annotated[
    Text, option("--system-prompt", help="Text file put before every prompt.", metavar="FILE")
]
Seed = Annotated[int | None, option("--seed", help="Of the prompts drawn. [0]")]
ThinkTime = Annotated[
    Text, option("--think-time", help="A user's pause between requests; 1s-5s: uniform. [10ms]")
]
Timeout = Annotated[Text, option("--timeout", help="Of one request. [600s]")]
Grace = Annotated[Text, option("--grace", help="For requests in flight at the end. [30s]")]
Slo = Annotated[
    Text, option("--slo", "--goodput", help="Thresholds, e.g. 'ttft:p99<2s,tpot:p95<50ms'.")
]
Out = Annotated[Text, option("--out", help="Folder of the results.", metavar="DIR")]
AsJson = Annotated[
    bool, option("--json", help="Print the result as one JSON document, last on stdout.")
]
Sets = Annotated[
    list[str] | None,
    option("--set", help="Set a knob; may be repeated.", metavar="KNOB=VALUE"),
]
EngineName = Annotated[Text, option("--engine", help="What computes tokens. [openvino]")]
FrontName = Annotated[Text, option("--front", help="What serves it. [native]")]
ContainerName = Annotated[
    str,
    option(
        "--container",
        help="Run the engine in its image: auto (if it is not installed), docker, podman,"
        " apptainer. [none]",
    ),
]
Port = Annotated[
    int, typer.Option("--port", help="To listen on. [8000]", min=1, max=65535, show_default=False)
]
ModelName = Annotated[
    Text, option("--model", "-m", help="A built-in name (tiny, small), a path or a hub id.")
]
