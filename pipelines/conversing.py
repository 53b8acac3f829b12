"""
One question in a conversation: what the terminal, the page and the API all call.

    conversing = Conversing(assistant_for, conversations)
    async for part in conversing.stream(identity, question, session_id=session.id):
        print(part)  # parts of the text, and last a Reply

The stored history goes to the pipeline, which makes follow-up questions stand alone with it; question, answer and what
they cost are stored in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from database.conversation_queries import storable
from database.conversations import Conversations
from database.errors import DatabaseError, DatabaseUnavailableError, LimitError, NotFoundError, SynapseError
from pipelines.turn import Reply, Turn

if TYPE_CHECKING:
    from components.answers import Answer
    from database.accounts import Identity
    from database.conversations import ChatMessage
    from pipelines.answering import Assistant, Filters, History

__all__ = ["Conversing", "Reply"]

REMEMBERED_TURNS = 10
"""How many of a conversation's last turns a question is understood with."""

STORE_DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt to store a turn; in between, a restarted database is back."""

_log = logging.getLogger(__name__)


class Conversing:
    """
    Answers questions in conversations that are stored. Safe to share between threads and event loops.

    :param assistant_for: The assistant of a tenant.
    :param conversations: Where conversations are stored.
    :param daily_tokens: Tokens of the language model that a key or user may use per day (UTC), where the key says nothing
        else; `None` means no limit.
    """

    def __init__(
        self,
        assistant_for: Callable[[str], Assistant],
        conversations: Conversations,
        *,
        daily_tokens: int | None = None,
    ) -> None:
        self.assistant_for = assistant_for
        self.conversations = conversations
        self.daily_tokens = daily_tokens
        self._storing: set[asyncio.Task[None]] = set()

    async def stream(
        self,
        identity: Identity,
        question: str,
        *,
        session_id: UUID | None = None,
        history: History | None = None,
        filters: Filters = None,
        top_k: int | None = None,
        store: bool = True,
        create: bool = False,
    ) -> AsyncIterator[str | Reply]:
        """
        Answer a question part by part.

        Whoever leaves the iteration early stops the language model; what was written so far is stored, marked interrupted.

        :param session_id: The conversation; `None` begins a new one, which is there once the answer is.
        :param history: What was said before, oldest first; `None` means what is stored of the conversation.
        :param filters: An expression, a mapping or a Haystack filter.
        :param top_k: How many documents to answer from; `None` means the settings' number.
        :param store: Whether to store the turn; false only counts what it cost.
        :param create: Whether the conversation, where `session_id` names one that is not there, begins with this turn.
        :returns: The parts of the answer's text as they are written, and last a `Reply`.
        :raises NotFoundError: If the conversation is not there, or not the caller's.
        :raises LimitError: If the tokens of the day are used up.
        :raises InvalidInputError: If the question or a filter cannot be used.
        :raises LanguageModelError: If the language model's server failed; what was written is stored, as above.
        :raises DatabaseError: If PostgreSQL failed; the message says if an answer was given but not stored.
        """
        storable(question, what="A question")
        if (limit := self._limit(identity)) is not None:
            _check_spent(await self.conversations.tokens_today_async(identity), limit)
        if session_id is not None:
            # Also where a history is given: nobody asks in a conversation that is not theirs.
            with suppress(NotFoundError) if create else nullcontext():
                last = await self.conversations.messages_async(identity, session_id, last=2 * REMEMBERED_TURNS)
                history = _history(last) if history is None else history
        assistant = self.assistant_for(identity.tenant)
        turn = Turn(identity, question, session_id, model=assistant.settings.llm_model, store=store, create=create)
        parts: asyncio.Queue[str | None] = asyncio.Queue()

        async def asked() -> Answer:
            with turn.meter:
                return await assistant.ask_async(
                    question, history=history or (), filters=filters, top_k=top_k, on_text=parts.put
                )

        asking = asyncio.create_task(asked())
        asking.add_done_callback(lambda task: _ended(task, parts))
        try:
            while (part := await parts.get()) is not None:
                turn.parts.append(part)
                yield part
            turn.answer = await asking
        except BaseException as exc:
            asking.cancel()
            if turn.is_worth_keeping(exc):
                with _lost(exc):
                    await self._keep(turn)
            raise
        await self._keep(turn)
        yield turn.reply()

    async def ask(
        self,
        identity: Identity,
        question: str,
        *,
        session_id: UUID | None = None,
        history: History | None = None,
        filters: Filters = None,
        top_k: int | None = None,
        store: bool = True,
        create: bool = False,
    ) -> Reply:
        """`stream`, for who wants the whole answer at once."""
        parts = self.stream(
            identity,
            question,
            session_id=session_id,
            history=history,
            filters=filters,
            top_k=top_k,
            store=store,
            create=create,
        )
        async for part in parts:
            if isinstance(part, Reply):
                return part
        raise AssertionError("a reply is the last part")

    def ask_sync(
        self,
        identity: Identity,
        question: str,
        *,
        session_id: UUID | None = None,
        history: History | None = None,
        filters: Filters = None,
        top_k: int | None = None,
        store: bool = True,
        create: bool = False,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """
        `ask`, without asyncio.

        :param on_text: Called with each part of the answer as it is written. An exception of its own, or Ctrl-C, interrupts
            the answer as leaving the iteration of `stream` does.
        """
        storable(question, what="A question")
        if (limit := self._limit(identity)) is not None:
            _check_spent(self.conversations.tokens_today(identity), limit)
        if session_id is not None:
            with suppress(NotFoundError) if create else nullcontext():
                last = self.conversations.messages(identity, session_id, last=2 * REMEMBERED_TURNS)
                history = _history(last) if history is None else history
        assistant = self.assistant_for(identity.tenant)
        turn = Turn(identity, question, session_id, model=assistant.settings.llm_model, store=store, create=create)

        def heard(part: str) -> None:
            turn.parts.append(part)
            if on_text:
                on_text(part)

        try:
            with turn.meter:
                turn.answer = assistant.ask(
                    question, history=history or (), filters=filters, top_k=top_k, on_text=heard
                )
        except BaseException as exc:
            if turn.is_worth_keeping(exc):
                with _lost(exc):
                    self._store(turn)
            raise
        self._store(turn)
        return turn.reply()

    async def drain(self) -> None:
        """Wait until what is being stored is stored; before the connections are closed."""
        while self._storing:
            await asyncio.wait(self._storing)

    def _limit(self, identity: Identity) -> int | None:
        return self.daily_tokens if identity.daily_tokens is None else identity.daily_tokens

    async def _keep(self, turn: Turn) -> None:
        """Store a turn in a task of its own, which whoever is cancelled meanwhile does not take along."""
        task = asyncio.create_task(self._store_async(turn))
        self._storing.add(task)
        task.add_done_callback(self._stored)
        await asyncio.shield(task)

    def _stored(self, task: asyncio.Task[None]) -> None:
        self._storing.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.error("%s", exc)

    async def _store_async(self, turn: Turn) -> None:
        for delay in _delays():
            try:
                if turn.store:
                    await self.conversations.add_turn_async(turn.identity, turn.session_id, **turn.stored())
                else:
                    await self.conversations.log_usage_async(turn.identity, turn.usage())
                return
            except SynapseError as exc:
                await asyncio.sleep(_pause(exc, delay))

    def _store(self, turn: Turn) -> None:
        for delay in _delays():
            try:
                if turn.store:
                    self.conversations.add_turn(turn.identity, turn.session_id, **turn.stored())
                else:
                    self.conversations.log_usage(turn.identity, turn.usage())
                return
            except SynapseError as exc:
                time.sleep(_pause(exc, delay))


def _ended(asking: asyncio.Task[Answer], parts: asyncio.Queue[str | None]) -> None:
    if not asking.cancelled():
        asking.exception()  # looked at here too, as nobody else does once the listener is gone
    parts.put_nowait(None)


@contextmanager
def _lost(first: BaseException) -> Iterator[None]:
    """
    What was written could not be stored either: said where the database was what failed; else, what happened first is.

    :param first: What happened.
    """
    try:
        yield
    except SynapseError as exc:
        if isinstance(first, DatabaseError):
            raise exc from first


def _history(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": one.role, "content": one.content} for one in messages if one.content.strip()]


def _check_spent(spent: int, limit: int) -> None:
    if spent >= limit:
        raise LimitError(
            f"Fewer than {limit} tokens were expected to be used today (UTC), but {spent} are.",
            hint="Ask again tomorrow, or have the limit raised.",
        )


def _delays() -> Iterator[float | None]:
    """After each attempt to store, the delay before the next; `None` after the last."""
    yield from STORE_DELAYS
    yield None


def _pause(exc: SynapseError, delay: float | None) -> float:
    """How long to wait before the next attempt; raises if there is none."""
    if delay is None or not isinstance(exc, DatabaseUnavailableError):
        raise type(exc)(f"The answer was given, but is not stored. {exc.message}", hint=exc.hint) from exc
    return delay
