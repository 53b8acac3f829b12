"""`/conversations` and `/messages`: what the caller asked, in whatever door, and what was answered."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from serving.callers import caller
from serving.routes.forms import ConversationsBody, FeedbackForm, TranscriptBody, errors
from serving.service import Service

router = APIRouter(tags=["conversations"])


@router.get("/conversations", response_model=ConversationsBody, responses=errors(404), summary="List conversations")
async def conversations(
    request: Request,
    before: Annotated[UUID | None, Query(description="The last conversation of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    search: Annotated[str | None, Query(description="Only those with these words.", max_length=200)] = None,
) -> Any:
    """The caller's conversations, the latest first."""
    found = await _service(request).conversations.sessions_async(
        caller(), limit=limit + 1, before=before, search=search
    )
    page = list(found)[:limit]
    return {"conversations": [_head(one) for one in page], "next_before": page[-1].id if len(found) > limit else None}


@router.get("/conversations/{id}", response_model=TranscriptBody, responses=errors(404), summary="A conversation")
async def conversation(id: UUID, request: Request) -> Any:
    """A conversation of the caller's with its messages, oldest first."""
    kept = _service(request).conversations
    head = await kept.session_async(caller(), id)
    return {**_head(head), "messages": [_message(one) for one in await kept.messages_async(caller(), id)]}


@router.delete("/conversations/{id}", status_code=204, responses=errors(404), summary="Delete a conversation")
async def delete(id: UUID, request: Request) -> Response:
    """Delete a conversation with its messages; what it cost stays counted."""
    await _service(request).conversations.delete_async(caller(), id)
    return Response(status_code=204)


@router.post("/messages/{id}/feedback", status_code=204, responses=errors(404), summary="Mark an answer")
async def feedback(id: UUID, form: FeedbackForm, request: Request) -> Response:
    """Say what an answer was worth; a mark given before is replaced."""
    await _service(request).conversations.give_feedback_async(caller(), id, mark=form.mark, comment=form.comment)
    return Response(status_code=204)


def _head(session: Any) -> dict[str, Any]:
    names = ("id", "title", "message_count", "created_at", "updated_at")
    return {name: getattr(session, name) for name in names}


def _message(message: Any) -> dict[str, Any]:
    names = ("id", "role", "content", "citations", "model", "supported", "interrupted", "created_at")
    given = message.feedback
    return {
        **{name: getattr(message, name) for name in names},
        "feedback": given and {"mark": given.mark, "comment": given.comment},
    }


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
