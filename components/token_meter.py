"""
What a language model read and wrote while one question was answered, all its calls together.

    with TokenMeter() as meter:
        answer = assistant.ask(question)
    print(meter.tokens_in, meter.tokens_out)
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from haystack.dataclasses import ChatMessage

from components.prompt_builder import count_tokens

_meter: contextvars.ContextVar[TokenMeter | None] = contextvars.ContextVar("token_meter", default=None)


@dataclass
class ModelCall:
    """
    One call of a language model; estimated until its server says more.

    :param tokens_in: Tokens that it read.
    :param tokens_out: Tokens that it wrote.
    :param estimated: Whether they are estimated.
    """

    tokens_in: int
    tokens_out: int = 0
    estimated: bool = True

    def wrote(self, text: str) -> None:
        """Count a part of what it writes."""
        self.tokens_out += count_tokens(text)

    def ended(self, reply: ChatMessage) -> None:
        """Take the server's count, where there is one."""
        usage = reply.meta.get("usage")
        read, written = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        if read is None or written is None:
            self.tokens_out = count_tokens(reply.text or "")
            return
        self.tokens_in, self.tokens_out, self.estimated = read, written, False


class TokenMeter:
    """Adds up the calls of language models that are made inside it, in other threads and tasks too."""

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []

    def __enter__(self) -> TokenMeter:
        self._token = _meter.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _meter.reset(self._token)

    @property
    def tokens_in(self) -> int:
        """Tokens that were read."""
        return sum(call.tokens_in for call in self.calls)

    @property
    def tokens_out(self) -> int:
        """Tokens that were written."""
        return sum(call.tokens_out for call in self.calls)

    @property
    def estimated(self) -> bool:
        """Whether a part of it is estimated: the server did not say, or was left before it did."""
        return any(call.estimated for call in self.calls)


@contextmanager
def metered_call(messages: Sequence[ChatMessage] | str) -> Iterator[ModelCall]:
    """
    Have a call counted by the meter that it is made in, if there is one.

    A call that fails before anything was written counts nothing; one that is left alone counts what it read.

    :param messages: What the model is given.
    """
    texts = [messages] if isinstance(messages, str) else [message.text or "" for message in messages]
    call = ModelCall(tokens_in=sum(map(count_tokens, texts)))
    meter = _meter.get() or TokenMeter()
    meter.calls.append(call)
    try:
        yield call
    except Exception:
        if not call.tokens_out:
            meter.calls.remove(call)
        raise


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else None
