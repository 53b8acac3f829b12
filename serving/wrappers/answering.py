"""The pipeline that answers, as Hayhooks calls it: with a question, or with a conversation in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hayhooks import BasePipelineWrapper
from starlette.datastructures import Headers

from database.errors import InvalidInputError
from serving.callers import caller
from serving.wrappers.completions import Completion
from serving.wrappers.messages import read_messages

if TYPE_CHECKING:
    from fastapi_openai_compat import ChatCompletion  # type: ignore[import-untyped]

    from pipelines.conversing import Reply
    from serving.service import Service

SESSION_HEADER = "X-Session-Id"


class AnsweringWrapper(BasePipelineWrapper):
    """
    Answers questions of the request's caller from the documents of their tenant.

    :param service: What answers.
    """

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def setup(self) -> None:
        """Nothing: each tenant's pipeline is the service's to build."""

    async def run_api_async(
        self,
        question: str,
        filters: str | dict[str, Any] | None = None,
        top_k: int | None = None,
        session_id: str | None = None,
    ) -> dict[str, Any]:
        """
        Answer one question.

        :param question: The question; in a conversation it may be a follow-up.
        :param filters: An expression or a Haystack filter.
        :param top_k: How many documents to answer from.
        :param session_id: The stored conversation that it continues; `None` begins one.
        """
        reply = await self._service.ask(
            caller(), question, session_id=read_session(session_id), filters=filters, top_k=top_k
        )
        return reply_to_dict(reply)

    async def run_chat_completion_async(
        self, model: str, messages: list[dict[str, Any]], body: dict[str, Any], headers: Headers | None = None
    ) -> ChatCompletion | AsyncIterator[ChatCompletion]:
        """
        Answer the last message of a conversation.

        :param model: The name that the client asked for; it is answered with the same.
        :param messages: The conversation. Of a stored one (`session_id`), only the last message is read.
        :param body: The request; besides OpenAI's, `session_id`, `filters` and `top_k` are read.
        :param headers: Of the request; `X-Session-Id` may stand there.
        :returns: The completion, or its chunks where `stream` is asked for.
        """
        conversation = read_messages(messages)
        session_id = read_session(body.get("session_id") or (headers.get(SESSION_HEADER) if headers else None))
        parts = self._service.stream(
            caller(),
            conversation.question,
            session_id=session_id,
            history=None if session_id else conversation.history,
            filters=body.get("filters"),
            top_k=_whole_number(body.get("top_k"), name="top_k"),
        )
        completion = Completion(model)
        if body.get("stream"):
            options = body.get("stream_options")
            return completion.chunks(
                parts, with_usage=isinstance(options, Mapping) and bool(options.get("include_usage"))
            )
        return await completion.whole(parts)


def reply_to_dict(reply: Reply) -> dict[str, Any]:
    """As `POST /ask` answers: what `ask --json` prints, and where it is stored."""
    return {
        **reply.answer.to_dict(),
        "session_id": str(reply.session_id),
        "message_id": str(reply.message_id),
        "usage": {"tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out},
    }


def read_session(text: Any) -> UUID | None:
    """
    A conversation's id.

    :raises InvalidInputError: If it is none; that there is no such conversation is found out later.
    """
    if text is None or text == "":
        return None
    try:
        return UUID(str(text))
    except ValueError:
        raise InvalidInputError(
            "A session_id was expected that an earlier answer gave, but it is no UUID.",
            hint="Leave it out to begin a conversation.",
        ) from None


def _whole_number(value: Any, *, name: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidInputError(f"{name} must be a whole number, but is {value!r:.40}.")
