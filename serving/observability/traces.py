"""
Traces of requests and of each step of a pipeline, sent to an OpenTelemetry collector.

No text of a question, an answer or a document leaves: Haystack hands a pipeline's whole input to its tracer, so what is
kept of its tags is a list of names. Errors are noted by their type, not by their message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from haystack.tracing.tracer import Span, Tracer, disable_tracing, enable_tracing
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.front.areas import Area, area_of, route_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TAGS = frozenset(
    {
        "haystack.component.name",
        "haystack.component.type",
        "haystack.component.visits",
        "haystack.pipeline.execution_mode",
    }
)
"""Haystack's tags that are kept; others hold what a pipeline works on."""

EXPORT_SECONDS = 3.0
"""How long a collector may take; at the end of the service, the last spans are given up after it."""


class Traces:
    """
    Spans on their way to a collector, in the background; a collector that is away costs nothing but its spans.

    The provider is this object's own, not the process' global one: what other libraries would trace may hold texts.

    :param endpoint: The collector's address, without `/v1/traces`.
    """

    def __init__(self, endpoint: str) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": "synapse"}))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("synapse")
        enable_tracing(PipelineTracer(self.tracer))

    def flush(self) -> None:
        """Send what there is now, for a few seconds at most."""
        self._provider.force_flush(round(EXPORT_SECONDS * 1000))

    def close(self) -> None:
        """Send what is left, and nothing after it."""
        disable_tracing()
        self.flush()
        self._provider.shutdown()


class TracedRequests:
    """
    A span for each request, below the caller's own where it names one (W3C trace context).

    :param tracer: Makes the spans.
    """

    def __init__(self, app: ASGIApp, *, tracer: trace.Tracer) -> None:
        self.app = app
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or area_of(scope) is Area.HEALTH:
            await self.app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = TraceContextTextMapPropagator().extract(carrier)
        with self.tracer.start_as_current_span(
            "request", context=parent, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                await self.app(scope, receive, _noting(span, send))
            finally:
                span.update_name(f"{scope['method']} {route_of(scope)}")
                span.set_attribute("http.request.method", scope["method"])
                span.set_attribute("http.route", route_of(scope))
                span.set_attribute("synapse.request_id", scope.get("state", {}).get("request_id", ""))


class PipelineTracer(Tracer):
    """
    Haystack's tracer on OpenTelemetry.

    :param tracer: Makes the spans.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextlib.contextmanager
    def trace(
        self, operation_name: str, tags: dict[str, Any] | None = None, parent_span: Span | None = None
    ) -> Iterator[Span]:
        name = (tags or {}).get("haystack.component.name", operation_name)
        context = trace.set_span_in_context(parent_span.raw_span()) if parent_span else None
        with self._tracer.start_as_current_span(
            str(name), context=context, record_exception=False, set_status_on_exception=False
        ) as raw:
            span = PipelineSpan(raw)
            span.set_tags(tags or {})
            try:
                yield span
            except Exception as exc:
                raw.set_status(Status(StatusCode.ERROR))
                raw.set_attribute("error.type", type(exc).__name__)
                raise

    def current_span(self) -> Span | None:
        return PipelineSpan(trace.get_current_span())


class PipelineSpan(Span):
    """One step; keeps the tags of `TAGS` alone."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set_tag(self, key: str, value: Any) -> None:
        if key in TAGS:
            self._span.set_attribute(key, value if isinstance(value, bool | int | float) else str(value))

    def set_content_tag(self, key: str, value: Any) -> None:
        """Nothing: content stays here, whatever HAYSTACK_CONTENT_TRACING_ENABLED says."""

    def raw_span(self) -> trace.Span:
        return self._span

    def get_correlation_data_for_logs(self) -> Mapping[str, Any]:  # type: ignore[override]
        context = self._span.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _noting(span: trace.Span, send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            span.set_attribute("http.response.status_code", message["status"])
            if message["status"] >= 500:
                span.set_status(Status(StatusCode.ERROR))
        await send(message)

    return sending
