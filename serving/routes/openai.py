"""`/v1/models` and `/v1/chat/completions`, which any OpenAI client speaks."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi_openai_compat import ChatCompletion, ChatRequest, ModelsResponse  # type: ignore[import-untyped]

from serving.front.errors import log_failure
from serving.front.refusals import Refusal, error_body, refusal_for
from serving.hayhooks_host import SPAN_OPENAI_RUN, trace_async_stream, trace_operation
from serving.routes.asking import ANSWERING, pipeline
from serving.routes.forms import errors

STARTED = 1_767_225_600
"""When the model was created, as the protocol wants to know: 2026-01-01, for every service."""

log = logging.getLogger("synapse.openai")
router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models", response_model=ModelsResponse, responses=errors(openai=True), summary="List models")
async def models() -> Any:
    """The one model: the pipeline that answers from the documents."""
    one = {"id": ANSWERING, "name": ANSWERING, "object": "model", "created": STARTED, "owned_by": "synapse"}
    return {"object": "list", "data": [one]}


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    response_model_exclude_none=True,
    responses=errors(404, 502, openai=True),
    summary="Answer a conversation",
)
async def chat_completions(form: ChatRequest, request: Request) -> Any:
    """
    Answer the last message of a conversation, from the documents alone.

    Besides OpenAI's fields, `session_id` (or the header `X-Session-Id`) continues a stored conversation, of whose
    messages only the last is read; `filters` and `top_k` narrow the search. The answer carries `citations`. System
    messages are accepted, and do not change how answers rest on the documents; parameters of sampling have no effect.
    """
    if form.model != ANSWERING:
        raise Refusal(404, f"The model is {ANSWERING!r}; another was asked for.", code="model_not_found")
    tags = {"hayhooks.transport": "openai", "hayhooks.pipeline.name": ANSWERING}
    wrapper = pipeline(request, ANSWERING)
    call = wrapper.run_chat_completion_async(form.model, form.messages, form.model_dump(), headers=request.headers)
    if not form.stream:
        with trace_operation(SPAN_OPENAI_RUN, tags=tags):
            return _plain(await call)
    # In a task of its own from the first chunk on: the trace belongs to one context, the response to another.
    chunks = request.app.state.service.running.iterate(trace_async_stream(await call, SPAN_OPENAI_RUN, tags=tags))
    try:
        first = await anext(chunks)  # a failure before the first token still has a status of its own
    except BaseException:
        await chunks.aclose()
        raise
    return EventStream(_events(first, chunks, request), media_type="text/event-stream", headers=_STREAM_HEADERS)


_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is nginx'


class EventStream(StreamingResponse):
    """A stream whose source is closed at once when its client has gone, not when the garbage is collected."""

    async def stream_response(self, send: Any) -> None:
        """Send it."""
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


async def _events(first: ChatCompletion, rest: Any, request: Request) -> AsyncIterator[str]:
    async with aclosing(rest) as chunks:
        yield _event(_dumped(first))
        try:
            async for chunk in chunks:
                yield _event(_dumped(chunk))
        except Exception as exc:
            refusal = refusal_for(exc)
            log_failure(exc, refusal, request.scope)
            yield _event(json.dumps(error_body(refusal, request.scope), ensure_ascii=False))
            return
    yield _event("[DONE]")


def _event(data: str) -> str:
    return f"data: {data}\n\n"


def _dumped(chunk: ChatCompletion) -> str:
    told = chunk.model_dump(mode="json", exclude_none=True)
    for choice in told["choices"]:
        choice.setdefault("finish_reason", None)  # strict clients miss it
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _plain(completion: ChatCompletion) -> Response:
    return JSONResponse(completion.model_dump(mode="json", exclude_none=True))
