"""Haystack's OpenAIChatGenerator, whose every failure is one sentence, and whose retries have an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
from haystack import component
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.utils import Secret

from components.token_meter import ModelCall, metered_call
from database.errors import LanguageModelError

LONGEST_DELAY = 20.0
"""Seconds: a server that asks for more (Retry-After) is not waited for, as somebody is waiting for us."""

_Result = dict[str, list[ChatMessage]]
_REFUSED = (openai.BadRequestError, openai.UnprocessableEntityError)
_NOT_AN_ANSWER = "Check that LLM_BASE_URL is OpenAI-compatible (it often ends in /v1), and LLM_MODEL."


@component
class LanguageModel(OpenAIChatGenerator):
    """
    Writes answers with any server that speaks OpenAI's chat completions protocol.

    Busy (429) and broken (5xx, no connection) servers are asked again; one that does not answer in time, or breaks off
    in the middle, is not.

    :param api_key: The server's key; local servers need none.
    :param model: Name of the model on that server.
    :param api_base_url: The server; `None` means OpenAI's own.
    :param timeout: Seconds until an answer, or the next part of a streamed one, must have come.
    :param max_retries: How often a busy or broken server is asked again.
    :param options: Whatever else `OpenAIChatGenerator` takes.
    """

    def __init__(
        self,
        *,
        api_key: Secret | None = None,
        model: str = "gpt-4o-mini",
        api_base_url: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        **options: Any,
    ) -> None:
        # openai's client wants a key, also for servers that need none; it is given one when the client is made.
        OpenAIChatGenerator.__init__(
            self,
            api_key=api_key,  # type: ignore[arg-type]
            model=model,
            api_base_url=api_base_url,
            timeout=timeout,
            max_retries=max_retries,
            **options,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hides_usage = False

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,
        *,
        tools: Any = None,
        tools_strict: bool | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """
        Let the model answer.

        :param messages: The conversation.
        :param streaming_callback: Called with each `StreamingChunk` as it comes.
        :param generation_kwargs: Parameters of this generation, over the component's.
        :param tools: Tools that the model may call, over the component's.
        :param tools_strict: Whether it must keep to their schemas.
        :returns: `replies`: what the model answered.
        :raises LanguageModelError: If its server failed.
        """
        asked = {"generation_kwargs": generation_kwargs, "tools": tools, "tools_strict": tools_strict}
        with metered_call(messages) as call:
            watch = _Watch(streaming_callback, call)
            for delay in self._attempts():
                try:
                    result = self._generate(messages, streaming_callback and watch.call, asked)
                    return self._whole(result, call)
                except Exception as exc:
                    time.sleep(self._pause(exc, delay, watch))
        raise AssertionError("the last attempt returns or raises")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,
        *,
        tools: Any = None,
        tools_strict: bool | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """The same, without blocking the event loop; the callback is a coroutine function."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.async_client, self._loop = None, loop  # a client's connections belong to the loop that made them
        asked = {"generation_kwargs": generation_kwargs, "tools": tools, "tools_strict": tools_strict}
        with metered_call(messages) as call:
            watch = _Watch(streaming_callback, call)
            for delay in self._attempts():
                try:
                    result = await self._generate_async(messages, streaming_callback and watch.call_async, asked)
                    return self._whole(result, call)
                except Exception as exc:
                    await asyncio.sleep(self._pause(exc, delay, watch))
        raise AssertionError("the last attempt returns or raises")

    def _generate(self, messages: list[ChatMessage] | str, callback: Any, asked: dict[str, Any]) -> _Result:
        if not callback or self._hides_usage:
            return OpenAIChatGenerator.run(self, messages, callback, **asked)
        try:
            return OpenAIChatGenerator.run(self, messages, callback, **_with_usage(asked))
        except _REFUSED:
            result: _Result = OpenAIChatGenerator.run(self, messages, callback, **asked)
            self._hides_usage = True  # it was that
            return result

    async def _generate_async(self, messages: list[ChatMessage] | str, callback: Any, asked: dict[str, Any]) -> _Result:
        if not callback or self._hides_usage:
            return await OpenAIChatGenerator.run_async(self, messages, callback, **asked)
        try:
            return await OpenAIChatGenerator.run_async(self, messages, callback, **_with_usage(asked))
        except _REFUSED:
            result: _Result = await OpenAIChatGenerator.run_async(self, messages, callback, **asked)
            self._hides_usage = True
            return result

    def _client_kwargs(self) -> dict[str, Any]:
        """The client retries nothing: it would also repeat a request that has used up all of its time."""
        return {
            "api_key": (self.api_key.resolve_value() if self.api_key else None) or "not-needed",
            "organization": self.organization,
            "base_url": self.api_base_url,
            "timeout": self.timeout,
            "max_retries": 0,
        }

    def _attempts(self) -> Iterator[float | None]:
        """Before each attempt, the delay that follows it if it fails; `None` for the last."""
        yield from (0.5 * 2**n for n in range(self.max_retries or 0))
        yield None

    def _pause(self, exc: Exception, delay: float | None, watch: _Watch) -> float:
        """How long to wait before the next attempt; raises if there should be none."""
        if watch.error is not None:
            raise watch.error  # the caller's own failure, not the model's
        if isinstance(exc, LanguageModelError):
            raise exc from None
        wait = _retry_after(exc, delay)
        if delay is None or not _passing(exc) or watch.called or wait > LONGEST_DELAY:
            raise self._failure(
                exc, begun=watch.called
            ) from None  # its cause may quote the request, and with it documents
        return wait

    def _whole(self, result: _Result, call: ModelCall) -> _Result:
        replies = result["replies"]
        if not replies or not ((replies[0].text or "").strip() or replies[0].tool_calls):
            raise self._error("sent something that is not an answer", _NOT_AN_ANSWER)
        if not replies[0].meta.get("finish_reason"):
            raise self._error("broke off in the middle of its answer", "Ask again.")
        call.ended(replies[0])
        return result

    def _failure(self, exc: Exception, *, begun: bool) -> LanguageModelError:
        hint = "Ask again later, or without it: --no-llm."
        if isinstance(exc, openai.APITimeoutError):
            return self._error(f"did not answer within {self.timeout:g} seconds", f"{hint} LLM_TIMEOUT sets the limit.")
        if isinstance(exc, openai.RateLimitError):
            return self._error("is busy or out of quota (429)", hint)
        if isinstance(exc, openai.AuthenticationError | openai.PermissionDeniedError):
            return self._error(f"refused the key ({exc.status_code})", "Check OPENAI_API_KEY.")
        if isinstance(exc, openai.NotFoundError):
            return self._error(f"knows no model {self.model!r} (404)", "Check LLM_MODEL and LLM_BASE_URL.")
        if isinstance(exc, openai.APIStatusError):
            return self._error(f"failed ({exc.status_code})", hint)
        if begun:
            return self._error("broke off in the middle of its answer", "Ask again.")
        if isinstance(exc, openai.APIConnectionError):
            return self._error("could not be reached", "Check LLM_BASE_URL, and that the server runs.")
        return self._error("sent something that is not an answer", _NOT_AN_ANSWER)

    def _error(self, what: str, hint: str) -> LanguageModelError:
        server = urlsplit(self.api_base_url or "https://api.openai.com/v1")
        return LanguageModelError(f"The language model's server {server.hostname} {what}.", hint=hint)


