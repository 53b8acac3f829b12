"""Traces reach a collector, with a span for each step, and without a word of what was asked or found."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastapi import FastAPI
from haystack import Document, Pipeline, component
from haystack.tracing import is_tracing_enabled, tracer

from serving.observability.traces import EXPORT_SECONDS
from tests.support.front import AS_ANNA, client_of, small_app
from tests.support.otlp_collector import Collector

PROJECT = Path(__file__).parents[2]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@component
class Retriever:
    @component.output_types(documents=list[Document])
    def run(self, question: str) -> dict[str, list[Document]]:
        return {"documents": [Document(content="hunter2-document", meta={"fail": question == "hunter2-fail"})]}

    @component.output_types(documents=list[Document])
    async def run_async(self, question: str) -> dict[str, list[Document]]:
        return self.run(question)


@component
class Writer:
    @component.output_types(text=str)
    def run(self, documents: list[Document]) -> dict[str, str]:
        if documents[0].meta.get("fail"):
            raise ValueError("hunter2-error")
        return {"text": f"hunter2-answer from {documents[0].content}"}


def asking_app(collector: Collector) -> FastAPI:
    pipeline = Pipeline()
    pipeline.add_component("retriever", Retriever())
    pipeline.add_component("writer", Writer())
    pipeline.connect("retriever.documents", "writer.documents")
    app = small_app(otlp_endpoint=collector.url)

    @app.get("/answers/{name}")
    async def answers(name: str) -> dict[str, str]:
        found = await pipeline.run_async({"retriever": {"question": name}})
        return dict(found["writer"])

    @app.get("/failing")
    async def failing() -> None:
        pipeline.run({"retriever": {"question": "hunter2-fail"}})

    return app


async def test_a_request_and_each_of_its_steps_is_a_span_without_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "is_content_tracing_enabled", True)  # whatever the environment says
    with Collector() as collector:
        app = asking_app(collector)
        named = {**AS_ANNA, "traceparent": TRACEPARENT, "X-Request-Id": "request-17"}
        async with app.router.lifespan_context(app), client_of(app, headers=named) as client:
            answer = await client.get("/answers/hunter2-question?q=hunter2-query")
            assert answer.status_code == 200
            await client.get("/live")
        assert not is_tracing_enabled()
    spans = {span.name: span for span in collector.spans}
    assert spans.keys() == {"GET /answers/{name}", "haystack.pipeline.run", "retriever", "writer"}
    request, run = spans["GET /answers/{name}"], spans["haystack.pipeline.run"]
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c", "the caller's trace goes on"
    assert {span.trace_id for span in collector.spans} == {request.trace_id}
    assert run.parent_span_id == request.span_id
    assert {spans[name].parent_span_id for name in ("retriever", "writer")} == {run.span_id}
    assert {one.key: one.value.string_value or one.value.int_value for one in request.attributes} == {
        "http.request.method": "GET",
        "http.route": "/answers/{name}",
        "http.response.status_code": 200,
        "synapse.request_id": "request-17",
    }
    assert b"hunter2" not in collector.raw


async def test_a_failure_is_noted_by_its_type() -> None:
    with Collector() as collector:
        app = asking_app(collector)
        async with app.router.lifespan_context(app), client_of(app, headers=AS_ANNA) as client:
            assert (await client.get("/failing")).status_code == 500
    spans = {span.name: span for span in collector.spans}
    assert [spans[name].status.code for name in ("retriever", "writer", "GET /failing")] == [0, 2, 2]
    (kind,) = (one.value.string_value for one in spans["writer"].attributes if one.key == "error.type")
    assert kind.endswith("Error")
    assert b"hunter2" not in collector.raw


async def test_a_collector_that_is_away_delays_nobody() -> None:
    app = small_app(otlp_endpoint="http://127.0.0.1:1")
    async with app.router.lifespan_context(app), client_of(app, headers=AS_ANNA) as client:
        assert (await client.get("/whoami")).status_code == 200
        began = time.monotonic()
    assert time.monotonic() - began < 2 * EXPORT_SECONDS
    assert not is_tracing_enabled()


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys; from tests.support.front import small_app; small_app()\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'haystack'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
