"""What a server has done, in Prometheus' form; vLLM's names with our prefix, so that its dashboards translate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

if TYPE_CHECKING:
    from flashsloth.inference.answer import Answer
    from flashsloth.serving.generation import Generation
    from flashsloth.serving.service import Service

PREFIX = "flashsloth:"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts, visual ones included.")
        self._answer_tokens = self._counter("generation_tokens", "Tokens of answers.")
        self._ends = Counter(
            f"{PREFIX}request_success", "Answers that ended well.", ["finished_reason"], registry=self.registry
        )
        self._refused = Counter(
            f"{PREFIX}request_failure", "Requests that ended in an error.", ["status"], registry=self.registry
        )
        self._first_token = self._histogram("time_to_first_token_seconds", "From acceptance to the first token.")
        self._between = self._histogram("inter_token_latency_seconds", "Between two steps that brought tokens.")
        self._total = self._histogram("e2e_request_latency_seconds", "From acceptance to the last token.")
        self._pictures = self._counter("mm_cache_queries", "Pictures that were asked about.")
        self._hits = self._counter("mm_cache_hits", "Pictures whose features were known.")

    def watch(self, service: Service) -> None:
        """Let the gauges read what is going on."""
        scheduler = service.sloth.engine.scheduler
        self._gauge("num_requests_running", "Answers that are being made.").set_function(lambda: len(scheduler.running))
        self._gauge("num_requests_waiting", "Answers that wait for a row, or for their pictures.").set_function(
            lambda: max(service.engine.accepted - len(scheduler.running), 0)
        )
        self._gauge("engine_steps", "Steps of the engine so far.").set_function(
            lambda: service.sloth.engine_thread.steps
        )
        self._gauge("starved_steps", "At which answers waited beside free rows, twice or more in a row.").set_function(
            lambda: scheduler.starved_steps
        )
        self._gauge("mm_cache_bytes", "Held of pictures that may be asked about again.").set_function(
            lambda: service.sloth.pictures.bytes_held
        )

    def note_step(self, generation: Generation, tokens: int, since: float | None) -> None:
        """Tokens of one request that a step brought, so many seconds after the last; the first come without."""
        self._answer_tokens.inc(tokens)
        if since is not None:
            self._between.observe(since)
        elif generation.times.first_token is not None:
            self._first_token.observe(generation.times.first_token)
            self._prompt_tokens.inc(generation.prompt_tokens)

    def note_end(self, generation: Generation, answer: Answer) -> None:
        """An answer that ended well."""
        self._ends.labels(str(answer.finish_reason)).inc()
        if generation.times.total is not None:
            self._total.observe(generation.times.total)

    def note_failure(self, status: int) -> None:
        """A request that ended in an error."""
        self._refused.labels(str(status)).inc()

    def note_pictures(self, asked: int, known: int) -> None:
        """Pictures of a request."""
        self._pictures.inc(asked)
        self._hits.inc(known)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(f"{PREFIX}{name}", about, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"{PREFIX}{name}", about, registry=self.registry)

    def _histogram(self, name: str, about: str) -> Histogram:
        return Histogram(f"{PREFIX}{name}", about, buckets=SECONDS, registry=self.registry)
