"""
What every door of the service works with, whatever protocol it speaks.

    service = Service(settings)
    await service.start()
    found = await service.search(identity, "How long is the warranty?")

Nothing in it dies with the database: pools connect again by themselves, and what failed to load is loaded with the next
question.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from uuid import UUID

from database.accounts import Accounts
from database.connection import Database, database_for
from database.conversations import Conversations
from database.errors import InvalidInputError, SynapseError
from database.ledger import Ledger
from database.schema import require_current
from pipelines.answering import Assistant, Filters, Found, History
from pipelines.api import open_ledger
from pipelines.conversing import Conversing, Reply
from serving.detached import Detached
from serving.observability.metrics import observe_found, observed
from serving.uploads import Uploads

if TYPE_CHECKING:
    from config import Settings
    from database.accounts import Identity

MOST_ASSISTANTS = 64
"""Tenants whose pipelines are kept; another's are built again with its next question, which takes milliseconds."""

READY_TIMEOUT = 3.0
"""Seconds that a database may take to say that it is there."""

log = logging.getLogger("synapse.service")
P = ParamSpec("P")
T = TypeVar("T")


class Service:
    """
    Everything that routes, tools and the page share. Belongs to one event loop, from `start` to `close`.

    :param settings: Which database, which models, which limits.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        database = database_for(settings.database_url, home=str(settings.home))
        lag = settings.database_max_lag_seconds
        self.database: Database = database.reading_from(settings.database_read_url, max_lag=lag)
        self.accounts = Accounts(self.database)
        self.conversations = Conversations(self.database)
        self.conversing = Conversing(self.assistant, self.conversations, daily_tokens=settings.daily_tokens)
        self.uploads = Uploads(settings)
        self._assistants: OrderedDict[str, Assistant] = OrderedDict()
        self._lock = threading.Lock()
        # Embedding keeps the processors busy: more threads than this only make everyone wait.
        self._threads = ThreadPoolExecutor(max_workers=max(4, os.cpu_count() or 1), thread_name_prefix="synapse")
        self.running = Detached()  # streams that are being sent
        self._warm = False

    async def start(self) -> None:
        """Load the models, and take up the uploads that an earlier run left; a database that is away stops neither."""
        with suppress(SynapseError):
            await self.warm_up()
        await self.uploads.start()

    async def close(self) -> None:
        """Let go of everything; what is still being written is stopped, and stored as far as it came."""
        await self.running.close()
        await self.conversing.drain()
        await self.uploads.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.conversations.close_async()
        await self.database.close_async()

    async def warm_up(self) -> None:
        """
        Load what the first question needs.

        :raises SynapseError: If a model or the database is not there.
        """
        await self.in_thread(self.assistant(self.settings.tenant).warm_up)
        self._warm = True

    async def ready(self) -> dict[str, Any]:
        """
        What works: `database` and `model` as booleans, `schema` as the reason why it does not fit, or `True`.

        With a standby, also whether it can be read from: `standby`.
        """
        found: dict[str, Any] = {"database": False, "schema": False, "model": self._warm}
        if self.database.replica is not None:
            with suppress(SynapseError, TimeoutError):  # it is looked for when somebody reads
                await asyncio.wait_for(self.database.for_reading().read_async("SELECT 1"), READY_TIMEOUT)
            found["standby"] = not self.database.replica.standby.is_away
        try:
            await asyncio.wait_for(self.database.read_async("SELECT 1"), READY_TIMEOUT)
            found["database"] = True
            await asyncio.wait_for(self.in_thread(require_current, self.database), READY_TIMEOUT)
            found["schema"] = True
            if not self._warm:
                await asyncio.wait_for(self.warm_up(), READY_TIMEOUT)
                found["model"] = True
        except (SynapseError, TimeoutError) as exc:
            log.info("not ready: %s", exc or type(exc).__name__)
        return found

    def assistant(self, tenant: str) -> Assistant:
        """The assistant that knows a tenant's documents, and no others."""
        with self._lock:
            assistant = self._assistants.pop(tenant, None) or Assistant(self.settings_of(tenant))
            self._assistants[tenant] = assistant
            while len(self._assistants) > MOST_ASSISTANTS:
                self._assistants.popitem(last=False)
            return assistant

    def settings_of(self, tenant: str) -> Settings:
        """The settings, for another tenant."""
        return replace(self.settings, tenant=tenant)

    def ledger(self, tenant: str) -> Ledger:
        """A tenant's ledger; reads the registry of models, and therefore belongs into a thread."""
        return open_ledger(self.settings_of(tenant))

    async def search(
        self, identity: Identity, question: str, *, filters: Filters = None, top_k: int | None = None
    ) -> Found:
        """Find documents of the caller's tenant; see `Assistant.search`."""
        self.check(question, top_k)
        search = self.assistant(identity.tenant).search
        found = await self.in_thread(search, question, filters=filters, top_k=top_k)
        observe_found(found)
        return found

    def stream(
        self,
        identity: Identity,
        question: str,
        *,
        session_id: UUID | None = None,
        history: History | None = None,
        filters: Filters = None,
        top_k: int | None = None,
        create: bool = False,
    ) -> AsyncIterator[str | Reply]:
        """
        Answer a question of the caller's, part by part, and last the whole; see `Conversing.stream`.

        :raises InvalidInputError: If it is beyond the service's limits; the rest is raised with the first part.
        """
        self.check(question, top_k)
        parts = self.conversing.stream(
            identity,
            question,
            session_id=session_id,
            history=history,
            filters=filters,
            top_k=top_k,
            create=create,
        )
        return observed(parts)

    async def ask(
        self,
        identity: Identity,
        question: str,
        *,
        session_id: UUID | None = None,
        filters: Filters = None,
        top_k: int | None = None,
    ) -> Reply:
        """`stream`, for who wants the whole answer at once."""
        parts = self.stream(identity, question, session_id=session_id, filters=filters, top_k=top_k)
        async for part in parts:
            if isinstance(part, Reply):
                return part
        raise AssertionError("a reply is the last part")

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in one of a few threads of the service's own."""
        call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def check(self, question: str, top_k: int | None) -> None:
        """
        Hold a question against the limits of the service.

        :raises InvalidInputError: If it is too long, or asks for too many documents.
        """
        longest, most = self.settings.max_question_chars, self.settings.max_top_k
        if len(question) > longest:
            raise InvalidInputError(
                f"A question of at most {longest} characters was expected, but it has {len(question)}.",
                hint="Shorten it; long texts belong into documents.",
            )
        if top_k is not None and not 1 <= top_k <= most:
            raise InvalidInputError(f"top_k must be between 1 and {most}, but is {top_k}.")
