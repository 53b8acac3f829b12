"""How often someone may do something: token buckets, one per name, and no more of them than fit."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_BUCKETS = 10_000
"""Names that are remembered; the one that was quiet for longest is forgotten first."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """
    How full a bucket is.

    :param allowed: Whether there was a token left.
    :param remaining: Whole tokens that are left.
    :param wait: Whole seconds until the next token; 0 where there is one.
    """

    allowed: bool
    remaining: int
    wait: int


class Buckets:
    """
    A bucket per name, full at first, that fills up again evenly. In this process' memory; safe within one event loop.

    :param seconds: How long an empty bucket takes to fill.
    :param clock: Seconds, monotonic.
    """

    def __init__(self, *, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, name: str, *, size: int) -> Level:
        """
        Take a token.

        :param name: Whose bucket.
        :param size: How many tokens it holds, at least 1.
        """
        tokens = self._tokens(name, size)
        allowed = tokens >= 1
        self._keep(name, tokens - 1 if allowed else tokens)
        return self._level(tokens - 1 if allowed else tokens, size, allowed=allowed)

    def look(self, name: str, *, size: int) -> Level:
        """How full a bucket is, without taking anything."""
        tokens = self._tokens(name, size)
        return self._level(tokens, size, allowed=tokens >= 1)

    def _tokens(self, name: str, size: int) -> float:
        tokens, when = self._kept.get(name, (float(size), self._clock()))
        return min(size, tokens + (self._clock() - when) * size / self.seconds)

    def _keep(self, name: str, tokens: float) -> None:
        self._kept[name] = (tokens, self._clock())
        self._kept.move_to_end(name)
        if len(self._kept) > MOST_BUCKETS:
            self._kept.popitem(last=False)

    def _level(self, tokens: float, size: int, *, allowed: bool) -> Level:
        wait = 0 if tokens >= 1 else math.ceil((1 - tokens) * self.seconds / size)
        return Level(allowed=allowed, remaining=int(tokens), wait=wait)
