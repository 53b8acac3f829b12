"""Answers as OpenAI's chat completions, whole and in chunks, with citations in fields of their own."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fastapi_openai_compat import ChatCompletion, Choice, Message  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from components.answers import Answer, Citation
    from pipelines.conversing import Reply

_MARK = re.compile(r"\[(\d+)\]")


class Completion:
    """
    One completion.

    :param model: The name that the client asked for.
    """

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}

    async def whole(self, parts: AsyncIterator[str | Reply]) -> ChatCompletion:
        """The completion at once."""
        reply = await _last(parts)
        message = Message(role="assistant", content=reply.answer.text, **_extras(reply.answer))
        return ChatCompletion(
            **self._head,
            object="chat.completion",
            choices=[Choice(index=0, message=message, finish_reason="stop")],
            usage=_usage(reply),
            **_stored(reply),
        )

    async def chunks(self, parts: AsyncIterator[str | Reply], *, with_usage: bool) -> AsyncIterator[ChatCompletion]:
        """
        The completion as it is written.

        The last chunk with a choice carries the citations, and the text as it was checked where that is not what was
        streamed; `finish_reason` stands in it.

        :param parts: Of `Service.stream`.
        :param with_usage: Whether a chunk without choices follows that says how many tokens were used.
        """
        written: list[str] = []
        async with aclosing(parts) as open_parts:  # type: ignore[type-var]
            async for part in open_parts:
                if isinstance(part, str):
                    written.append(part)
                    opening = {"role": "assistant"} if len(written) == 1 else {}
                    yield self._chunk(Message.model_construct(**opening, content=part))
                    continue
                if not written:
                    written.append(part.answer.text)
                    yield self._chunk(Message.model_construct(role="assistant", content=part.answer.text))
                checked = {} if "".join(written) == part.answer.text else {"checked_content": part.answer.text}
                closing = Message.model_construct(**_extras(part.answer), **checked)
                yield self._chunk(closing, finish_reason="stop", **_stored(part))
                if with_usage:
                    yield ChatCompletion(**self._head, object="chat.completion.chunk", choices=[], usage=_usage(part))

    def _chunk(self, delta: Message, *, finish_reason: str | None = None, **extra: Any) -> ChatCompletion:
        choice = Choice.model_construct(index=0, delta=delta, finish_reason=finish_reason)
        return ChatCompletion.model_construct(**self._head, object="chat.completion.chunk", choices=[choice], **extra)


async def _last(parts: AsyncIterator[str | Reply]) -> Reply:
    last: Any = None
    async for part in parts:
        last = part
    reply: Reply = last
    return reply


def _stored(reply: Reply) -> dict[str, str]:
    return {"session_id": str(reply.session_id), "message_id": str(reply.message_id)}


def _usage(reply: Reply) -> dict[str, int]:
    asked, written = reply.tokens_in or 0, reply.tokens_out or 0
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}


def _extras(answer: Answer) -> dict[str, Any]:
    """What OpenAI's form has no field for, and the citations once more in the form that it has one for."""
    return {
        "citations": [citation.to_dict() for citation in answer.citations],
        "annotations": list(_annotations(answer.text, answer.citations)),
        "supported": answer.supported,
    }


def _annotations(text: str, citations: Iterable[Citation]) -> Iterable[dict[str, Any]]:
    """For each mark in the text, where it stands and what it cites."""
    by_number = {citation.number: citation for citation in citations}
    for mark in _MARK.finditer(text):
        citation = by_number.get(int(mark[1]))
        if citation is not None:
            place = {"start_index": mark.start(), "end_index": mark.end()}
            yield {
                "type": "url_citation",
                "url_citation": {**place, "title": citation.source, "url": f"source:{citation.source}"},
            }
