"""Follow-up questions made to stand alone: "and on Supabase?" says nothing to a search."""

from __future__ import annotations

import re
from typing import Any

from haystack import component, default_from_dict, default_to_dict
from haystack.core.serialization import component_from_dict, component_to_dict, import_class_by_name
from haystack.dataclasses import ChatMessage, ChatRole

from components.sentences import content_words, plain_words

_OPENING = re.compile(
    r"^\s*(?:(?:and|but|or|so|also|then|und|aber|oder)\b[\s,]*)?"
    r"(?:(?:what|how) about\b|what if\b|was ist mit\b|wie ist es (?:mit|bei)\b)?[\s,]*",
    re.IGNORECASE,
)
_PRONOUNS = """
    it its they them their this that these those he she his her there one ones same former latter instead
    er sie es ihn ihm ihr deren dessen dies diese dieser dieses dort damit dafür dazu
"""
_REFERENCES = frozenset(_PRONOUNS.split())
_PREPOSITIONS = "on in with for under at from by without using during auf in mit für unter bei ohne"
_PLACE = re.compile(rf"\b({'|'.join(_PREPOSITIONS.split())})\s+[^,;?]+?(?=\s*[?.!]*$)", re.IGNORECASE)
_FEW_WORDS = 2

_INSTRUCTIONS = (
    "Rewrite the user's last question so that it can be understood without the conversation. Keep its language and its "
    "meaning; do not answer it. Reply with the question alone."
)
_MESSAGES_SHOWN = 6


@component
class QuestionRewriter:
    """
    Adds to a follow-up question what it leaves out, from the questions before it.

    Without a language model, a question that begins with "and …" or "what about …", that refers ("does it …"), or that has
    hardly a word of its own gets the previous question's words; "on Supabase?" takes the place of "on Docker".

    :param chat_generator: A Haystack chat generator that rewrites instead; `None` means the rules.
    """

    def __init__(self, chat_generator: Any | None = None) -> None:
        self.chat_generator = chat_generator

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        generator = component_to_dict(self.chat_generator, "chat_generator") if self.chat_generator else None
        return default_to_dict(self, chat_generator=generator)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QuestionRewriter:
        """Deserialize the component from a dictionary."""
        parameters = dict(data["init_parameters"])
        if isinstance(parameters.get("chat_generator"), dict):
            generator = import_class_by_name(parameters["chat_generator"]["type"])
            parameters["chat_generator"] = component_from_dict(
                generator, parameters["chat_generator"], "chat_generator"
            )
        found: QuestionRewriter = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found

    @component.output_types(question=str)
    def run(self, question: str, history: list[ChatMessage] | None = None) -> dict[str, str]:
        """
        Rewrite.

        :param question: The question as it was asked.
        :param history: The conversation before it, oldest first.
        :returns: `question`, which stands alone.
        """
        if not history or self.chat_generator is None:
            return {"question": standalone(question, history or [])}
        return {"question": _reply(self.chat_generator.run(_messages(question, history)), question)}

    @component.output_types(question=str)
    async def run_async(self, question: str, history: list[ChatMessage] | None = None) -> dict[str, str]:
        """The same, without blocking the event loop."""
        if not history or self.chat_generator is None:
            return {"question": standalone(question, history or [])}
        return {"question": _reply(await self.chat_generator.run_async(_messages(question, history)), question)}


def standalone(question: str, history: list[ChatMessage]) -> str:
    """The question, with what it takes from the questions before it, by the rules."""
    full = ""
    asked = [message.text or "" for message in history if message.is_from(ChatRole.USER)]
    for following in [*asked, question]:
        full = _joined(full, following) if full and _follows_up(following) else following.strip()
    return full


def _follows_up(question: str) -> bool:
    opened = _OPENING.match(question)
    if opened and opened[0].strip():
        return True
    words = plain_words(question)
    return len(set(content_words(question))) < _FEW_WORDS or bool(_REFERENCES & set(words))


def _joined(previous: str, question: str) -> str:
    rest = _OPENING.sub("", question, count=1).strip()
    if (new := _PLACE.fullmatch(rest.rstrip("?.! "))) and (old := _last(previous, new[1]) or _last(previous)):
        return f"{previous[: old.start()]}{rest.rstrip('?.! ')}{previous[old.end() :]}"
    known = set(content_words(rest))
    carried = [word for word in previous.rstrip("?.! ").split() if set(content_words(word)) - known]
    return f"{' '.join(carried)}: {rest}" if carried else rest


def _last(text: str, preposition: str = "") -> re.Match[str] | None:
    """The last place that a question names, with that preposition or, where none is given, with any."""
    wanted = re.escape(preposition) or "|".join(_PREPOSITIONS.split())
    found = [
        match
        for place in re.finditer(rf"\b(?:{wanted})\b", text, re.IGNORECASE)
        if (match := _PLACE.match(text, place.start()))
    ]
    return found[-1] if found else None


def _messages(question: str, history: list[ChatMessage]) -> list[ChatMessage]:
    shown = [message for message in history if message.text][-_MESSAGES_SHOWN:]
    return [ChatMessage.from_system(_INSTRUCTIONS), *shown, ChatMessage.from_user(question)]


def _reply(result: dict[str, Any], question: str) -> str:
    lines = (result["replies"][0].text or "").strip().splitlines()
    return lines[0].strip() if lines and lines[0].strip() else question
