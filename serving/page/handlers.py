"""What happens on the page: a question is asked, an answer streams, something fails."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

import chainlit
import chainlit.server
from chainlit.config import config
from chainlit.context import context
from chainlit.input_widget import InputWidget, Select, TextInput
from chainlit.session import WebsocketSession
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from database.errors import (
    DatabaseError,
    EmbeddingModelError,
    InvalidInputError,
    LanguageModelError,
    LimitError,
    NotFoundError,
    SynapseError,
)
from serving.page.answer_text import SafeText, answer_markdown, escaped, notes
from serving.page.data_layer import LONGEST_TITLE, PageDataLayer
from serving.page.filters import ANY, Control, filter_from, in_words
from serving.page.indexed import indexed
from serving.page.sessions import Visitor, current

log = logging.getLogger("synapse.page")
_layer = PageDataLayer()
_session: Any = chainlit.user_session  # Any: it has no types

NOTHING_INDEXED = """\
There are no documents to answer from yet. They come with `python synapse.py index FOLDER`, or through the API at \
`/documents`; then ask here."""

CONTROLS = "controls"
RUN = "on_message"
"""The name by which Chainlit's page knows an answer that can be marked."""


def register() -> None:
    """Give Chainlit our handlers. Each finds the service and the user of its request by itself."""
    chainlit.data_layer(lambda: _layer)
    chainlit.password_auth_callback(_no_login)
    chainlit.set_starters(_starters)
    chainlit.on_chat_start(_started)
    chainlit.on_chat_resume(_resumed)
    chainlit.action_callback("retry")(_retry)
    config.code.on_message = _asked
    chainlit.server.sio.on("stop", handler=_stop)  # theirs writes a message of its own into the conversation
    chainlit.server.app.add_exception_handler(SynapseError, _refused)


async def _no_login(login: str, password: str) -> None:
    """The page's door signs users in; with this Chainlit knows that there are some."""


async def _starters(user: Any, language: str | None) -> list[chainlit.Starter]:
    """Questions about what is indexed, for who does not know yet what to ask."""
    known = await indexed(current.get())
    topics = known.topics if known else ()
    return [chainlit.Starter(label=topic, message=f"What do the documents say about “{topic}”?") for topic in topics]


async def _started() -> None:
    await _show_controls()
    known = await indexed(current.get())
    if known is not None and not known.topics:
        await _say(NOTHING_INDEXED)


async def _resumed(thread: Any) -> None:
    """With this handler Chainlit opens a conversation again, instead of showing it only."""
    await _show_controls()


async def _show_controls() -> None:
    known = await indexed(current.get())
    if known is None or not known.controls:
        return
    # Kept with the connection: what was entered must not lose its meaning because the database is asked again.
    _session.set(CONTROLS, known.controls)
    # Ranges first: their ends stand beside each other.
    ordered = sorted(known.controls, key=lambda control: len(control.inputs), reverse=True)
    settings: Any = chainlit.ChatSettings([widget for control in ordered for widget in _widgets(control)])
    await settings.send()


async def _say(text: str) -> None:
    message: Any = chainlit.Message(content=text)
    await message.send()


def _widgets(control: Control) -> list[InputWidget]:
    """The input elements of a control."""
    match control.kind:
        case "choice":
            values = [ANY, *(control.values or {})]
            return [Select(id=control.name, label=_label(control.name), values=values, initial_index=0)]
        case "number" | "date":
            # Text for numbers, too: an empty number is shown, and sent, as 0.
            ends = zip(control.inputs, control.hints, strict=True)
            return [TextInput(id=name, label=_label(name), placeholder=hint) for name, hint in ends]
        case _:
            return [TextInput(id=control.name, label=f"{_label(control.name)} contains")]


def _label(name: str) -> str:
    return name.replace("_", " ")


