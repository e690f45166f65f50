"""OpenVINO GenAI's continuous batching: token ids in, token ids out, a step at a time.

Where it stands: worker.py puts texts and messages around it for our own server, Triton's engine
model (fronts/_triton/openvino.py) puts tensors around it. Both honour the same knobs and refuse the
same requests, because both come here.
"""

import contextlib
import re
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import openvino_genai

from llmdyno.embedded.limits import BLOCK_TOKENS, batch_fault
from llmdyno.embedded.messages import Load
from llmdyno.knobs import Value

FINISH: Mapping[Any, str | None] = {
    openvino_genai.GenerationFinishReason.NONE: None,
    openvino_genai.GenerationFinishReason.STOP: "stop",
    openvino_genai.GenerationFinishReason.LENGTH: "length",
    openvino_genai.GenerationFinishReason.TOOL_CALL: "stop",
}
DROPPED = "The engine dropped the request: it does not fit the KV cache beside the others."
LOST = "The engine ended the request without saying why."
# What the library raises of itself. Out of a step it is the engine's end; out of anything that
# concerns one generation it is that generation's.
LIBRARY_ERRORS = (RuntimeError, ValueError)


class TooLongError(Exception):
    """Prompt and output together are too long; `param` names the one at fault.

    The engine itself would fail on such a request later, or drop it without a message.
    """

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class Handle:
    """A generation in the library, and what it takes to begin it again."""

    def __init__(self, pipeline: "Pipeline", number: int, input_ids: Any, config: Any) -> None:
        self.number = number
        self._pipeline = pipeline
        self._input_ids = input_ids
        self._config = config
        self._made: list[int] = []
        self.logprobs: list[float] = []  # of what was read, if the config asks for them
        self._take_on()

    def _take_on(self) -> None:
        handle = self._pipeline.library.add_request(self.number, self._input_ids, self._config)
        self.can_read = handle.can_read
        self._read = handle.read
        self.read = self._read_with_logprobs if self.says_logprobs else handle.read
        self.get_status = handle.get_status
        self._cancel = handle.cancel

    @property
    def says_logprobs(self) -> bool:
        """Whether the library returns the log-probability of each token, that of the chosen one."""
        return bool(self._config.logprobs)

    def _read_with_logprobs(self) -> Any:
        outputs = self._read()
        for output in outputs.values():
            self.logprobs += output.generated_log_probs
        return outputs

    def keep(self, tokens: Sequence[int]) -> None:
        """Note what has been read: a generation that begins again goes on after it."""
        self._made += tokens

    def cancel(self) -> None:
        """End the generation; its place and its blocks are free after the next step."""
        self._cancel()
        self._pipeline.cancelled(self)

    def begin_again(self) -> None:
        """Have the library go on with a generation that it has dropped, after what it has made.

        Raises:
            RuntimeError: the library does not take it; it stays dropped.
        """
        import numpy as np
        import openvino

        ids = np.concatenate((self._input_ids.data[0], np.array(self._made, dtype=np.int64)))
        self._input_ids = openvino.Tensor(ids[np.newaxis].copy())
        self._config.max_new_tokens -= len(self._made)
        self._config.min_new_tokens = max(0, self._config.min_new_tokens - len(self._made))
        self._made = []
        self._take_on()


