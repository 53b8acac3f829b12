"""
Cuts a text into spans that fit a budget of tokens, at the best places there are.

Everything here is linear in the length of the text: texts are untrusted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.converted_text import Kind
    from components.token_counter import TokenStarts

Span = tuple[int, int]

CHARACTERS_PER_TOKEN = 10
"""A longer run per token is no language: a word of a thousand letters may count as one unknown token."""

_PARAGRAPH = re.compile(r"\n\n+")
_LIST_ITEM = re.compile(r"\n(?=[ \t]{0,20}(?:[-*+•|]|\d{1,9}[.)])[ \t])")
_LINE = re.compile(r"\n")
_WORD = re.compile(r"(?<=\S)\s+")
_FIELD = re.compile(r"(?<=;) ")
# Each alternative begins with a fixed look-behind, so that a run of dots or of spaces is walked through only once.
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|(?<=[.!?…][\"'”’»)\]])\s+|(?<=[。！？])")  # noqa: RUF001
_CODE_BLOCK = re.compile(r"\n\n+(?=\S)")

_BREAKS: dict[Kind, tuple[re.Pattern[str], ...]] = {
    "prose": (_PARAGRAPH, _LIST_ITEM, _SENTENCE, _LINE, _WORD),
    "rows": (_LINE, _FIELD, _SENTENCE, _WORD),
    "code": (_CODE_BLOCK, _PARAGRAPH, _LINE, _WORD),
}


@dataclass(frozen=True)
class Budget:
    """
    What one span may hold.

    :param text: The text that spans point into.
    :param starts: Its tokens.
    :param tokens: Most tokens of a span, at least 1.
    """

    text: str
    starts: TokenStarts
    tokens: int

    def fits(self, start: int, end: int) -> bool:
        """Whether a span is small enough."""
        return self.starts.count(start, end) <= self.tokens and end - start <= self.tokens * CHARACTERS_PER_TOKEN

    def share(self, start: int, end: int) -> float:
        """How much of the budget a span takes; at most 1 if it fits."""
        return max(
            self.starts.count(start, end) / self.tokens, (end - start) / (self.tokens * CHARACTERS_PER_TOKEN), 1e-9
        )


def split_span(start: int, end: int, *, kind: Kind, budget: Budget) -> list[Span]:
    """
    Cut a span into pieces of about equal size that fit, each without white space around it.

    :param start: Where it begins.
    :param end: Where it ends.
    :param kind: What its best places to cut are.
    :param budget: What a piece may hold.
    :returns: Pieces in order, which leave out nothing but white space.
    """
    pieces = _pieces(start, end, breaks=_BREAKS[kind], budget=budget)
    trimmed = (trim(budget.text, *span) for span in _packed(pieces, start, end, budget=budget))
    return [span for span in trimmed if span[0] < span[1]]


def trim(text: str, start: int, end: int) -> Span:
    """A span without the white space around it; an empty one if it has nothing else."""
    part = text[start:end]
    kept = part.strip()
    begin = start + len(part) - len(part.lstrip()) if kept else start
    return begin, begin + len(kept)


def _pieces(start: int, end: int, *, breaks: tuple[re.Pattern[str], ...], budget: Budget) -> Iterator[Span]:
    """Pieces that fit, as large as the best places to cut allow."""
    if budget.fits(start, end):
        yield start, end
    elif not breaks:
        yield from _hard_pieces(start, end, budget=budget)
    else:
        position = start
        for found in breaks[0].finditer(budget.text, start, end):
            if position < found.end() < end:
                yield from _pieces(position, found.end(), breaks=breaks[1:], budget=budget)
                position = found.end()
        yield from _pieces(position, end, breaks=breaks[1:], budget=budget)


def _hard_pieces(start: int, end: int, *, budget: Budget) -> Iterator[Span]:
    """Cut where nothing invites to: between tokens, or after so many characters."""
    while start < end:
        furthest = start + budget.tokens * CHARACTERS_PER_TOKEN
        following = budget.starts.position_after(start, tokens=budget.tokens)
        stop = min(end, furthest, following if following and following > start else end)
        yield start, stop
        start = stop


def _packed(pieces: Iterator[Span], start: int, end: int, *, budget: Budget) -> Iterator[Span]:
    """Join neighbours towards equal sizes, so that no text ends in a scrap."""
    total = budget.share(start, end)
    target = total / max(1, math.ceil(total))
    begin, stop, taken = -1, -1, 0.0
    for piece in pieces:
        share = budget.share(*piece)
        # Characters and tokens may take turns in being the scarcer: the sum is an upper bound.
        if begin >= 0 and taken + share <= 1 and taken + share - target <= max(0.0, target - taken):
            stop, taken = piece[1], taken + share
            continue
        if begin >= 0:
            yield begin, stop
        (begin, stop), taken = piece, share
    if begin >= 0:
        yield begin, stop


def fitted(spans: list[Span], *, budget: Budget, kind: Kind, fits: Callable[[Span], bool]) -> list[Span]:
    """
    Cut again what a closer look finds too large.

    Where a span is cut within a word, or for tokenizers that see the words around a token, counts are estimates.

    :param spans: From `split_span`.
    :param budget: As there.
    :param kind: As there.
    :param fits: The closer look.
    """
    result: list[Span] = []
    waiting = [(span, budget.tokens) for span in reversed(spans)]
    while waiting:
        span, tokens = waiting.pop()
        if fits(span) or span[1] - span[0] <= 1:
            result.append(span)
            continue
        fewer = max(1, min(tokens * 3 // 4, tokens - 1))
        smaller = Budget(budget.text, budget.starts, fewer)
        pieces = split_span(*span, kind=kind, budget=smaller)
        if len(pieces) == 1 and fewer == 1:
            middle = (span[0] + span[1]) // 2
            pieces = [(span[0], middle), (middle, span[1])]
        waiting += [(piece, fewer) for piece in reversed(pieces)]
    return result
