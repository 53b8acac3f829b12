"""The pipeline that answers, as Hayhooks calls it: with a question, or with a conversation in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from starlette.datastructures import Headers

from database.errors import InvalidInputError
from serving.callers import caller
from serving.hayhooks_host import BasePipelineWrapper
from serving.wrappers.completions import Completion
from serving.wrappers.messages import read_messages

if TYPE_CHECKING:
    from fastapi_openai_compat import ChatCompletion  # type: ignore[import-untyped]

    from pipelines.answering import Filters
    from pipelines.conversing import Reply
    from serving.service import Service

SESSION_HEADER = "X-Session-Id"


class AnsweringWrapper(BasePipelineWrapper):
    """
    Answers questions of the request's caller from the documents of their tenant.

    :param service: What answers.
    :param sources_url: Where the page shows what an answer cites; `None` where there is no page.
    """

    def __init__(self, service: Service, *, sources_url: str | None = None) -> None:
        super().__init__()
        self._service = service
        self._sources_url = sources_url

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
        known = read_session(body.get("session_id") or (headers.get(SESSION_HEADER) if headers else None))
        session_id = known or uuid4()
        parts = self._service.stream(
            caller(),
            conversation.question,
            session_id=session_id,
            create=known is None,
            history=None if known else conversation.history,
            filters=read_filters(body.get("filters")),
            top_k=_whole_number(body.get("top_k"), name="top_k"),
        )
        completion = Completion(model, session_id=session_id, sources_url=self._sources_url)
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


def read_filters(value: Any) -> Filters:
    """
    A filter as a client may write it.

    :raises InvalidInputError: If it is neither an expression nor a mapping.
    """
    if value is None or isinstance(value, str | dict):
        return value
    raise InvalidInputError("filters must be an expression or an object, but is neither.")


def _whole_number(value: Any, *, name: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidInputError(f"{name} must be a whole number, but is {value!r:.40}.")