class Pipeline:
    """The library's pipeline, warmed up, and the limits that the library does not report."""

    def __init__(self, model: str, context_length: int, config: Mapping[str, Value]) -> None:
        scheduler, properties = _split(config)
        self.library = openvino_genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", properties, {}, {}
        )
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._let_go = False  # whether a generation was cancelled since the last step
        self.tokenizer = self.library.get_tokenizer()
        cache_tokens = self._cache_tokens(scheduler)
        self.max_tokens = min(context_length, cache_tokens)
        self._whole_prompt_tokens = (
            None if scheduler.dynamic_split_fuse else int(scheduler.max_num_batched_tokens)
        )
        whole = self._whole_prompt_tokens
        if whole is not None and (fault := batch_fault(whole, cache_tokens)):
            raise RuntimeError(fault)

    def busy(self) -> bool:
        """Say whether another step would do something."""
        return bool(self.library.has_non_finished_requests())

    def step(self) -> None:
        """Make a token for each generation that is running, or compute prompts.

        A cancelled generation holds its place and its blocks until the end of the next step. A step
        that finds nothing to do beside it is taken for a full cache, and drops all generations that
        wait for that place (m_total_num_scheduled_tokens == 0 in pipeline_impl.cpp). They are none
        the worse for it: they begin again.
        """
        let_go, self._let_go = self._let_go, False
        self.library.step()
        if let_go:
            again = [handle for handle in self._handles if dropped(handle)]
            for handle in sorted(again, key=lambda handle: handle.number):
                with contextlib.suppress(*LIBRARY_ERRORS):
                    handle.begin_again()

    def cancelled(self, handle: Handle) -> None:
        """Note that a generation was cancelled: the next step may drop others for it."""
        self._handles.discard(handle)
        self._let_go = True

    def config(self, *, max_tokens: int, ignore_eos: bool) -> Any:
        """Return the library's own GenerationConfig, greedy until it is told otherwise."""
        config = self.library.get_config()
        config.max_new_tokens = max_tokens
        config.ignore_eos = ignore_eos
        config.do_sample = False
        return config

    def add(self, number: int, input_ids: Any, config: Any) -> Handle:
        """Take a generation on, and return its handle."""
        handle = Handle(self, number, input_ids, config)
        self._handles.add(handle)
        return handle

    def room(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """Return how many tokens to make.

        Raises:
            TooLongError: there is no room for them.
        """
        total = prompt_tokens + (1 if max_tokens is None else max_tokens)
        if total > self.max_tokens:
            raise TooLongError(
                f"This model's maximum is {self.max_tokens} tokens, prompt and output together;"
                f" {prompt_tokens} in the prompt and {total - prompt_tokens} to make are {total}.",
                "max_tokens" if prompt_tokens < self.max_tokens else "prompt",
            )
        # A preempted generation is computed again from its prompt and what it has made, in one go.
        whole = self._whole_prompt_tokens
        if whole is not None and total > whole:
            raise TooLongError(
                f"The prompt's {prompt_tokens} tokens and the {total - prompt_tokens} to make"
                f" exceed max_num_batched_tokens={whole}, and dynamic_split_fuse=false does not"
                " split them.",
                "max_tokens" if prompt_tokens < whole else "prompt",
            )
        if max_tokens is not None:
            return max_tokens
        return min(self.max_tokens, whole or self.max_tokens) - prompt_tokens

    def load(self, generations: int) -> Load:
        """Return how busy the engine is with so many generations."""
        if not generations:  # the library's figures are those of the last step, for ever
            return Load(0, 0, 0.0)
        metrics = self.library.get_metrics()
        running = min(metrics.scheduled_requests, generations)
        return Load(running, generations - running, metrics.cache_usage / 100)

    def _cache_tokens(self, scheduler: Any) -> int:
        """Make one token, which warms up, and return how many tokens the KV cache can hold.

        The library says only how full the cache is: one block is so much of it.
        """
        config = self.config(max_tokens=1, ignore_eos=True)
        handle = self.add(0, self.tokenizer.encode("a").input_ids, config)
        self.step()
        full = self.library.get_metrics().max_cache_usage / 100
        while self.busy():
            self.step()
        if handle.get_status() != openvino_genai.GenerationStatus.FINISHED or not full:
            raise RuntimeError("the engine cannot make a single token with this config")
        limited = scheduler.cache_size or scheduler.num_kv_blocks
        return BLOCK_TOKENS * round(1 / full) if limited else sys.maxsize


def read(handle: Handle) -> tuple[list[int], str | None]:
    """Return the tokens of the last step, and the finish reason with the last of them.

    A read may bring nothing at all: the library sends an empty output when it drops a generation,
    or ends one whose tokens it has handed out already (push_finished_hidden_states and
    push_empty_outputs in its sequence_group.hpp).
    """
    tokens: list[int] = []
    finish = None
    while handle.can_read():
        for output in handle.read().values():
            tokens += output.generated_ids
            finish = FINISH.get(output.finish_reason, "stop")
    if tokens:
        handle.keep(tokens)
    elif handle.get_status() == openvino_genai.GenerationStatus.FINISHED:
        finish = finish or "stop"
    return tokens, finish


def dropped(handle: Handle) -> bool:
    """Return whether the engine has dropped the generation, which it does without a message."""
    return bool(handle.get_status() == openvino_genai.GenerationStatus.IGNORED)


def reason(error: Exception) -> str:
    """Return the library's error message without the place in its source."""
    lines = [line for line in str(error).splitlines() if not line.startswith("Exception from")]
    said = " ".join(" ".join(lines).split())
    said = re.sub(r" at /\S+:\d+(:|(?= |$))", r"\1", said)
    return said or type(error).__name__


def _split(config: Mapping[str, Value]) -> tuple[Any, dict[str, Value]]:
    """Sort a config into the scheduler's fields and the device's properties (in capitals)."""
    scheduler = openvino_genai.SchedulerConfig()
    properties: dict[str, Value] = {}
    for name, value in config.items():
        if name.isupper():
            properties[name] = value
        elif hasattr(scheduler, name):
            setattr(scheduler, name, value)
        else:
            raise RuntimeError(f"'{name}' is no setting of OpenVINO GenAI's scheduler")
    # The library's own window of 8 tokens ends the engine at the first prompt of 33 to 39 tokens:
    # beyond the 32 that are never evicted it has fewer scores than the window
    # (new_scores_size >= num_snapkv_scores, _accumulate_initial_scores in cache_eviction.cpp).
    eviction = scheduler.cache_eviction_config
    eviction.snapkv_window_size = min(eviction.snapkv_window_size, 1)
    scheduler.cache_eviction_config = eviction
    return scheduler, properties
