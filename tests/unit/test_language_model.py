"""The language model's server fails; callers get one sentence, in time, whichever way they asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from haystack.dataclasses import StreamingChunk
from haystack.tools import Tool
from haystack.utils import Secret

from components.language_model import LanguageModel
from components.token_meter import TokenMeter
from database.errors import LanguageModelError
from tests.fake_llm import FakeLanguageModel, ToolCall

KEY = "sk-very-secret"


def sync(model: LanguageModel) -> str:
    return str(model.run("Hello?")["replies"][0].text)


def streaming(model: LanguageModel) -> str:
    parts: list[str] = []
    model.run("Hello?", streaming_callback=lambda chunk: parts.append(chunk.content))
    return "".join(parts)


def asynchronous(model: LanguageModel) -> str:
    return str(asyncio.run(model.run_async("Hello?"))["replies"][0].text)


def asynchronous_streaming(model: LanguageModel) -> str:
    parts: list[str] = []

    async def collect(chunk: StreamingChunk) -> None:
        parts.append(chunk.content)

    asyncio.run(model.run_async("Hello?", streaming_callback=collect))
    return "".join(parts)


WAYS = [sync, streaming, asynchronous, asynchronous_streaming]
Way = Callable[[LanguageModel], str]


def language_model(server: FakeLanguageModel, **options: Any) -> LanguageModel:
    options.setdefault("timeout", 5.0)
    return LanguageModel(api_key=Secret.from_token(KEY), api_base_url=server.url, model="fake", **options)


@pytest.mark.parametrize("way", WAYS)
def test_answers(way: Way) -> None:
    with FakeLanguageModel("Two words.") as server:
        model = language_model(server)
        assert way(model) == "Two words."
        assert way(model) == "Two words."
        assert server.keys == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_of_a_tool_is_an_answer(streamed: bool) -> None:
    tool = Tool(name="search", description="Searches.", parameters={"type": "object"}, function=lambda **_: "found")
    with FakeLanguageModel(ToolCall("search", {"query": "dome"})) as server:
        callback = (lambda chunk: None) if streamed else None
        reply = language_model(server).run("Hello?", streaming_callback=callback, tools=[tool])["replies"][0]
    assert [(call.tool_name, call.arguments) for call in reply.tool_calls] == [("search", {"query": "dome"})]


def test_tokens_of_a_stream_are_counted_where_they_are_asked_for() -> None:
    with FakeLanguageModel("Two words.") as server:
        options = {"stream_options": {"include_usage": True}}
        model = language_model(server)
        reply = model.run("Hello?", streaming_callback=lambda chunk: None, generation_kwargs=options)["replies"][0]
    assert (reply.meta["usage"]["prompt_tokens"], reply.meta["usage"]["completion_tokens"]) == (1, 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", ["429", "500"])
def test_asks_again_when_the_server_is_busy_or_broken(way: Way, failure: str) -> None:
    with FakeLanguageModel("Two words.", failures=(failure, failure)) as server:
        assert way(language_model(server)) == "Two words."
        assert len(server.requests) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("failure", "sentence", "requests"),
    [
        ("429", "is busy or out of quota (429)", 3),
        ("429-forever-later", "is busy or out of quota (429)", 1),
        ("500", "failed (500)", 3),
        ("401", "refused the key (401)", 1),
        ("404", "knows no model 'fake' (404)", 1),
        ("garbage", "sent something that is not an answer", 1),
        ("html", "sent something that is not an answer", 1),
        ("empty", "sent something that is not an answer", 1),
        ("silent", "did not answer within 0.3 seconds", 1),
    ],
)
def test_failures_are_sentences(way: Way, failure: str, sentence: str, requests: int) -> None:
    with FakeLanguageModel(forever=failure) as server:
        model = language_model(server, timeout=0.3 if failure == "silent" else 5.0)
        began = time.monotonic()
        with pytest.raises(LanguageModelError) as caught:
            way(model)
        assert time.monotonic() - began < 4
        assert len(server.requests) == requests
    assert sentence in caught.value.message
    assert "127.0.0.1" in caught.value.message
    assert caught.value.hint
    assert KEY not in repr(caught.value) + str(caught.value)
    assert "secret-document-text" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("way", [streaming, asynchronous_streaming])
@pytest.mark.parametrize("failure", ["cut", "unfinished"])
def test_a_stream_that_ends_early_is_no_answer(way: Way, failure: str) -> None:
    with FakeLanguageModel("One two three four five six.", forever=failure) as server:
        with pytest.raises(LanguageModelError, match="broke off in the middle"):
            way(language_model(server))
        assert len(server.requests) == 1


@pytest.mark.parametrize("way", [sync, asynchronous])
def test_a_body_that_ends_early_is_no_answer(way: Way) -> None:
    with FakeLanguageModel("One two three four.", forever="cut") as server, pytest.raises(LanguageModelError):
        way(language_model(server, max_retries=0))


def test_no_server_at_all() -> None:
    with FakeLanguageModel() as server:
        gone = server.url
    model = LanguageModel(api_base_url=gone, timeout=5.0, max_retries=0)
    with pytest.raises(LanguageModelError, match="could not be reached"):
        model.run("Hello?")


def test_servers_without_keys_need_none() -> None:
    with FakeLanguageModel("Fine.") as server:
        assert sync(LanguageModel(api_base_url=server.url)) == "Fine."


def test_the_callers_own_errors_stay_their_own() -> None:
    def fail(chunk: StreamingChunk) -> None:
        raise ZeroDivisionError

    async def fail_async(chunk: StreamingChunk) -> None:
        raise ZeroDivisionError

    with FakeLanguageModel() as server:
        model = language_model(server)
        with pytest.raises(ZeroDivisionError):
            model.run("Hello?", streaming_callback=fail)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(model.run_async("Hello?", streaming_callback=fail_async))


EVERY_WAY = [sync, streaming, asynchronous, asynchronous_streaming]


@pytest.mark.parametrize("way", EVERY_WAY)
def test_tokens_are_counted_by_the_server(way: Way) -> None:
    with FakeLanguageModel("One two three.") as server, TokenMeter() as meter:
        way(language_model(server))
        way(language_model(server))
    assert (meter.tokens_in, meter.tokens_out, meter.estimated) == (2, 6, False)  # this model's tokens are words


@pytest.mark.parametrize("way", EVERY_WAY)
def test_tokens_are_estimated_where_the_server_does_not_count(way: Way) -> None:
    with FakeLanguageModel("One two three.", counts=False) as server, TokenMeter() as meter:
        way(language_model(server))
    assert (meter.tokens_in, meter.estimated) == (2, True)
    assert 5 <= meter.tokens_out <= 7  # in parts, each is rounded up


@pytest.mark.parametrize("way", [streaming, asynchronous_streaming])
def test_a_server_that_refuses_to_be_asked_for_a_count(way: Way) -> None:
    with FakeLanguageModel("One two three.", failures=("400",), counts=False) as server, TokenMeter() as meter:
        model = language_model(server)
        assert way(model) == way(model) == "One two three."
    assert ["stream_options" in request for request in server.requests] == [True, False, False]
    assert meter.estimated


@pytest.mark.parametrize("way", [streaming, asynchronous_streaming])
def test_a_server_that_refuses_anything_is_asked_for_a_count_again(way: Way) -> None:
    with FakeLanguageModel("One.", failures=("400", "400"), counts=False) as server, TokenMeter() as meter:
        model = language_model(server)
        with pytest.raises(LanguageModelError, match=r"failed \(400\)"):
            way(model)
        way(model)
    assert ["stream_options" in request for request in server.requests] == [True, False, True]
    assert len(meter.calls) == 1  # what failed cost nothing


def test_what_is_not_metered_is_nobodys() -> None:
    with FakeLanguageModel() as server, TokenMeter() as meter:
        pass
    with FakeLanguageModel() as server:
        sync(language_model(server))
    assert meter.calls == []
