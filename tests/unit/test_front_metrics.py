"""What the service counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.answers import Answer
from pipelines.answering import Found
from pipelines.conversing import Reply
from serving.observability.metrics import REGISTRY, observe_found, observed
from tests.support.front import AS_ANNA, AS_BERT, client_of, small_app


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def reply(*, supported: bool = True) -> Reply:
    answer = Answer(
        text="24 months [1]", supported=supported, extractive=False, timings_ms={"retriever": 12.0, "total": 80.0}
    )
    return Reply(session_id=None, message_id=None, answer=answer, tokens_in=100, tokens_out=7)


async def parts(*given: Any) -> AsyncIterator[Any]:
    for one in given:
        if isinstance(one, Exception):
            raise one
        yield one


async def test_requests_are_counted_by_their_route() -> None:
    labels = {"method": "GET", "route": "/documents/{source:path}", "status": "200"}
    before = value("synapse_requests_total", **labels)
    async with client_of(small_app()) as client:
        for n in range(3):
            await client.get(f"/documents/{n}", headers=AS_ANNA)
    assert value("synapse_requests_total", **labels) == before + 3
    assert value("synapse_requests_running") == 0


async def test_paths_of_strangers_make_no_series() -> None:
    async with client_of(small_app()) as client:
        await client.get("/unknown-1", headers=AS_ANNA)
        series = len(next(iter(REGISTRY.collect())).samples)
        for n in range(20):
            await client.get(f"/nowhere-{n}", headers=AS_ANNA)
            await client.request(f"METHOD{n}", "/unknown-1", headers=AS_ANNA)
    assert len(next(iter(REGISTRY.collect())).samples) <= series + 2


async def test_an_answer_is_counted_with_its_steps_and_tokens() -> None:
    before = {name: value(f"synapse_{name}") for name in ("first_text_seconds_count",)}
    tokens = value("synapse_tokens_total", direction="in")
    steps = value("synapse_stage_seconds_sum", stage="retriever")
    answered = value("synapse_answers_total", outcome="answered")
    got = [part async for part in observed(parts("24 ", "months", reply()))]
    assert got[:2] == ["24 ", "months"]
    assert value("synapse_first_text_seconds_count") == before["first_text_seconds_count"] + 1
    assert value("synapse_tokens_total", direction="in") == tokens + 100
    assert value("synapse_stage_seconds_sum", stage="retriever") == pytest.approx(steps + 0.012)
    assert value("synapse_answers_total", outcome="answered") == answered + 1


async def test_empty_answers_failures_and_listeners_that_left_are_told_apart() -> None:
    outcomes = ("answered", "empty", "failed", "left")
    before = [value("synapse_answers_total", outcome=one) for one in outcomes]
    _ = [part async for part in observed(parts(reply(supported=False)))]
    with pytest.raises(ValueError, match="x"):
        _ = [part async for part in observed(parts("a", ValueError("x")))]
    leaving: Any = observed(parts("a", reply()))
    await anext(leaving)
    await leaving.aclose()
    after = [value("synapse_answers_total", outcome=one) for one in outcomes]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 1, 1, 1]


async def test_they_are_shown_to_keys_of_the_services_own_tenant_alone() -> None:
    observe_found(Found(documents=(), timings_ms={"retriever": 3.0}))
    async with client_of(small_app()) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=AS_ANNA)).status_code == 403
        shown = await client.get("/metrics", headers=AS_BERT)
    families = {family.name for family in text_string_to_metric_families(shown.text)}
    assert {"synapse_requests", "synapse_stage_seconds", "synapse_pool_connections", "synapse_upload_jobs"} <= families
    labels = {
        label for family in text_string_to_metric_families(shown.text) for s in family.samples for label in s.labels
    }
    assert labels == {"method", "route", "status", "stage", "outcome", "direction", "state", "le", "version"}
