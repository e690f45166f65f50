"""Triton model: the embedded engine, token ids → token ids, streamed.

The names and shapes are those of TensorRT-LLM's engine model, with one more output: CONTEXT_LENGTH
(postprocessing.py says what for). The engine is embedded/pipeline.py in this very process, which is
the model's own: a step holds Python's lock, and there is nobody here whom that would stop.

One thread does everything: takes the requests that `execute` has queued, steps, sends. A request
whose client has hung up is cancelled: Triton says so, or in an ensemble, where it does not, nobody
has acknowledged its pieces for a while (postprocessing.py). One that the engine drops or that does
not fit becomes an error. If a step fails, the process ends: a server that cannot make tokens must
not look well.
"""

import array
import contextlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmdyno.embedded.messages import LOAD_GAUGES, Load, show_load
from llmdyno.embedded.pipeline import DROPPED, Pipeline, TooLongError, dropped, read, reason
from llmdyno.fronts._triton import wire
from llmdyno.fronts._triton.postprocessing import CONTEXT_TOKENS, opened

# To ask whether a client has gone takes a round trip to the server for each request.
CANCELLATION_CHECK_S = 0.2
# Without an acknowledgement for so long, a stream in an ensemble has lost its client.
ACKNOWLEDGED_WITHIN_S = 5.0
LOAD_INTERVAL_S = 0.25
_END = None  # queued by finalize: no more requests come

_log = logging.getLogger("llmdyno.triton")


class Generation:
    """One generation, and the token ids that may be sent to its client so far."""

    def __init__(self, sender: Any, *, name: str, streams: bool, stops: "StopWords") -> None:
        self.sender = sender
        self.name = name  # the request's id, if its client has given it one
        self.prompt_tokens = 0
        self.relayed = False  # in an ensemble
        self.unacknowledged_s: float | None = None  # since when
        self.handle: Any = None
        self._streams = streams
        self._stops = stops
        self._sent: list[int] = []  # the last tokens that were sent
        self._held: list[int] = []  # those that wait: for the end, or as a part of a stop word
        self._made = 0  # tokens that the client was not told of yet

    def feed(self, tokens: Sequence[int], finish: str | None) -> tuple[list[int], int, bool] | None:
        """Take what a step has made; return (context and new ids, context, ended) to be sent.

        Nothing is to be sent while all of it has to wait.
        """
        self._made += len(tokens)
        self._held += tokens
        shown, stopped = self._stops.cut(self._held)
        ended = stopped or finish is not None
        if finish is not None and not stopped:
            shown = len(self._held)
        if not ended and not (self._streams and shown):
            return None
        context = len(self._sent)
        ids = self._sent + self._held[:shown]
        self._sent = ids[-CONTEXT_TOKENS:]
        del self._held[:shown]
        return ids, context, ended

    def count(self) -> int:
        """Return how many tokens were made since the last call."""
        made, self._made = self._made, 0
        return made


class StopWords:
    """Finds the first of some sequences of ids in what a generation makes."""

    def __init__(self, words: Sequence[Sequence[int]]) -> None:
        self._words = [list(word) for word in words]
        self._longest = max((len(word) for word in words), default=0)

    def cut(self, ids: list[int]) -> tuple[int, bool]:
        """Return how many ids may be shown, and whether a stop word comes after them."""
        if not self._words:
            return len(ids), False
        for at in range(len(ids)):
            if any(ids[at : at + len(word)] == word for word in self._words):
                return at, True
        for at in range(max(0, len(ids) - self._longest + 1), len(ids)):
            if any(word[: len(ids) - at] == ids[at:] for word in self._words):
                return at, False  # it may be the beginning of one
        return len(ids), False


def words_of(ids: Sequence[int], ends: Sequence[int]) -> list[list[int]]:
    """Return the words of a list as preprocessing.word_list writes it."""
    words: list[list[int]] = []
    begin = 0
    for end in ends:
        if end > begin:
            words.append(list(ids[begin:end]))
            begin = end
    return words