class _Watch:
    """Remembers whether the caller's callback was called, with how much, and whether it was the one that failed."""

    def __init__(self, callback: Any, metered: ModelCall) -> None:
        self.callback = callback
        self.metered = metered
        self.called = False
        self.error: Exception | None = None

    def call(self, chunk: StreamingChunk) -> None:
        self.called = True
        self.metered.wrote(chunk.content)
        try:
            self.callback(chunk)
        except Exception as exc:
            self.error = exc
            raise

    async def call_async(self, chunk: StreamingChunk) -> None:
        self.called = True
        self.metered.wrote(chunk.content)
        try:
            await self.callback(chunk)
        except Exception as exc:
            self.error = exc
            raise


def _with_usage(asked: dict[str, Any]) -> dict[str, Any]:
    """A streamed answer comes without the count of its tokens unless asked for; some servers refuse to be asked."""
    return {
        **asked,
        "generation_kwargs": {"stream_options": {"include_usage": True}, **(asked["generation_kwargs"] or {})},
    }


def _passing(exc: Exception) -> bool:
    """Whether the failure may have passed when the server is asked again."""
    if isinstance(exc, openai.APITimeoutError):
        return False
    return isinstance(exc, openai.RateLimitError | openai.InternalServerError | openai.APIConnectionError)


def _retry_after(exc: Exception, delay: float | None) -> float:
    asked = exc.response.headers.get("retry-after") if isinstance(exc, openai.APIStatusError) else None
    try:
        return max(float(asked), 0.0) if asked else delay or 0.0
    except ValueError:  # a date: rare, and no reason to wait longer
        return delay or 0.0
