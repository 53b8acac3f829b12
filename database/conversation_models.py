"""
Users, conversations and usage as SQLAlchemy maps them. The tables are made by the schema's version 0005, in SQL.

Every row belongs to a tenant, which is part of its key and of every reference; the policies of the tables show a
transaction the rows of its tenant alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

_TENANT = text("synapse_tenant()")
_NEW_ID = text("gen_random_uuid()")


class Base(DeclarativeBase):
    """The tables of users and conversations."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        UUID: Uuid,
        float: Double,
    }

    tenant: Mapped[str] = mapped_column(primary_key=True, server_default=_TENANT, sort_order=-2)


class _Numbered:
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=_NEW_ID, sort_order=-1)


def _belongs_to(table: str, column: str) -> ForeignKeyConstraint:
    """A reference within the tenant; what refers goes with what it refers to."""
    return ForeignKeyConstraint(["tenant", column], [f"{table}.tenant", f"{table}.id"], ondelete="CASCADE")


class User(_Numbered, Base):
    """Somebody who asks: at the terminal, on the page, or with a key. Without a password there is no login."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant", "name"), CheckConstraint("length(name) BETWEEN 1 AND 200"))

    name: Mapped[str]
    password_hash: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Key(_Numbered, Base):
    """An API key: what can be known of it without having it."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("tenant", "secret_hash"),
        _belongs_to("users", "user_id"),
        CheckConstraint("length(secret_hash) = 32"),
        CheckConstraint("daily_tokens >= 0"),
        CheckConstraint("requests_per_minute >= 1"),
        Index("api_keys_user_id_idx", "tenant", "user_id"),
    )

    user_id: Mapped[UUID]
    label: Mapped[str]
    secret_hash: Mapped[bytes] = mapped_column(BYTEA)
    prefix: Mapped[str]
    daily_tokens: Mapped[int | None] = mapped_column(BigInteger)
    requests_per_minute: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ChatSession(_Numbered, Base):
    """
    A conversation of one user.

    `message_count` also numbers the messages; `updated_at` is when the last one was stored.
    """

    __tablename__ = "chat_sessions"
    __table_args__ = (
        _belongs_to("users", "user_id"),
        Index("chat_sessions_user_id_idx", "tenant", "user_id", "updated_at", "id"),
    )

    user_id: Mapped[UUID]
    title: Mapped[str]
    message_count: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ChatMessage(_Numbered, Base):
    """
    A question (`role` user) or an answer (`role` assistant), which follows it.

    Of an answer: `citations` as `ask --json` prints them; `model`, the language model, `None` where there was none;
    `timings_ms` by stage; `interrupted`, whether whoever asked left before its end.
    """

    __tablename__ = "chat_messages"
    __table_args__ = (
        UniqueConstraint("tenant", "session_id", "position"),
        _belongs_to("chat_sessions", "session_id"),
        CheckConstraint("role IN ('user', 'assistant')"),
    )

    session_id: Mapped[UUID]
    position: Mapped[int]
    role: Mapped[str]
    content: Mapped[str]
    citations: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    model: Mapped[str | None]
    timings_ms: Mapped[dict[str, float]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    supported: Mapped[bool | None]
    extractive: Mapped[bool | None]
    interrupted: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    feedback: Mapped[Feedback | None] = relationship(lazy="raise", viewonly=True)


class Feedback(Base):
    """What the user thinks of an answer: `mark` is 1 or -1."""

    __tablename__ = "feedback"
    __table_args__ = (
        _belongs_to("chat_messages", "message_id"),
        CheckConstraint("mark IN (1, -1)"),
        Index("feedback_given_at_idx", "tenant", "given_at"),
    )

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    mark: Mapped[int] = mapped_column(SmallInteger)
    comment: Mapped[str | None]
    given_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UsageLog(_Numbered, Base):
    """What one question cost, and whether it got an answer; nothing of what was asked."""

    __tablename__ = "usage_logs"
    __table_args__ = (
        _belongs_to("users", "user_id"),
        _belongs_to("api_keys", "key_id"),
        CheckConstraint("tokens_in >= 0"),
        CheckConstraint("tokens_out >= 0"),
        Index("usage_logs_at_idx", "tenant", "at"),
        Index("usage_logs_user_id_idx", "tenant", "user_id", "at"),
        Index("usage_logs_key_id_idx", "tenant", "key_id", "at"),
    )

    at: Mapped[datetime] = mapped_column(server_default=func.now())
    user_id: Mapped[UUID]
    key_id: Mapped[UUID | None]
    kind: Mapped[str]
    model: Mapped[str | None]
    tokens_in: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    tokens_out: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    tokens_estimated: Mapped[bool] = mapped_column(server_default=text("false"))
    supported: Mapped[bool | None]
    interrupted: Mapped[bool] = mapped_column(server_default=text("false"))
    milliseconds: Mapped[float | None]
