"""The server's own measurements, in Prometheus' text format at /metrics.

Where it stands: engine.py counts, server.py shows. They are the server's side of what the load
generator measures from outside: the two must agree but for the network between them.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmdyno.embedded.messages import Load

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
        self._running = self._gauge("requests_running", "Generations in the last step.")
        self._waiting = self._gauge("requests_waiting", "Generations that wait for their turn.")
        self._kv_use = self._gauge("kv_cache_usage_ratio", "Share of the KV cache in use.")
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
        """Count a generation that has ended."""
        self._by_outcome[outcome].inc()

    def loaded(self, load: Load) -> None:
        """Take over how busy the engine says it is."""
        self._running.set(load.running)
        self._waiting.set(load.waiting)
        self._kv_use.set(load.kv_use)

    def text(self) -> bytes:
        """Return the page for a scraper."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"llmdyno_{name}", what, registry=self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"llmdyno_{name}", what, registry=self.registry)

    def _histogram(self, name: str, what: str, *, first: bool) -> Histogram:
        buckets = _REQUEST_BUCKETS_S if first else _TOKEN_BUCKETS_S
        return Histogram(f"llmdyno_{name}", what, buckets=buckets, registry=self.registry)