async def _refused(request: Request, exc: Exception) -> Response:
    """What a request of the page's gets where the data layer raises."""
    status = 404 if isinstance(exc, NotFoundError) else 400 if isinstance(exc, InvalidInputError) else 503
    return JSONResponse({"detail": exc.message if isinstance(exc, SynapseError) else "failed"}, status)


async def _stop(connection: str) -> None:
    session = WebsocketSession.get(connection)
    if session is not None and session.current_task is not None:
        session.current_task.cancel()


async def _asked(message: chainlit.Message) -> None:
    await _answer(message.content, parent=message.id)


async def _retry(action: Any) -> None:
    await action.remove()
    await _answer(str(action.payload.get("question", "")), parent=action.payload.get("parent"))


async def _answer(question: str, *, parent: str | None) -> None:
    """Answer a question in the conversation of this connection, part by part."""
    visitor = current.get()
    if visitor.is_gone():
        await _say("You are logged out. Reload the page to sign in again.")
        return
    async with chainlit.Step(name=RUN, type="run", parent_id=parent) as run:
        shown: Any = chainlit.Message(content="", parent_id=run.id)  # Any: some of its methods have no types
        safe, reply, above, failure = SafeText(), None, "", None
        try:
            session_id = await _conversation(visitor, question)
            controls, entered = _session.get(CONTROLS) or (), context.session.chat_settings
            if words := in_words(controls, entered):
                above = f"*Only documents with {escaped(words)}*\n\n"
                await shown.stream_token(above)
            parts = visitor.service.stream(
                visitor.identity, question, session_id=session_id, filters=filter_from(controls, entered)
            )
            async for part in parts:
                if isinstance(part, str):
                    await shown.stream_token(safe.add(part))
                else:
                    reply = part
        except SynapseError as exc:
            failure = exc
        except asyncio.CancelledError:  # the stop button; what was written is stored, as interrupted
            await shown.stream_token(f"{safe.rest()}\n\n{notes(supported=None, extractive=None, interrupted=True)}")
            await shown.update()
            raise
    if failure is not None:
        await _failed(shown, failure, question, parent)
    if reply is None:
        return
    answer = reply.answer
    if reply.message_id is not None:
        _layer.remember_answer(run.id, reply.message_id)
    shown.content = above + answer_markdown(
        answer.text,
        [citation.to_dict() for citation in answer.citations],
        message_id=reply.message_id,
        note=notes(supported=answer.supported, extractive=answer.extractive),
    )
    await shown.update()


async def _conversation(visitor: Visitor, question: str) -> UUID:
    """The conversation of this connection, begun if it is not there, and shown in the browser's address."""
    thread_id = context.session.thread_id
    title = " ".join(question.split())[:LONGEST_TITLE]
    conversations = visitor.service.conversations
    session = await conversations.create_session_async(visitor.identity, session_id=UUID(thread_id), title=title)
    await context.emitter.send_window_message({"synapse_conversation": thread_id})
    return session.id


async def _failed(shown: Any, exc: SynapseError, question: str, parent: str | None) -> None:
    """Say what happened, and offer to ask again; what was written so far stays."""
    log.warning("a question was not answered: %s", exc.code)
    if shown.content:
        await shown.update()
    sentence, again = _sentence(exc)
    actions = [
        chainlit.Action(
            name="retry", payload={"question": question, "parent": parent}, label="Ask again", icon="rotate-cw"
        )
    ]
    failure: Any = chainlit.Message(content=sentence, actions=actions if again else [], parent_id=parent)
    failure.is_error = True
    await failure.send()


def _sentence(exc: SynapseError) -> tuple[str, bool]:
    """What to say of a failure, and whether the same question may succeed later."""
    match exc:
        case InvalidInputError():
            return exc.message, False
        case LimitError():
            return " ".join(filter(None, [exc.message, exc.hint])), True
        case LanguageModelError():
            return "The language model does not answer at the moment. Your question is still here.", True
        case DatabaseError() | EmbeddingModelError():
            return "The documents cannot be reached at the moment. Your question is still here.", True
        case _:
            return "Something went wrong with this question. Your question is still here.", True
