"""OpenAI's protocol, spoken by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest

from database.embedded import EmbeddedServer
from tests.fake_llm import FakeLanguageModel
from tests.support.serving import RunningService, running

QUESTION = "How long is the warranty of dishwashers?"
ANSWER = "The warranty is 24 months [1]. Keep the receipt [1]."


@pytest.fixture(scope="module")
def llm() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel() as found:
        yield found


@pytest.fixture(autouse=True)
def _as_it_was(llm: FakeLanguageModel) -> None:
    llm.answer, llm.failures, llm.forever, llm.token_delay = ANSWER, [], None, 0.0


@pytest.fixture(scope="module")
def service(server: EmbeddedServer | None, owner_conninfo: str, llm: FakeLanguageModel) -> Iterator[RunningService]:
    with running(server, owner_conninfo, llm_base_url=llm.url, llm_model="fake", llm_timeout=20) as found:
        yield found


@pytest.fixture
def client(service: RunningService) -> Iterator[openai.OpenAI]:
    key = service.keys["acme", "alice"]
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0) as found:
        yield found


def said(question: str = QUESTION) -> list[Any]:
    return [{"role": "user", "content": question}]


def conversation(service: RunningService, session_id: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{service.url}/conversations/{session_id}", headers=service.headers())
    messages: list[dict[str, Any]] = answer.json()["messages"]
    return messages


def collect(stream: Any, chunks: list[Any]) -> None:
    """What came stays, also when the stream fails."""
    for chunk in stream:
        chunks.append(chunk)


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("synapse", "model", "synapse")


def test_an_answer_at_once(client: openai.OpenAI, service: RunningService) -> None:
    completion = client.chat.completions.create(model="synapse", messages=said())
    (choice,) = completion.choices
    assert completion.object == "chat.completion"
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.content == ANSWER
    assert choice.message.model_extra is not None
    (first, *_) = choice.message.model_extra["citations"]
    assert (first["number"], first["source"]) == (1, "warranty.md")
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0
    assert completion.model_extra is not None
    stored = conversation(service, completion.model_extra["session_id"])
    assert [message["content"] for message in stored] == [QUESTION, ANSWER]
    assert stored[1]["id"] == completion.model_extra["message_id"]


def test_an_answer_part_by_part(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="synapse", messages=said(), stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert len(deltas) > len(ANSWER.split(" ")) / 2
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None] * (len(deltas) - 1) + [
        "stop"
    ]
    assert deltas[-1].model_extra is not None
    assert deltas[-1].model_extra["citations"][0]["source"] == "warranty.md"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1
    assert len({chunk.model_extra["session_id"] for chunk in chunks if chunk.model_extra}) == 1


def test_a_stream_is_events_and_a_last_one(service: RunningService) -> None:
    body = {"model": "synapse", "messages": said(), "stream": True}
    answer = httpx.post(f"{service.url}/v1/chat/completions", json=body, headers=service.headers())
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all("finish_reason" in chunk["choices"][0] for chunk in chunks)  # null before the last, as OpenAI has it
    assert all("usage" not in chunk for chunk in chunks)


def test_text_that_was_corrected_at_the_end_is_sent_whole(client: openai.OpenAI, llm: FakeLanguageModel) -> None:
    llm.answer = "The warranty is 24 months [1]. It covers the moon [9]."
    with client.chat.completions.create(model="synapse", messages=said(), stream=True) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    assert deltas[-1].model_extra is not None
    checked = deltas[-1].model_extra["checked_content"]
    assert "[9]" not in checked
    assert "24 months [1]" in checked


def test_sent_messages_are_the_history(client: openai.OpenAI, llm: FakeLanguageModel, service: RunningService) -> None:
    asked: list[list[dict[str, Any]]] = []

    def answer(messages: list[dict[str, Any]]) -> str:
        asked.append(messages)
        return "How long is the warranty of dishwashers of Acme?" if "Rewrite" in messages[0]["content"] else ANSWER

    llm.answer = answer
    before = [{"role": "user", "content": "What of Acme?"}, {"role": "assistant", "content": "Which thing of Acme?"}]
    messages: Any = [{"role": "system", "content": "You are a pirate."}, *before, *said("and the dishwashers?")]
    completion = client.chat.completions.create(model="synapse", messages=messages)
    assert "Which thing of Acme?" in str(asked)
    assert "pirate" not in str(asked)
    assert completion.model_extra is not None
    stored = conversation(service, completion.model_extra["session_id"])
    assert [message["content"] for message in stored] == ["and the dishwashers?", ANSWER]


@pytest.mark.parametrize("where", ["a field", "a header"])
def test_a_stored_conversation_goes_on(client: openai.OpenAI, service: RunningService, where: str) -> None:
    first = client.chat.completions.create(model="synapse", messages=said())
    assert first.model_extra is not None
    session = first.model_extra["session_id"]
    named: dict[str, Any] = (
        {"extra_body": {"session_id": session}} if where == "a field" else {"extra_headers": {"X-Session-Id": session}}
    )
    lies: Any = [{"role": "user", "content": "never asked"}, {"role": "assistant", "content": "never said"}]
    again = client.chat.completions.create(model="synapse", messages=[*lies, *said("and the receipt?")], **named)
    assert again.model_extra is not None
    assert again.model_extra["session_id"] == session
    stored = [message["content"] for message in conversation(service, session)]
    assert stored == [QUESTION, ANSWER, "and the receipt?", ANSWER]


def test_filters_narrow_an_answer(client: openai.OpenAI, llm: FakeLanguageModel) -> None:
    before = len(llm.requests)
    client.chat.completions.create(
        model="synapse", messages=said("What is the secret colour?"), extra_body={"filters": "year < 2022", "top_k": 1}
    )
    prompt = str(llm.requests[before:])
    assert "vermilion" in prompt
    assert "24 months" not in prompt


def test_parts_of_text_are_joined(client: openai.OpenAI, service: RunningService) -> None:
    parts: Any = [{"type": "text", "text": "How long is the warranty"}, {"type": "text", "text": "of dishwashers?"}]
    completion = client.chat.completions.create(model="synapse", messages=[{"role": "user", "content": parts}])
    assert completion.model_extra is not None
    stored = conversation(service, completion.model_extra["session_id"])
    assert stored[0]["content"] == "How long is the warranty\nof dishwashers?"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"messages": []}, 400),
        ({"messages": ["no object"]}, 422),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]}, 400),
        ({"messages": [{"role": "user", "content": 7}]}, 400),
        ({"messages": [{"role": "user", "content": ""}]}, 400),
        ({"messages": [{"role": "user", "content": "x"}], "top_k": "many"}, 400),
        ({"messages": [{"role": "user", "content": "x"}], "filters": 3}, 400),
        ({"messages": [{"role": "user", "content": "x"}], "filters": "year >"}, 400),
        ({"messages": [{"role": "user", "content": "x"}], "session_id": "none"}, 400),
        ({"messages": [{"role": "user", "content": "x"}], "session_id": str(uuid4())}, 404),
        ({"messages": [{"role": "user", "content": "x"}], "model": "gpt-4"}, 404),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_used_has_a_status(
    service: RunningService, body: dict[str, Any], status: int, stream: bool
) -> None:
    sent = {"model": "synapse", "stream": stream, **body}
    answer = httpx.post(f"{service.url}/v1/chat/completions", json=sent, headers=service.headers())
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["type"] == "invalid_request_error"


def test_a_conversation_of_another_tenants_is_not_found(client: openai.OpenAI, service: RunningService) -> None:
    first = client.chat.completions.create(model="synapse", messages=said())
    assert first.model_extra is not None
    for tenant, user in (("acme", "bob"), ("globex", "alice")):
        other = openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.keys[tenant, user], max_retries=0)
        with pytest.raises(openai.NotFoundError):
            other.chat.completions.create(
                model="synapse", messages=said(), extra_body={"session_id": first.model_extra["session_id"]}
            )


def test_no_key_is_no_answer(service: RunningService) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0).models.list()


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_before_the_first_word_has_a_status(
    client: openai.OpenAI, llm: FakeLanguageModel, stream: bool
) -> None:
    llm.forever = "401"
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="synapse", messages=said(), stream=stream)
    assert caught.value.status_code == 502
    assert "secret-document-text" not in str(caught.value)


def test_a_model_that_breaks_off_ends_the_stream_with_an_error(
    client: openai.OpenAI, llm: FakeLanguageModel, service: RunningService
) -> None:
    llm.failures = ["cut"]
    chunks: list[Any] = []
    stream = client.chat.completions.create(model="synapse", messages=said(), stream=True)
    with pytest.raises(openai.APIError, match="language model"):
        collect(stream, chunks)
    written = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert written
    assert ANSWER.startswith("".join(written))
    stored = conversation(service, chunks[0].model_extra["session_id"])
    assert stored[1]["interrupted"]
    assert stored[1]["content"] == "".join(written)


def test_a_client_that_leaves_stops_the_model_and_is_remembered(
    client: openai.OpenAI, llm: FakeLanguageModel, service: RunningService
) -> None:
    llm.answer, llm.token_delay = " ".join(["word"] * 200), 0.05
    before = llm.abandoned
    stream = client.chat.completions.create(model="synapse", messages=said(), stream=True)
    session = next(iter(stream)).model_extra["session_id"]  # type: ignore[index]
    stream.close()
    deadline = time.monotonic() + 5
    while llm.abandoned == before:
        assert time.monotonic() < deadline, "the model went on for nobody"
        time.sleep(0.02)
    while True:
        answer = httpx.get(f"{service.url}/conversations/{session}", headers=service.headers())
        if answer.status_code == 200:
            break
        assert time.monotonic() < deadline, "what was written is not stored"
        time.sleep(0.02)
    question, answered = answer.json()["messages"]
    assert question["content"] == QUESTION
    assert answered["interrupted"]
    assert answered["content"].startswith("word")


async def test_a_slow_model_keeps_nobody_else_waiting(service: RunningService, llm: FakeLanguageModel) -> None:
    def slow(_: list[dict[str, Any]]) -> str:
        time.sleep(1.0)
        return ANSWER

    llm.answer = slow
    headers, body = service.headers(), {"model": "synapse", "messages": said()}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=30) as client:
        began = time.perf_counter()
        asking = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(8)]
        await asyncio.sleep(0.3)
        searched = time.perf_counter()
        found = await client.post("/search", json={"question": QUESTION})
        search_seconds = time.perf_counter() - searched
        answers = await asyncio.gather(*asking)
        seconds = time.perf_counter() - began
    assert found.status_code == 200
    assert [answer.status_code for answer in answers] == [200] * 8
    assert seconds < 4.0  # one after the other they take 8
    assert search_seconds < 1.0
