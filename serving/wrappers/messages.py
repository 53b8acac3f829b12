"""Conversations as OpenAI's clients send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from database.errors import InvalidInputError

HISTORY_MESSAGES = 40
"""Messages before the last that are read; a model is shown fewer, and rewriting a follow-up needs the latest."""

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """
    What a client sent.

    :param question: The last message, which is the user's.
    :param history: What was said before, oldest first, as `{"role", "content"}`.
    """

    question: str
    history: tuple[dict[str, str], ...]


def read_messages(messages: Sequence[Any]) -> Conversation:
    """
    Read OpenAI's messages.

    System messages are accepted and passed over: how answers rest on the documents is not a client's to change. So are
    messages of tools.

    :raises InvalidInputError: If the last message is not a user's, or one holds anything but text.
    """
    if not messages:
        raise InvalidInputError("messages must hold the user's question, but is empty.")
    read = [_message(one, position) for position, one in enumerate(messages)]
    role, question = read[-1]
    if role != "user":
        raise InvalidInputError(f"The last of messages must be the user's question, but its role is {role!r}.")
    said = [
        {"role": role, "content": content} for role, content in read[:-1] if role in ("user", "assistant") and content
    ]
    return Conversation(question=question, history=tuple(said[-HISTORY_MESSAGES:]))


def _message(message: Any, position: int) -> tuple[str, str]:
    where = f"messages[{position}]"
    if not isinstance(message, Mapping):
        raise InvalidInputError(f"{where} must be an object with role and content.")
    role = message.get("role")
    if role not in ROLES:
        raise InvalidInputError(f"{where}.role must be one of {', '.join(ROLES)}, but is {role!r:.40}.")
    return role, _text(message.get("content"), where=where)


def _text(content: Any, *, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
        kinds = {part.get("type") for part in content}
        if kinds <= {"text"} and all(isinstance(part.get("text"), str) for part in content):
            return "\n".join(part["text"] for part in content)
    raise InvalidInputError(
        f"{where}.content must be text, or parts of type text.", hint="Images, sounds and files are not understood."
    )
