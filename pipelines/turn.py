"""One question and its answer: what was written so far, what it cost, and what is stored of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from components.token_meter import TokenMeter
from database.conversation_queries import TurnAnswer, Usage

if TYPE_CHECKING:
    from components.answers import Answer
    from database.accounts import Identity


@dataclass(frozen=True, kw_only=True)
class Reply:
    """
    An answer, and where it is stored.

    :param session_id: The conversation; `None` if nothing was to be stored.
    :param message_id: The answer's message; likewise.
    :param answer: The answer, checked.
    :param tokens_in: Tokens that the language model read; 0 without one.
    :param tokens_out: Tokens that it wrote.
    :param tokens_estimated: Whether they are estimated, as its server did not say.
    """

    session_id: UUID | None
    message_id: UUID | None
    answer: Answer
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_estimated: bool = False


class Turn:
    """
    A question that is being answered.

    :param identity: Who asks.
    :param question: What is asked.
    :param session_id: In which conversation; `None` begins a new one.
    :param model: The language model, where one is called.
    :param store: Whether the turn is to be stored.
    :param create: Whether the conversation begins with it where it is not there.
    """

    def __init__(
        self, identity: Identity, question: str, session_id: UUID | None, *, model: str, store: bool, create: bool
    ) -> None:
        self.identity = identity
        self.question = question
        self.create = create or session_id is None
        self.session_id = session_id or uuid4()
        self.message_id = uuid4()
        self.model = model
        self.store = store
        self.meter = TokenMeter()
        self.parts: list[str] = []
        self.answer: Answer | None = None
        self.began = time.perf_counter()

    def is_worth_keeping(self, exc: BaseException) -> bool:
        """After a failure, what was written before it; where somebody left, the question too."""
        return bool(self.parts) or not isinstance(exc, Exception)

    def stored(self) -> dict[str, Any]:
        """What `Conversations.add_turn` takes; its id makes storing it twice storing it once."""
        return {
            "question": self.question,
            "answer": self._stored_answer(),
            "usage": self.usage(),
            "message_id": self.message_id,
            "create": self.create,
        }

    def usage(self) -> Usage:
        """What it cost so far."""
        return Usage(
            model=self._model(),
            tokens_in=self.meter.tokens_in,
            tokens_out=self.meter.tokens_out,
            tokens_estimated=self.meter.estimated,
            supported=self.answer.supported if self.answer else None,
            interrupted=self.answer is None,
            milliseconds=round((time.perf_counter() - self.began) * 1000, 1),
        )

    def reply(self) -> Reply:
        """What the caller gets in the end."""
        assert self.answer is not None
        return Reply(
            session_id=self.session_id if self.store else None,
            message_id=self.message_id if self.store else None,
            answer=self.answer,
            tokens_in=self.meter.tokens_in,
            tokens_out=self.meter.tokens_out,
            tokens_estimated=self.meter.estimated,
        )

    def _model(self) -> str | None:
        return self.model if self.meter.calls else None

    def _stored_answer(self) -> TurnAnswer:
        if self.answer is None:
            text, extractive = "".join(self.parts), not self.meter.calls
            return TurnAnswer(text=text, supported=False, extractive=extractive, model=self._model(), interrupted=True)
        return TurnAnswer(
            text=self.answer.text,
            supported=self.answer.supported,
            extractive=self.answer.extractive,
            citations=[citation.to_dict() for citation in self.answer.citations],
            model=self._model(),
            timings_ms=self.answer.timings_ms,
        )
