"""The server's own measurements, in Prometheus' text format at /metrics.

Where it stands: engine.py counts, server.py shows. They are the server's side of what the load
generator measures from outside: the two must agree but for the network between them.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmdyno.embedded.messages import LOAD_GAUGES, Load, show_load

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = ("stop", "length", "cancelled", "refused", "failed")
_TOKEN_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_REQUEST_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "llmdyno_requests",
            "Generations that have ended, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self._by_outcome = {name: self._requests.labels(name) for name in OUTCOMES}
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens in accepted prompts.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens made.")
        self._load = {field: self._gauge(*words) for field, words in LOAD_GAUGES.items()}
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From the request to its first token.", first=True
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds", "Between two tokens of a generation.", first=False
        )
        self.request_latency = self._histogram(
            "request_latency_seconds", "From the request to its last token.", first=True
        )

    def ended(self, outcome: str) -> None:
        """Count a generation that has ended; `outcome` is one of OUTCOMES."""
        self._by_outcome[outcome].inc()

    def loaded(self, load: Load) -> None:
        """Show how busy the engine is."""
        show_load(load, self._load)

    def text(self) -> bytes:
        """Return the page in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"llmdyno_{name}", what, registry=self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"llmdyno_{name}", what, registry=self.registry)

    def _histogram(self, name: str, what: str, *, first: bool) -> Histogram:
        buckets = _REQUEST_BUCKETS_S if first else _TOKEN_BUCKETS_S
        return Histogram(f"llmdyno_{name}", what, buckets=buckets, registry=self.registry)
