"""Chainlit's conversations, kept where the terminal's and the API's are: in `database.conversations`."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from chainlit.data.base import BaseDataLayer
from chainlit.types import PageInfo, PaginatedResponse
from chainlit.user import PersistedUser

from database.errors import InvalidInputError, NotFoundError
from serving.page.answer_text import answer_markdown, notes
from serving.page.sessions import Visitor, current

if TYPE_CHECKING:
    from chainlit.element import Element, ElementDict
    from chainlit.step import StepDict
    from chainlit.types import Feedback, Pagination, ThreadDict, ThreadFilter
    from chainlit.user import User

    from database.conversations import ChatMessage, ChatSession

REMEMBERED = 10_000
LONGEST_TITLE = 80


class PageDataLayer(BaseDataLayer):
    """
    What Chainlit asks for, answered for whoever sent the request.

    Questions and answers are stored with the answer, by `Conversing`, not step by step as Chainlit would: what it calls a
    step is a message, and its run is the answer with what is thought of it.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[str, UUID] = OrderedDict()

    def remember_answer(self, run_id: str, message_id: UUID) -> None:
        """Which stored answer a run of this process became, for marks that are given before the page is loaded again."""
        self._answers[run_id] = message_id
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """The visitor; others are not asked for."""
        visitor = current.get()
        if identifier != visitor.login:
            return None
        return PersistedUser(
            identifier=visitor.login,
            display_name=visitor.identity.user_name,
            id=str(visitor.identity.user_id),
            createdAt="",
        )

    async def create_user(self, user: User) -> PersistedUser | None:
        """Users are made by a command, never by signing in."""
        return await self.get_user(user.identifier)

    async def list_threads(self, pagination: Pagination, filters: ThreadFilter) -> PaginatedResponse[ThreadDict]:
        """One page of the visitor's conversations, the latest first."""
        visitor = current.get()
        found = await visitor.service.conversations.sessions_async(
            visitor.identity,
            limit=min(pagination.first, 100) + 1,
            before=_uuid(pagination.cursor),
            search=filters.search,
        )
        page = found[: min(pagination.first, 100)]
        return PaginatedResponse(
            pageInfo=PageInfo(
                hasNextPage=len(found) > len(page),
                startCursor=str(page[0].id) if page else None,
                endCursor=str(page[-1].id) if page else None,
            ),
            data=[_thread(session, visitor) for session in page],
        )

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """A conversation of the visitor's with its messages; anybody else's is not there."""
        visitor, session_id = current.get(), _uuid(thread_id)
        if session_id is None:
            return None
        conversations = visitor.service.conversations
        try:
            session = await conversations.session_async(visitor.identity, session_id)
            messages = await conversations.messages_async(visitor.identity, session_id)
        except NotFoundError:
            return None
        return _thread(session, visitor, steps=_steps(messages))

    async def get_thread_author(self, thread_id: str) -> str:
        """The visitor, of the visitor's conversations; of others nobody."""
        visitor, session_id = current.get(), _uuid(thread_id)
        if session_id is None:
            return ""
        try:
            await visitor.service.conversations.session_async(visitor.identity, session_id)
        except NotFoundError:
            return ""
        return visitor.login

    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """Begin a conversation, which is when Chainlit says whose it is, or rename one. What else it keeps is not kept."""
        visitor, session_id = current.get(), _uuid(thread_id)
        title = " ".join((name or "").split())[:LONGEST_TITLE]
        if session_id is None or not title:
            return
        conversations = visitor.service.conversations
        if user_id is not None:
            await conversations.create_session_async(visitor.identity, session_id=session_id, title=title)
        else:
            await conversations.rename_async(visitor.identity, session_id, title=title)

    async def delete_thread(self, thread_id: str) -> None:
        """Delete a conversation of the visitor's."""
        visitor, session_id = current.get(), _uuid(thread_id)
        if session_id is not None:
            await visitor.service.conversations.delete_async(visitor.identity, session_id)

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """Keep what the visitor thinks of an answer."""
        visitor = current.get()
        message_id = self._answers.get(feedback.forId) or _uuid(feedback.forId)
        if message_id is None:
            raise NotFoundError("An answer was expected, but there is none of this name.")
        comment = (feedback.comment or "").strip() or None
        await visitor.service.conversations.give_feedback_async(
            visitor.identity, message_id, mark=1 if feedback.value else -1, comment=comment
        )
        return str(message_id)

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Marks are replaced, not taken back."""
        raise InvalidInputError("A mark can be changed, but not taken back.")

    async def create_step(self, step_dict: StepDict) -> None:
        """Nothing: see the class."""

    async def update_step(self, step_dict: StepDict) -> None:
        """Nothing: see the class."""

    async def delete_step(self, step_id: str) -> None:
        """Nothing: see the class."""

    async def create_element(self, element: Element) -> None:
        """Nothing: answers have links instead of elements."""

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """There are none."""
        return None

    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        """There are none."""

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """There are none."""
        return []

    async def build_debug_url(self) -> str:
        """There is none."""
        return ""

    async def close(self) -> None:
        """The service closes its connections itself."""


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _thread(session: ChatSession, visitor: Visitor, *, steps: list[StepDict] | None = None) -> ThreadDict:
    return {
        "id": str(session.id),
        "createdAt": session.updated_at.isoformat(),
        "name": session.title,
        "userId": str(visitor.identity.user_id),
        "userIdentifier": visitor.login,
        "tags": [],
        "metadata": {},
        "steps": steps or [],
        "elements": [],
    }


def _steps(messages: list[ChatMessage]) -> list[StepDict]:
    """Messages as Chainlit nests them: a question, the run under it, the answer in the run."""
    steps: list[Any] = []
    question = None
    for message in messages:
        if message.role == "user":
            question = str(message.id)
            steps.append(_step(message, question, "user_message", message.content))
            continue
        run = _step(message, str(message.id), "run", "", parent=question)
        if feedback := message.feedback:
            run["feedback"] = {
                "forId": run["id"],
                "id": run["id"],
                "value": 1 if feedback.mark > 0 else 0,
                "comment": feedback.comment,
            }
        note = notes(supported=message.supported, extractive=message.extractive, interrupted=message.interrupted)
        shown = answer_markdown(message.content, message.citations, message_id=message.id, note=note)
        steps += [run, _step(message, str(uuid5(message.id, "answer")), "assistant_message", shown, parent=run["id"])]
    return steps


def _step(message: ChatMessage, step_id: str, kind: str, text: str, *, parent: str | None = None) -> dict[str, Any]:
    at = message.created_at.isoformat()
    return {
        "id": step_id,
        "threadId": str(message.session_id),
        "parentId": parent,
        "type": kind,
        "name": "on_message" if kind == "run" else "Synapse",
        "input": "",
        "output": text,
        "createdAt": at,
        "start": at,
        "end": at,
        "streaming": False,
        "isError": False,
        "metadata": {},
    }
