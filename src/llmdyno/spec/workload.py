"""What is asked."""

from typing import Annotated

import msgspec

from llmdyno.errors import UsageError
from llmdyno.flag import FILE_TEXT, LENGTHS, SHARE, TEXT, TRUTH, WHOLE, Flag
from llmdyno.units import Lengths, percent

CHAT_OUTPUT_TOKENS = 512  # the most a chat answer may take, as in the 2024 client


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; the workload of that name checks what else it needs (`workload.check`)."""

    name: Annotated[
        str,
        Flag(TEXT, "What is asked", name="workload", plugins="workload.kinds", heading="Workload"),
    ] = "chat"
    dataset: Annotated[
        str | None, Flag(TEXT, "Prompts or a trace: a file or hf:ORG/NAME.", metavar="FILE")
    ] = None
    isl: Annotated[
        Lengths | None,
        Flag(LENGTHS, "Input tokens: 128, 64-256 or normal:128,32.", ("--input-len",)),
    ] = None
    osl: Annotated[
        Lengths | None,
        Flag(
            LENGTHS,
            "Output tokens, exact whatever the model says.",
            ("--output-len",),
            default=f"the model's own number, at most {CHAT_OUTPUT_TOKENS}",
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        Flag(WHOLE, "Most output tokens of an answer; the model may end before.", tune="file"),
    ] = None
    dataset_osl: Annotated[
        bool, Flag(TRUTH, "Make answers exactly as long as the data set's.", tune="file")
    ] = False
    unique: Annotated[
        bool,
        Flag(TRUTH, "Prefix each prompt with a number, so no prefix cache can hit.", tune="file"),
    ] = False
    turns: Annotated[
        Lengths, Flag(LENGTHS, "Turns of a session of our own prompts: 4 or 2-6.", tune="file")
    ] = Lengths("uniform", 2, 6)
    prefix_share: Annotated[
        float | None,
        Flag(
            SHARE,
            "Share of an agent's first prompt that all have in common, e.g. 75%.",
            default="75% with --workload agent",
            tune="file",
        ),
    ] = None
    system_prompt: Annotated[str, Flag(FILE_TEXT, "Text file that is put before every prompt.")] = (
        ""
    )
    seed: Annotated[int, Flag(WHOLE, "Seed of the prompts that are drawn.")] = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must be at least 0.")
        if self.prefix_share is not None and not 0 <= self.prefix_share < 1:
            raise UsageError(
                f"--prefix-share {percent(self.prefix_share)}: must be from 0% to below 100%, such"
                " as 75%."
            )
        if self.max_tokens is None:
            return
        if self.max_tokens < 1:
            raise UsageError(f"--max-tokens {self.max_tokens}: must be at least 1.")
        exact = "--osl" if self.osl is not None else "--dataset-osl" if self.dataset_osl else ""
        if exact:
            raise UsageError(
                f"--max-tokens {self.max_tokens}: not together with {exact}, which makes answers"
                " exactly as long as it says; leave out one of the two."
            )