class OpenVino:
    """The model; its first three methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and make a token."""
        self._triton = wire.triton()
        parameters = wire.parameters(json.loads(args["model_config"]))
        try:
            self._pipeline = Pipeline(
                parameters["model_path"],
                int(parameters["context_length"]),
                json.loads(parameters["config"]),
            )
        except (RuntimeError, ValueError, MemoryError) as error:  # what the library raises
            words = f"llmdyno.triton: the engine failed: {reason(error)}"
            raise self._triton.TritonModelException(words) from error
        self._end_id = int(self._pipeline.tokenizer.get_eos_token_id())
        self._max_queue_size = int(parameters["max_queue_size"])
        self._acknowledged = opened(parameters["acknowledgements"])
        self._streams = parameters["decoupled_mode"] == "true"
        self._metrics = Metrics(self._triton, args["model_name"])
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._generations: dict[int, Generation] = {}
        self._numbers = 0
        self._running = 0
        self._check_due_s = 0.0
        self._load_due_s = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Hand the requests to the engine's thread, which answers when it has tokens."""
        for request in requests:
            self._arrived.put(request)

    def finalize(self) -> None:
        """Let the step under way come to its end."""
        self._arrived.put(_END)
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            while self._take():
                self._step()
        except Exception:  # noqa: BLE001 - whatever it is: without this thread no request is ever answered
            _log.exception("the engine failed")
            os._exit(1)

    def _take(self) -> bool:
        """Begin what has arrived, waiting for it only when there is no work; False is the end."""
        while not self._pipeline.busy() or not self._arrived.empty():
            request = self._arrived.get()
            if request is _END:
                return False
            self._begin(request)
        return True

    def _step(self) -> None:
        self._cancel_abandoned()
        if self._pipeline.busy():
            self._pipeline.step()
        for number, generation in list(self._generations.items()):
            tokens, finish = read(generation.handle)
            if tokens or finish:
                self._send(number, generation, tokens, finish)
            elif dropped(generation.handle):
                self._refuse(generation.sender, DROPPED)
                self._forget(number, "refused")
        self._show_load()

    def _begin(self, request: Any) -> None:
        sender = request.get_response_sender()
        try:
            if wire.scalar(self._triton, request, "stop"):
                self._stop(request.request_id())
                sender.send(flags=self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                return
            if self._max_queue_size and (
                len(self._generations) - self._running >= self._max_queue_size
            ):
                self._metrics.ended["refused"].increment(1)
                self._refuse(
                    sender,
                    f"max_queue_size={self._max_queue_size}: as many requests wait already.",
                    self._triton.TritonError.UNAVAILABLE,
                )
                return
            self._add(request, sender)
        except (TooLongError, ValueError, RuntimeError) as error:  # the last from the library
            words = str(error) if isinstance(error, TooLongError) else reason(error)
            self._metrics.ended["refused"].increment(1)
            self._refuse(sender, words)

    def _add(self, request: Any, sender: Any) -> None:
        def scalar(name: str) -> Any:
            return wire.scalar(self._triton, request, name)

        ids = wire.values(self._triton, request, "input_ids")[: scalar("input_lengths")]
        max_tokens = self._pipeline.room(len(ids), scalar("request_output_len"))
        config = self._configured(request, max_tokens)
        generation = Generation(
            sender,
            name=request.request_id(),
            streams=self._streams and bool(scalar("streaming")),
            stops=StopWords(self._words(request, "stop_words_list")),
        )
        generation.prompt_tokens = len(ids)
        generation.relayed = bool(scalar(wire.RELAYED[1]))
        self._numbers += 1
        prompt = np.array([ids], dtype=np.int64)
        generation.handle = self._pipeline.add(self._numbers, openvino_tensor(prompt), config)
        self._generations[self._numbers] = generation
        self._metrics.prompt_tokens.increment(len(ids))

    def _configured(self, request: Any, max_tokens: int) -> Any:
        """Return the library's config for a request; without a word on sampling it is greedy."""

        def scalar(*names: str) -> Any:  # the newer name first
            found = [wire.scalar(self._triton, request, name) for name in names]
            return next((value for value in found if value is not None), None)

        if (scalar("beam_width") or 1) != 1:
            raise ValueError("beam_width: this engine has no beam search; leave it out.")
        if self._words(request, "bad_words_list"):
            raise ValueError("bad_words: this engine cannot forbid words; leave them out.")
        end_id, least = scalar("end_id"), scalar("min_tokens", "min_length") or 0
        never_ends = (end_id is not None and end_id < 0) or least >= max_tokens
        config = self._pipeline.config(max_tokens=max_tokens, ignore_eos=never_ends)
        if not never_ends:
            config.min_new_tokens = least
        if end_id is not None and end_id >= 0 and end_id != self._end_id:
            config.eos_token_id = end_id
            config.stop_token_ids = {end_id}
        temperature, top_k, top_p = (
            scalar("temperature"),
            scalar("runtime_top_k"),
            scalar("runtime_top_p"),
        )
        sampled = temperature > 0 if temperature is not None else bool(top_k or top_p)
        if sampled and top_k != 1:
            config.do_sample = True
            config.temperature = temperature or 1.0
            config.top_p = top_p or 1.0
            if top_k:
                config.top_k = top_k
            seed = scalar("seed", "random_seed")
            config.rng_seed = int.from_bytes(os.urandom(7)) if seed is None else seed
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            if (value := scalar(name)) is not None:
                setattr(config, name, value)
        config.validate()
        return config

    def _words(self, request: Any, name: str) -> list[list[int]]:
        flat = wire.values(self._triton, request, name)
        return words_of(flat[: len(flat) // 2], flat[len(flat) // 2 :])

    def _send(
        self, number: int, generation: Generation, tokens: Sequence[int], finish: str | None
    ) -> None:
        self._metrics.generation_tokens.increment(len(tokens))
        ready = generation.feed(tokens, finish)
        if ready is None:
            return
        ids, context, ended = ready
        counts = [
            # A tensor is never empty; its length says what counts.
            ("output_ids", [[ids or [0]]]),
            ("sequence_length", [[len(ids)]]),
            ("context_length", [[context]]),
            ("generation", [[number]]),
            ("num_input_tokens", [[generation.prompt_tokens]]),
            ("num_output_tokens", [[generation.count()]]),
        ]
        response = self._triton.InferenceResponse(
            [self._triton.Tensor(name, np.array(rows, dtype=np.int32)) for name, rows in counts]
        )
        flags = self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL if ended else 0
        generation.sender.send(response, flags=flags)
        if generation.relayed and generation.unacknowledged_s is None:
            generation.unacknowledged_s = time.monotonic()
        if ended:
            if finish is None:  # a stop word, of which the engine knows nothing
                generation.handle.cancel()
            self._forget(number, finish or "stop")

    def _cancel_abandoned(self) -> None:
        now_s = time.monotonic()
        if now_s < self._check_due_s:
            return
        self._check_due_s = now_s + CANCELLATION_CHECK_S
        self._acknowledge()
        for number, generation in list(self._generations.items()):
            since_s = generation.unacknowledged_s
            if generation.sender.is_cancelled():
                self._cancel(number, generation)
            elif since_s is not None and now_s - since_s > ACKNOWLEDGED_WITHIN_S:
                generation.handle.cancel()
                words = f"nobody took its tokens for {ACKNOWLEDGED_WITHIN_S:g} s."
                self._refuse(generation.sender, words, self._triton.TritonError.CANCELLED)
                self._forget(number, "cancelled")

    def _acknowledge(self) -> None:
        """Read whose pieces have reached postprocessing."""
        assert self._acknowledged is not None
        with contextlib.suppress(BlockingIOError):  # it is empty now
            while True:
                for number in array.array("i", os.read(self._acknowledged, 1 << 16)):
                    if generation := self._generations.get(number):
                        generation.unacknowledged_s = None

    def _stop(self, name: str) -> None:
        """Cancel the generations of that request id: how TensorRT-LLM's engine model is told."""
        for number, generation in list(self._generations.items()):
            if name and generation.name == name:
                self._cancel(number, generation)

    def _cancel(self, number: int, generation: Generation) -> None:
        generation.handle.cancel()
        generation.sender.send(flags=self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        self._forget(number, "cancelled")

    def _forget(self, number: int, outcome: str) -> None:
        del self._generations[number]
        self._metrics.ended[outcome].increment(1)

    def _refuse(self, sender: Any, words: str, code: Any = None) -> None:
        wrong = self._triton.TritonError.INVALID_ARG if code is None else code
        error = self._triton.TritonError(words, wrong)
        response = self._triton.InferenceResponse(error=error)
        sender.send(response, flags=self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _show_load(self) -> None:
        """Tell how busy the engine is, a few times a second and when it falls idle."""
        now_s = time.monotonic()
        load = self._pipeline.load(len(self._generations))
        self._running = load.running
        if self._generations and now_s < self._load_due_s:
            return
        self._load_due_s = now_s + LOAD_INTERVAL_S
        self._metrics.loaded(load)


class Metrics:
    """What Triton shows of the engine, under the names of the embedded server's own page."""

    def __init__(self, triton: Any, model: str) -> None:
        self._triton = triton
        self._families: list[Any] = []  # a metric lives as long as its family
        self._labels = {"model": model}
        counter, gauge = triton.MetricFamily.COUNTER, triton.MetricFamily.GAUGE
        self.prompt_tokens = self._metric("prompt_tokens_total", "Tokens in prompts.", counter)
        self.generation_tokens = self._metric("generation_tokens_total", "Tokens made.", counter)
        requests = self._family("requests_total", "Generations that have ended.", counter)
        self.ended = {
            outcome: requests.Metric(labels={**self._labels, "outcome": outcome})
            for outcome in ("stop", "length", "cancelled", "refused")
        }
        self._load = {field: self._metric(*words, gauge) for field, words in LOAD_GAUGES.items()}

    def loaded(self, load: Load) -> None:
        """Show how busy the engine is."""
        show_load(load, self._load)

    def _family(self, name: str, what: str, kind: Any) -> Any:
        family = self._triton.MetricFamily(name=f"llmdyno_{name}", description=what, kind=kind)
        self._families.append(family)
        return family

    def _metric(self, name: str, what: str, kind: Any) -> Any:
        return self._family(name, what, kind).Metric(labels=self._labels)


def openvino_tensor(content: Any) -> Any:
    """Return an array as the library's tensor."""
    import openvino

    return openvino.Tensor(content)
