"""One load point of a run, and the plan of one process's share of it.

A Point is everything that a worker needs to reproduce the load point, serialisable as one line of
JSON. A level in this process, in workers and on other machines is made from the same point, so all
of them send the same prompts at the same times.
"""

from collections.abc import Mapping, Sequence

import msgspec

from llmdyno.endpoints import Ask, Endpoint, locate
from llmdyno.load.arrivals import due_times_s
from llmdyno.spec import Asked, Bench, Load, draw, parse_models
from llmdyno.wire.headers import Header
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.target import Target, parse_url
from llmdyno.workload.prompts import Prompts
from llmdyno.workload.sessions import Item
from llmdyno.workload.share import Share


def target_of(spec: Bench, secrets: Sequence[Header] = ()) -> Target:
    """Return the server of a benchmark, checked.

    Args:
        spec: what is run.
        secrets: the headers whose values no spec has: see wire/headers.py.

    Raises:
        UsageError: the URL, a header, a certificate or the proxy cannot be used.
    """
    place = locate(spec.url, spec.endpoint)
    return parse_url(
        place.url,
        version=place.version,
        query=place.query,
        more_headers=(*spec.plain_headers, *secrets),
        ca_cert=spec.ca_cert,
        insecure=spec.insecure,
        client_cert=spec.client_cert,
        client_key=spec.client_key,
        proxy=spec.proxy,
    )


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One share of a load point, ready to run: with the server, the endpoint and the due times."""

    level: int
    users: int  # of a closed loop
    load: Load
    target: Target
    endpoint: Endpoint
    model: str  # or several with their shares, as --model takes them
    draws: str = ""  # the random stream that tells which request asks which model
    renamed: Mapping[str, str] = {}  # fields that the server calls otherwise: see Ask
    tensors: tuple[Tensor, ...] = ()  # the model's inputs, for endpoints that need them
    repeat: int = 0
    rate: float | None = None  # requests a second, of an open loop
    due_s: Sequence[float] | None = None  # of an open loop, ascending, since the level's start
    share: Share = Share()  # the part of the level that this process runs
    hashed: bool = False  # records say with hashes how their prompts begin

    @property
    def models(self) -> tuple[Asked, ...]:
        """The models that are asked, with their shares of the requests."""
        return parse_models(self.model)

    def model_of(self, request: int, session: int) -> str:
        """Return the model of a request; all requests of a session ask the same.

        Args:
            request: its number in the level.
            session: the session's number; -1: it stands alone.
        """
        if "," not in self.model:  # the usual case costs nothing
            return self.model
        kind, number = ("request", request) if session < 0 else ("session", session)
        return draw(self.models, f"{self.draws}/{kind}/{number}")

    @property
    def requests(self) -> int | None:
        """The number of requests of the whole level; None if it ends by its duration."""
        if self.load.ends_by_count and self.due_s is not None:
            return len(self.due_s)
        return self.load.requests

    def ask(self, item: Item, model: str) -> Ask:
        """Return what the endpoint is asked for an item of the workload."""
        return Ask(
            prompt=item.prompt,
            system_prompt=item.system_prompt,
            history=item.history,
            model=model,
            max_tokens=item.max_tokens,
            exact_length=item.exact_length,
            renamed=self.renamed,
            tensors=self.tensors,
        )


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One load point of a run: the spec, and what distinguishes it from the other load points."""

    spec: Bench  # with endpoint, model and tensors filled in
    level: int
    repeat: int
    load: float  # users, requests a second, or the speed of a trace
    # How often this load was measured before: in earlier rounds, or by a search that returns to it.
    # Each time draws other prompts and arrivals, so that no prefix cache can hit.
    again: int = 0
    tokens_per_word: float = 1.0  # of synthetic prompts, as this server counts
    tokens_fixed: float = 0.0  # tokens that the server adds to every prompt: its chat template

    @property
    def stream(self) -> str:
        """The name of the random stream from which this level draws prompts and arrivals."""
        return f"{self.load:g}/{self.again}" if self.again else f"{self.load:g}"

    def prompts(self, share: Share) -> Prompts:
        """Return the source of the prompts of a share.

        Raises:
            UsageError: the workload's file of prompts cannot be read.
        """
        return Prompts(
            self.spec.workload,
            self.stream,
            tokens_per_word=self.tokens_per_word,
            tokens_fixed=self.tokens_fixed,
            share=share,
        )

    def plan(self, prompts: Prompts, target: Target, endpoint: Endpoint, share: Share) -> Plan:
        """Return the plan of one share; it draws the due times of an open loop.

        Args:
            prompts: of the same share, from `prompts()`; a trace has its times from there.
            target: the server.
            endpoint: the protocol it speaks.
            share: the part of the load point to plan.
        """
        load = self.spec.load
        has_rate = load.is_open and load.arrival != "trace"
        return Plan(
            level=self.level,
            users=0 if load.is_open else round(self.load),
            rate=self.load if has_rate else None,
            due_s=self._due_s(prompts),
            load=load,
            target=target,
            endpoint=endpoint,
            model=self.spec.model,
            draws=f"{self.spec.workload.seed}/{self.stream}/models",
            renamed=self.spec.renamed,
            tensors=self.spec.tensors,
            repeat=self.repeat,
            share=share,
            hashed=prompts.hashed,
        )

    def _due_s(self, prompts: Prompts) -> list[float] | None:
        """Return when the requests of an open loop are due, as drawn or as in the trace."""
        load = self.spec.load
        if load.arrival == "trace":
            return [due_s / self.load for due_s in prompts.due_s[: load.requests]]
        if load.is_open:
            return due_times_s(load, self.load, f"{self.spec.workload.seed}/{self.stream}")
        return None
