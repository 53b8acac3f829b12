"""Answers as OpenAI's chat completions, whole and in chunks, with citations in fields of their own."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from fastapi_openai_compat import ChatCompletion, Choice, Message  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from components.answers import Answer
    from pipelines.conversing import Reply

_MARK = re.compile(r"\[(\d+)\]")


class Completion:
    """
    One completion.

    :param model: The name that the client asked for.
    :param session_id: The conversation that it is part of, which every chunk names: also a client that leaves early knows it.
    :param sources_url: Where the page shows what an answer cites; `None` where there is no page.
    """

    def __init__(self, model: str, *, session_id: UUID, sources_url: str | None = None) -> None:
        self._sources_url = sources_url
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "session_id": str(session_id),
        }

    async def whole(self, parts: AsyncIterator[str | Reply]) -> ChatCompletion:
        """The completion at once."""
        reply = await _last(parts)
        message = Message(role="assistant", content=reply.answer.text, **self._extras(reply))
        return ChatCompletion(
            **self._head,
            object="chat.completion",
            choices=[Choice(index=0, message=message, finish_reason="stop")],
            usage=_usage(reply),
            message_id=str(reply.message_id),
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
                closing = Message.model_construct(**self._extras(part), **checked)
                yield self._chunk(closing, finish_reason="stop", message_id=str(part.message_id))
                if with_usage:
                    yield ChatCompletion(**self._head, object="chat.completion.chunk", choices=[], usage=_usage(part))

    def _chunk(self, delta: Message, *, finish_reason: str | None = None, **extra: Any) -> ChatCompletion:
        choice = Choice.model_construct(index=0, delta=delta, finish_reason=finish_reason)
        return ChatCompletion.model_construct(**self._head, object="chat.completion.chunk", choices=[choice], **extra)

    def _extras(self, reply: Reply) -> dict[str, Any]:
        """What OpenAI's form has no field for, and the citations once more in the form that it has one for."""
        answer = reply.answer
        extras = {"citations": [citation.to_dict() for citation in answer.citations], "supported": answer.supported}
        if self._sources_url is not None:
            extras["annotations"] = list(_annotations(answer, url=f"{self._sources_url}/{reply.message_id}"))
        return extras


async def _last(parts: AsyncIterator[str | Reply]) -> Reply:
    last: Any = None
    async for part in parts:
        last = part
    reply: Reply = last
    return reply


def _usage(reply: Reply) -> dict[str, int]:
    asked, written = reply.tokens_in or 0, reply.tokens_out or 0
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}


def _annotations(answer: Answer, *, url: str) -> Iterable[dict[str, Any]]:
    """For each mark in the text, where it stands and where the page shows what it cites."""
    by_number = {citation.number: citation for citation in answer.citations}
    for mark in _MARK.finditer(answer.text):
        citation = by_number.get(int(mark[1]))
        if citation is not None:
            place = {"start_index": mark.start(), "end_index": mark.end()}
            told = {**place, "title": citation.source, "url": f"{url}/{citation.number}"}
            yield {"type": "url_citation", "url_citation": told}
