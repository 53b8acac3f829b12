"""
Conversations, feedback and usage: what a user asked, what was answered, and what it cost.

Every transaction takes the role of the caller's tenant first; what belongs to another user or another tenant is not
found, exactly as if it did not exist.

    conversations = Conversations(database)
    session = conversations.create_session(identity, title="Warranties")
    conversations.messages(identity, session.id)
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from database import conversation_queries as queries
from database.connection import Database, parse_conninfo, wrapped
from database.conversation_models import ChatMessage, ChatSession
from database.conversation_queries import Turn, TurnAnswer, Usage
from database.errors import DatabaseError, DatabaseUnavailableError
from database.tenancy import transaction_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from database.accounts import Identity

__all__ = ["ChatMessage", "ChatSession", "Conversations", "TurnAnswer", "Usage"]

CONNECTIONS = 16
"""At most, per event loop and for all threads together; beside those of the documents."""

POOL_TIMEOUT = 10
"""Seconds that a transaction waits for a free one."""

P = ParamSpec("P")
T = TypeVar("T")

_SETTINGS = text("SELECT set_config('role', :role, true), set_config('search_path', :search_path, true)")


class Conversations:
    """
    The conversations of all users. Safe to share between threads; each event loop has connections of its own.

    Each method takes the `Identity` of whoever asks, first, and has a twin for asyncio, `…_async`.

    :param database: Where they are; connections are made as its application role.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._engine: Engine | None = None
        self._async_engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = (
            weakref.WeakKeyDictionary()
        )

    def create_session(
        self, identity: Identity, *, session_id: UUID | None = None, title: str | None = None
    ) -> ChatSession:
        """
        Begin a conversation; one of the caller's that is there already is returned as it is.

        :param session_id: Its id; `None` means a new one.
        :param title: For lists of conversations; `None` means that the first question gives it.
        :raises NotFoundError: If the id is somebody else's.
        """
        return self._run(identity, queries.create_session, session_id=session_id, title=title)

    async def create_session_async(
        self, identity: Identity, *, session_id: UUID | None = None, title: str | None = None
    ) -> ChatSession:
        """`create_session`, for asyncio."""
        return await self._run_async(identity, queries.create_session, session_id=session_id, title=title)

    def sessions(
        self, identity: Identity, *, limit: int = 50, before: UUID | None = None, search: str | None = None
    ) -> Sequence[ChatSession]:
        """
        The caller's conversations, the latest first.

        :param limit: How many at most.
        :param before: The last one of the page before.
        :param search: Only those with these words in a title, a question or an answer; upper or lower case alike.
        """
        return self._run(identity, queries.sessions, limit=limit, before=before, search=search)

    async def sessions_async(
        self, identity: Identity, *, limit: int = 50, before: UUID | None = None, search: str | None = None
    ) -> Sequence[ChatSession]:
        """`sessions`, for asyncio."""
        return await self._run_async(identity, queries.sessions, limit=limit, before=before, search=search)

    def session(self, identity: Identity, session_id: UUID) -> ChatSession:
        """
        One conversation.

        :raises NotFoundError: If the caller has none with this id.
        """
        return self._run(identity, queries.find_session, session_id)

    async def session_async(self, identity: Identity, session_id: UUID) -> ChatSession:
        """`session`, for asyncio."""
        return await self._run_async(identity, queries.find_session, session_id)

    def rename(self, identity: Identity, session_id: UUID, *, title: str) -> ChatSession:
        """
        Give a conversation another title.

        :raises NotFoundError: If the caller has none with this id.
        """
        return self._run(identity, queries.rename, session_id, title=title)

    async def rename_async(self, identity: Identity, session_id: UUID, *, title: str) -> ChatSession:
        """`rename`, for asyncio."""
        return await self._run_async(identity, queries.rename, session_id, title=title)

    def delete(self, identity: Identity, session_id: UUID) -> None:
        """
        Delete a conversation with its messages and what was thought of them; what it cost stays counted.

        :raises NotFoundError: If the caller has none with this id.
        """
        self._run(identity, queries.delete_session, session_id)

    async def delete_async(self, identity: Identity, session_id: UUID) -> None:
        """`delete`, for asyncio."""
        await self._run_async(identity, queries.delete_session, session_id)

    def messages(self, identity: Identity, session_id: UUID, *, last: int | None = None) -> list[ChatMessage]:
        """
        The messages of a conversation, oldest first, with `feedback`.

        :param last: Only this many, the latest; `None` means all.
        :raises NotFoundError: If the caller has none with this id.
        """
        return self._run(identity, queries.messages, session_id, last=last)

    async def messages_async(
        self, identity: Identity, session_id: UUID, *, last: int | None = None
    ) -> list[ChatMessage]:
        """`messages`, for asyncio."""
        return await self._run_async(identity, queries.messages, session_id, last=last)

    def message(self, identity: Identity, message_id: UUID) -> ChatMessage:
        """
        One message, with `feedback`.

        :raises NotFoundError: If it stands in no conversation of the caller's.
        """
        return self._run(identity, queries.message, message_id)

    async def message_async(self, identity: Identity, message_id: UUID) -> ChatMessage:
        """`message`, for asyncio."""
        return await self._run_async(identity, queries.message, message_id)

    def add_turn(
        self,
        identity: Identity,
        session_id: UUID,
        *,
        question: str,
        answer: TurnAnswer,
        usage: Usage | None = None,
        message_id: UUID | None = None,
        create: bool = False,
    ) -> ChatMessage:
        """
        Store a question and its answer, and what they cost, in one transaction.

        Turns of one conversation may be added at once: each gets places of its own, one behind the other.

        :param usage: What it cost; `None` logs nothing.
        :param message_id: Id of the answer. A turn whose answer is there already is not stored again.
        :param create: Whether to begin the conversation where there is none, with the question as its title.
        :returns: The answer's message.
        :raises NotFoundError: If the caller has no conversation with this id.
        :raises InvalidInputError: If PostgreSQL cannot hold the question.
        """
        turn = Turn(question=question, answer=answer, message_id=message_id or uuid4(), usage=usage, create=create)
        return self._run(identity, queries.add_turn, session_id, turn)

    async def add_turn_async(
        self,
        identity: Identity,
        session_id: UUID,
        *,
        question: str,
        answer: TurnAnswer,
        usage: Usage | None = None,
        message_id: UUID | None = None,
        create: bool = False,
    ) -> ChatMessage:
        """`add_turn`, for asyncio."""
        turn = Turn(question=question, answer=answer, message_id=message_id or uuid4(), usage=usage, create=create)
        return await self._run_async(identity, queries.add_turn, session_id, turn)

    def give_feedback(self, identity: Identity, message_id: UUID, *, mark: int, comment: str | None = None) -> None:
        """
        Mark an answer; a mark given before is replaced.

        :param mark: 1 for a good answer, -1 for a bad one.
        :param comment: What to say about it.
        :raises NotFoundError: If it stands in no conversation of the caller's.
        :raises InvalidInputError: If the mark is another, the message is a question, or the comment cannot be held.
        """
        self._run(identity, queries.give_feedback, message_id, mark=mark, comment=comment)

    async def give_feedback_async(
        self, identity: Identity, message_id: UUID, *, mark: int, comment: str | None = None
    ) -> None:
        """`give_feedback`, for asyncio."""
        await self._run_async(identity, queries.give_feedback, message_id, mark=mark, comment=comment)

    def log_usage(self, identity: Identity, usage: Usage) -> None:
        """Note what a question cost that is part of no conversation."""
        self._run(identity, queries.log_usage, usage)

    async def log_usage_async(self, identity: Identity, usage: Usage) -> None:
        """`log_usage`, for asyncio."""
        await self._run_async(identity, queries.log_usage, usage)

    def tokens_today(self, identity: Identity) -> int:
        """Tokens read and written since midnight, UTC: of the key, or of the user where there is none."""
        return self._run(identity, queries.tokens_today)

    async def tokens_today_async(self, identity: Identity) -> int:
        """`tokens_today`, for asyncio."""
        return await self._run_async(identity, queries.tokens_today)

    def export_user(self, identity: Identity) -> dict[str, Any]:
        """All that is stored of the caller, as JSON has it; of passwords and keys no secret, nor what it is checked with."""
        return self._run(identity, queries.export_user)

    async def export_user_async(self, identity: Identity) -> dict[str, Any]:
        """`export_user`, for asyncio."""
        return await self._run_async(identity, queries.export_user)

    def delete_user_data(self, identity: Identity) -> dict[str, int]:
        """
        Delete the caller's conversations, marks and usage; the user and the keys stay.

        :returns: How many rows went, by kind.
        """
        return self._run(identity, queries.delete_user_data)

    async def delete_user_data_async(self, identity: Identity) -> dict[str, int]:
        """`delete_user_data`, for asyncio."""
        return await self._run_async(identity, queries.delete_user_data)

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    async def close_async(self) -> None:
        """Close the connections of the running event loop; the next use opens them again."""
        engine = self._async_engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.dispose()

    def _run(
        self,
        identity: Identity,
        operation: Callable[Concatenate[Session, Identity, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do something in one transaction as the caller's tenant."""
        with (
            _errors_wrapped(self.database),
            Session(self._opened(), expire_on_commit=False) as session,
            session.begin(),
        ):
            session.execute(_SETTINGS, transaction_settings(identity.tenant))
            return operation(session, identity, *args, **kwargs)

    async def _run_async(
        self,
        identity: Identity,
        operation: Callable[Concatenate[Session, Identity, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`_run`, for asyncio: the same function, whose waiting SQLAlchemy turns into awaiting."""
        with _errors_wrapped(self.database):
            async with AsyncSession(self._opened_async(), expire_on_commit=False) as session, session.begin():
                await session.execute(_SETTINGS, transaction_settings(identity.tenant))
                return await session.run_sync(operation, identity, *args, **kwargs)

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = create_engine(**_engine_arguments(self.database))
            _revive_before_connecting(self._engine, self.database)
        return self._engine

    def _opened_async(self) -> AsyncEngine:
        loop = asyncio.get_running_loop()
        engine = self._async_engines.get(loop)
        if engine is None:
            engine = self._async_engines[loop] = create_async_engine(**_engine_arguments(self.database))
            _revive_before_connecting(engine.sync_engine, self.database)
        return engine


def _engine_arguments(database: Database) -> dict[str, Any]:
    """Of SQLAlchemy's engines; the parameters go to libpq as they are, as its URLs do not take every form."""
    return {
        "url": "postgresql+psycopg://",
        "connect_args": {**parse_conninfo(database.conninfo), "prepare_threshold": None},
        "pool_size": CONNECTIONS // 4,
        "max_overflow": CONNECTIONS - CONNECTIONS // 4,
        "pool_timeout": POOL_TIMEOUT,
        "pool_pre_ping": True,
        "hide_parameters": True,  # errors quote no questions
        "use_native_hstore": False,  # spares each first connection a query
    }


def _revive_before_connecting(engine: Engine, database: Database) -> None:
    """Start the embedded server again if it should have died."""

    def revive(*_: object) -> None:  # what it returned would be taken for a connection
        if database.server is not None:
            database.server.start()

    event.listen(engine, "do_connect", revive)


@contextmanager
def _errors_wrapped(database: Database) -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as exc:
        raise DatabaseUnavailableError(
            f"A free connection to {database.name} was expected within {POOL_TIMEOUT} s, but all {CONNECTIONS} are busy.",
            hint="Run fewer queries at once, or look for long transactions in pg_stat_activity.",
        ) from exc
    except DBAPIError as exc:
        if isinstance(exc.orig, psycopg.Error):
            raise wrapped(exc.orig, name=database.name) from exc
        raise DatabaseError(f"{database.name} refused a statement: {type(exc.orig).__name__}") from exc
