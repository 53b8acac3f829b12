"""
What the service counts, for Prometheus.

Labels have few values each: no tenant, no key, no path, as each value of a label is a time series that someone's
Prometheus keeps.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from database.replicas import lag
from database.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from components.answers import Answer
    from database.connection import Database
    from database.reading import Replica
    from pipelines.answering import Found
    from pipelines.conversing import Reply

REGISTRY = CollectorRegistry()

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REQUESTS = Counter("synapse_requests", "Requests that were answered.", ["method", "route", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "synapse_request_seconds",
    "From a request to the end of its answer.",
    ["route"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
RUNNING = Gauge("synapse_requests_running", "Requests that are being answered.", registry=REGISTRY)
STAGE_SECONDS = Histogram(
    "synapse_stage_seconds",
    "What each step of a question took: embedder, retriever, llm …",
    ["stage"],
    buckets=_STAGE_SECONDS,
    registry=REGISTRY,
)
ANSWERS = Counter(
    "synapse_answers",
    "Questions, by what became of them: answered, empty, failed, left.",
    ["outcome"],
    registry=REGISTRY,
)
TOKENS = Counter("synapse_tokens", "Tokens of the language model.", ["direction"], registry=REGISTRY)
FIRST_TEXT_SECONDS = Histogram(
    "synapse_first_text_seconds",
    "From a question to the first words of its answer.",
    buckets=_SECONDS,
    registry=REGISTRY,
)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request."""
    REQUESTS.labels(method, route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)


def observe_found(found: Found) -> None:
    """Count what each step of a search took."""
    _observe_stages(found.timings_ms)


def observe_answer(answer: Answer) -> None:
    """Count an answer, and what each step took."""
    ANSWERS.labels("answered" if answer.supported else "empty").inc()
    _observe_stages(answer.timings_ms)


async def observed(parts: AsyncIterator[str | Reply]) -> AsyncIterator[str | Reply]:
    """
    The parts of an answer as they come, counted on their way: the first words, the answer, its tokens.

    :param parts: As `Service.stream` gives them: texts, and last a `Reply`.
    """
    began, first, outcome = time.perf_counter(), True, "left"
    try:
        async for part in parts:
            if first and isinstance(part, str) and part:
                FIRST_TEXT_SECONDS.observe(time.perf_counter() - began)
                first = False
            if not isinstance(part, str):
                outcome = ""
                _observe_reply(part)
            yield part
    except Exception:
        outcome = "failed"
        raise
    finally:
        if outcome:
            ANSWERS.labels(outcome).inc()


def exposition(database: Database, *, upload_jobs: int) -> bytes:
    """
    Everything, as Prometheus reads it. Blocks where there is a standby, which is asked how far it is.

    :param database: Whose pools are in use.
    :param upload_jobs: Uploads that are not indexed yet.
    """
    now = CollectorRegistry()
    now.register(_Now(database, upload_jobs))  # type: ignore[arg-type]
    return generate_latest(REGISTRY) + generate_latest(now)


def _observe_reply(reply: Reply) -> None:
    observe_answer(reply.answer)
    TOKENS.labels("in").inc(reply.tokens_in or 0)
    TOKENS.labels("out").inc(reply.tokens_out or 0)


def _observe_stages(timings_ms: dict[str, float]) -> None:
    for stage, milliseconds in timings_ms.items():
        STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)


class _Now:
    """What is asked for with each scrape, instead of being counted."""

    def __init__(self, database: Database, upload_jobs: int) -> None:
        self._database = database
        self._upload_jobs = upload_jobs

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        pool = GaugeMetricFamily("synapse_pool_connections", "The pools' connections to PostgreSQL.", labels=["state"])
        for state, number in self._database.pool_stats().items():
            pool.add_metric([state], number)
        yield pool
        yield GaugeMetricFamily("synapse_upload_jobs", "Uploads that are not indexed yet.", value=self._upload_jobs)
        schema = GaugeMetricFamily(
            "synapse_schema_info", "The schema's version that is worked with.", labels=["version"]
        )
        schema.add_metric([SCHEMA_VERSION], 1)
        yield schema
        if self._database.replica is not None:
            yield from self._of_the_standby(self._database.replica)

    def _of_the_standby(self, replica: Replica) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        reads = CounterMetricFamily(
            "synapse_reads", "Searches, by which server answered and why.", labels=["server", "why"]
        )
        for (server, why), number in list(replica.reads.items()):
            reads.add_metric([server, why], number)
        yield reads
        behind = GaugeMetricFamily("synapse_standby_lag_seconds", "Age of the newest commit that the standby has.")
        for one in lag(self._database):
            if one.seen_by == "standby" and one.seconds is not None:
                behind.add_metric([], one.seconds)
        yield behind
