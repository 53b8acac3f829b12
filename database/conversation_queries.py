"""
What `database.conversations` does in a transaction that has taken the caller's tenant: plain functions of a session.

Whatever names a conversation or a message also names the caller, in the same statement; there is no way around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Select,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session, joinedload

from database.conversation_models import Base, ChatMessage, ChatSession, Feedback, Key, UsageLog, User
from database.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from database.accounts import Identity

TITLE_LENGTH = 80
"""Characters of a title that is made from a question."""

LONGEST_TITLE = 500

_MIDNIGHT: ColumnElement[datetime] = literal_column("date_trunc('day', now(), 'UTC')")


@dataclass(frozen=True, kw_only=True)
class TurnAnswer:
    """
    What is stored of an answer.

    :param text: Its text, with its marks.
    :param supported: Whether the documents answer the question.
    :param extractive: Whether it quotes them, no language model involved.
    :param citations: Each as `ask --json` prints it.
    :param model: The language model; `None` where there was none.
    :param timings_ms: Milliseconds by stage.
    :param interrupted: Whether whoever asked left before its end.
    """

    text: str
    supported: bool
    extractive: bool
    citations: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


@dataclass(frozen=True, kw_only=True)
class Usage:
    """
    What one question cost.

    :param kind: What was asked for: `ask`, `search` …
    :param model: The language model; `None` where there was none.
    :param tokens_in: Tokens that it read.
    :param tokens_out: Tokens that it wrote.
    :param tokens_estimated: Whether they are estimated, as the model's server did not say.
    :param supported: Whether there was an answer; `None` where none was asked for.
    :param interrupted: Whether whoever asked left before its end.
    :param milliseconds: How long it took.
    """

    kind: str = "ask"
    model: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_estimated: bool = False
    supported: bool | None = None
    interrupted: bool = False
    milliseconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """
    A question and its answer.

    :param message_id: Id of the answer.
    :param usage: What it cost; `None` logs nothing.
    :param create: Whether to begin the conversation where there is none.
    """

    question: str
    answer: TurnAnswer
    message_id: UUID
    usage: Usage | None = None
    create: bool = False


def storable(value: str, *, what: str) -> str:
    """
    A text that PostgreSQL can hold.

    :param what: What it is, for the message.
    :raises InvalidInputError: If it has a NUL character, or half of a surrogate pair.
    """
    if "\0" in value:
        raise InvalidInputError(f"{what} must be text, but has a NUL character.", hint="Leave it out.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{what} must be text, but has half of a surrogate pair.", hint="Send it as valid UTF-8."
        ) from None
    return value


def title_from(question: str) -> str:
    """The title of a conversation that begins with this question: one line, cut between words where it gets long."""
    line = " ".join(question.split())
    return line if len(line) <= TITLE_LENGTH else f"{line[:TITLE_LENGTH].rsplit(' ', 1)[0]} …"


def create_session(session: Session, identity: Identity, *, session_id: UUID | None, title: str | None) -> ChatSession:
    """`Conversations.create_session`."""
    session_id = session_id or uuid4()
    new = {"id": session_id, "user_id": identity.user_id, "title": _checked_title(title or "")}
    session.execute(upsert(ChatSession).values(new).on_conflict_do_nothing())
    return find_session(session, identity, session_id)


def find_session(session: Session, identity: Identity, session_id: UUID) -> ChatSession:
    """`Conversations.session`."""
    found = session.scalars(_own_sessions(identity).where(ChatSession.id == session_id)).one_or_none()
    if found is None:
        raise _no_session(session_id)
    return found


def sessions(
    session: Session, identity: Identity, *, limit: int, before: UUID | None, search: str | None
) -> Sequence[ChatSession]:
    """`Conversations.sessions`."""
    place = tuple_(ChatSession.updated_at, ChatSession.id)
    query = _own_sessions(identity).order_by(ChatSession.updated_at.desc(), ChatSession.id.desc()).limit(limit)
    if before is not None:
        last = find_session(session, identity, before)
        query = query.where(place < (last.updated_at, last.id))
    if search:
        words = storable(search, what="What is searched for")
        within = select(ChatMessage.session_id).where(
            ChatMessage.session_id == ChatSession.id, ChatMessage.content.icontains(words, autoescape=True)
        )
        query = query.where(or_(ChatSession.title.icontains(words, autoescape=True), within.exists()))
    return session.scalars(query).all()


def rename(session: Session, identity: Identity, session_id: UUID, *, title: str) -> ChatSession:
    """`Conversations.rename`."""
    found = find_session(session, identity, session_id)
    found.title = _checked_title(title)
    return found


def delete_session(session: Session, identity: Identity, session_id: UUID) -> None:
    """`Conversations.delete`."""
    own = delete(ChatSession).where(ChatSession.user_id == identity.user_id, ChatSession.id == session_id)
    if session.execute(own.returning(ChatSession.id)).one_or_none() is None:
        raise _no_session(session_id)


def messages(session: Session, identity: Identity, session_id: UUID, *, last: int | None) -> list[ChatMessage]:
    """`Conversations.messages`."""
    find_session(session, identity, session_id)
    latest = (
        select(ChatMessage)
        .where(ChatMessage.session_id == session_id)
        .order_by(ChatMessage.position.desc())
        .limit(last)
        .options(joinedload(ChatMessage.feedback))
    )
    return list(reversed(session.scalars(latest).all()))


def message(session: Session, identity: Identity, message_id: UUID) -> ChatMessage:
    """`Conversations.message`."""
    own = (
        select(ChatMessage)
        .join(ChatSession, ChatSession.id == ChatMessage.session_id)
        .where(ChatMessage.id == message_id, ChatSession.user_id == identity.user_id)
        .options(joinedload(ChatMessage.feedback))
    )
    found = session.scalars(own).one_or_none()
    if found is None:
        raise NotFoundError(f"A message {message_id} was expected, but there is none.")
    return found


def add_turn(session: Session, identity: Identity, session_id: UUID, turn: Turn) -> ChatMessage:
    """`Conversations.add_turn`."""
    question = storable(turn.question, what="A question")
    if turn.create:
        create_session(session, identity, session_id=session_id, title=title_from(question))
    count = _next_place(session, identity, session_id, turn)
    if count is None:  # stored before the connection was cut, or not the caller's
        find_session(session, identity, session_id)
        return message(session, identity, turn.message_id)
    answer = ChatMessage(
        id=turn.message_id,
        session_id=session_id,
        position=count,
        role="assistant",
        content=_held(turn.answer.text),
        **{name: value for name, value in asdict(turn.answer).items() if name != "text"},
    )
    session.add_all([ChatMessage(session_id=session_id, position=count - 1, role="user", content=question), answer])
    if turn.usage is not None:
        log_usage(session, identity, turn.usage)
    session.flush()
    return answer


def give_feedback(session: Session, identity: Identity, message_id: UUID, *, mark: int, comment: str | None) -> None:
    """`Conversations.give_feedback`."""
    if mark not in (1, -1):
        raise InvalidInputError(f"A mark must be 1 or -1, but is {mark!r}.")
    if message(session, identity, message_id).role != "assistant":
        raise InvalidInputError("A mark must be given to an answer, but this message is a question.")
    given = {"mark": mark, "comment": None if comment is None else storable(comment, what="A comment")}
    insertion = upsert(Feedback).values(message_id=message_id, **given)
    session.execute(
        insertion.on_conflict_do_update(
            index_elements=[Feedback.tenant, Feedback.message_id], set_={**given, "given_at": func.now()}
        )
    )


def log_usage(session: Session, identity: Identity, usage: Usage) -> None:
    """`Conversations.log_usage`."""
    session.execute(insert(UsageLog).values(user_id=identity.user_id, key_id=identity.key_id, **asdict(usage)))


def tokens_today(session: Session, identity: Identity) -> int:
    """`Conversations.tokens_today`."""
    spent = func.coalesce(func.sum(UsageLog.tokens_in + UsageLog.tokens_out), 0)
    whose = UsageLog.key_id == identity.key_id if identity.key_id else UsageLog.user_id == identity.user_id
    return int(session.scalars(select(spent).where(whose, UsageLog.at >= _MIDNIGHT)).one())


def export_user(session: Session, identity: Identity) -> dict[str, Any]:
    """`Conversations.export_user`."""
    user = session.scalars(select(User).where(User.id == identity.user_id)).one_or_none()
    if user is None:
        raise NotFoundError(f"A user {identity.user_name!r} was expected, but there is none.")
    by_session: dict[UUID, list[dict[str, Any]]] = {}
    for one in session.scalars(_own_messages(identity)).unique():
        by_session.setdefault(one.session_id, []).append(_exported_message(one))
    found = session.scalars(_own_sessions(identity).order_by(ChatSession.created_at, ChatSession.id))
    keys = session.scalars(select(Key).where(Key.user_id == user.id).order_by(Key.created_at, Key.id))
    usage = session.scalars(select(UsageLog).where(UsageLog.user_id == user.id).order_by(UsageLog.at, UsageLog.id))
    return {
        "user": {**_exported(user, without=("password_hash",)), "has_password": user.password_hash is not None},
        "conversations": [
            {**_exported(one, without=("user_id",)), "messages": by_session.get(one.id, [])} for one in found
        ],
        "keys": [_exported(key, without=("secret_hash", "user_id")) for key in keys],
        "usage": [_exported(row, without=("user_id",)) for row in usage],
    }


def delete_user_data(session: Session, identity: Identity) -> dict[str, int]:
    """`Conversations.delete_user_data`."""
    own = select(ChatSession.id).where(ChatSession.user_id == identity.user_id)
    their_messages = select(ChatMessage.id).where(ChatMessage.session_id.in_(own))
    steps = {
        "feedback": delete(Feedback).where(Feedback.message_id.in_(their_messages)),
        "messages": delete(ChatMessage).where(ChatMessage.session_id.in_(own)),
        "conversations": delete(ChatSession).where(ChatSession.user_id == identity.user_id),
        "usage": delete(UsageLog).where(UsageLog.user_id == identity.user_id),
    }
    counts = {}
    for name, step in steps.items():
        done = session.execute(step, execution_options={"synchronize_session": False})
        counts[name] = cast("CursorResult[Any]", done).rowcount
    return counts


def _own_sessions(identity: Identity) -> Select[ChatSession]:
    return select(ChatSession).where(ChatSession.user_id == identity.user_id)


def _own_messages(identity: Identity) -> Select[ChatMessage]:
    return (
        select(ChatMessage)
        .join(ChatSession, ChatSession.id == ChatMessage.session_id)
        .where(ChatSession.user_id == identity.user_id)
        .order_by(ChatMessage.session_id, ChatMessage.position)
        .options(joinedload(ChatMessage.feedback))
    )


def _next_place(session: Session, identity: Identity, session_id: UUID, turn: Turn) -> int | None:
    """
    Count two more messages, and keep others from counting until the transaction ends.

    :returns: The position of the second; `None` if the turn is there already, or the conversation is not the caller's.
    """
    counted = (
        update(ChatSession)
        .where(
            ChatSession.user_id == identity.user_id,
            ChatSession.id == session_id,
            ~select(ChatMessage.id).where(ChatMessage.id == turn.message_id).exists(),
        )
        .values(
            message_count=ChatSession.message_count + 2,
            updated_at=func.now(),
            title=func.coalesce(func.nullif(ChatSession.title, ""), title_from(turn.question)),
        )
        .returning(ChatSession.message_count)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(counted).one_or_none()


def _no_session(session_id: UUID) -> NotFoundError:
    return NotFoundError(f"A conversation {session_id} was expected, but there is none.")


def _checked_title(title: str) -> str:
    if len(title) > LONGEST_TITLE:
        raise InvalidInputError(f"A title must have at most {LONGEST_TITLE} characters, but has {len(title)}.")
    return storable(title, what="A title")


def _held(answer: str) -> str:
    """An answer as PostgreSQL can hold it; nobody is to lose one because a model wrote half a character."""
    return answer.replace("\0", "\ufffd").encode(errors="replace").decode()


def _exported_message(found: ChatMessage) -> dict[str, Any]:
    given = _exported(found.feedback, without=("message_id",)) if found.feedback else None
    return {**_exported(found, without=("session_id",)), "feedback": given}


def _exported(row: Base, *, without: Iterable[str] = ()) -> dict[str, Any]:
    """A row as JSON has it."""
    names = [column.key for column in type(row).__table__.columns if column.key not in ("tenant", *without)]
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
