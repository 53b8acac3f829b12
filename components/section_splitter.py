"""Splits converted sources into chunks that a model reads whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from haystack import Document, component

from components.converted_text import Kind
from components.model_files import DEFAULT_MODEL
from components.text_spans import Budget, Span, fitted, split_span, trim
from components.token_counter import TokenCounter, TokenStarts, counter_of
from database.errors import InvalidInputError

_TINY = {"prose": 1 / 8, "rows": 1 / 8, "code": 1 / 4}
"""Share of the limit below which neighbouring sections are joined."""

_TITLE_SHARE = 1 / 5
"""Share of the limit that a title, and a heading, may take from the content."""

_MARKS = "#=-* \n"
"""What Markdown puts around a heading."""


@dataclass
class _Block:
    """Sections that are split together."""

    start: int
    end: int
    kind: Kind
    heading: list[str]
    page: int | None
    meta: dict[str, Any] | None = None
    is_tiny: bool = False
    is_bare: bool = False


@dataclass(frozen=True)
class _Prefix:
    """What is embedded before a chunk's content, and how many tokens that takes with the model's special ones."""

    meta: dict[str, Any]
    text: str
    tokens: int


@component
class SectionSplitter:
    """
    Splits converted sources at their headings, pages and records, and what is too large at paragraphs and sentences.

    A chunk is a verbatim slice of its source: `content == text[start:end]` with `span` `[start, end]`. Slices are in
    order, do not overlap, and leave out nothing but white space. They do not overlap because each carries its title and
    heading, because repeated text would be embedded twice and could fill an answer with the same sentence twice, and
    because a quote then stands in one chunk only. They do not run over the end of a page, so that a page cited is the
    right one. Small neighbours below one heading are joined.

    :param model: Whose tokens are counted; title, heading and content together never exceed its limit.
    :param max_tokens: A lower limit; `None` means the model's.
    :param remote: Whether a server has the model; where its tokenizer is not on this machine, tokens are guessed.
    """

    def __init__(self, *, model: str = DEFAULT_MODEL, max_tokens: int | None = None, remote: bool = False) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.remote = remote
        self._counter: TokenCounter | None = None

    def warm_up(self) -> None:
        """Load the model's tokenizer, once."""
        if self._counter is None:
            self._counter = counter_of(self.model, remote=self.remote)

    @component.output_types(documents=list[Document], sources=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Split.

        :param documents: Cleaned sources, with their sections.
        :returns: `documents`, the chunks; `sources`, the sources without their sections.
        :raises InvalidInputError: If one has no text.
        """
        self.warm_up()
        sources = [replace(document, meta=_without(document.meta, "sections")) for document in documents]
        return {"documents": [chunk for document in documents for chunk in self._chunks(document)], "sources": sources}

    def _chunks(self, document: Document) -> list[Document]:
        assert self._counter is not None
        text = document.content or ""
        starts = self._counter.starts(text)
        title = str(document.meta.get("title", ""))
        blocks = _joined(list(_blocks(document)), text=text, title=title, starts=starts, limit=self._limit)
        base = _without(document.meta, "sections", "file", "mime_type")
        chunks: list[Document] = []
        prefixes: dict[tuple[str, ...], _Prefix] = {}
        for block in blocks:
            record = block.meta or {}
            meta = {**record, **base, **_own(record)}
            key = (str(meta.get("title", "")), *block.heading)
            if key not in prefixes:
                prefixes[key] = self._prefix(*key)
            prefix = prefixes[key]
            meta |= prefix.meta | ({"page": block.page} if block.page is not None else {})
            for start, end in self._spans(block, text, starts, prefix=prefix):
                own = {**meta, "span": [start, end], "position": len(chunks)}
                chunks.append(Document(content=text[start:end], meta=own))
        if not chunks:
            raise InvalidInputError("it has no text")
        return chunks

    @property
    def _limit(self) -> int:
        assert self._counter is not None
        return min(self.max_tokens or self._counter.limit, self._counter.limit)

    def _prefix(self, title: str, *heading: str) -> _Prefix:
        """Title and heading, as they stand before a chunk's content where it is embedded."""
        assert self._counter is not None
        share = max(1, int(self._limit * _TITLE_SHARE))
        meta = {"title": self._counter.shortened(title, tokens=share)}
        if joined := _shortened_heading(heading, counter=self._counter, tokens=share):
            meta["heading"] = joined
        text = "\n".join([*meta.values(), ""])
        return _Prefix(meta=meta, text=text, tokens=self._counter.counts([text])[0])

    def _spans(self, block: _Block, text: str, starts: TokenStarts, *, prefix: _Prefix) -> list[Span]:
        assert self._counter is not None
        counter, limit = self._counter, self._limit
        budget = Budget(text, starts, max(1, limit - prefix.tokens))
        spans = split_span(block.start, block.end, kind=block.kind, budget=budget)

        def fits(span: Span) -> bool:
            return counter.counts([prefix.text + text[slice(*span)]])[0] <= limit

        doubtful = spans if not counter.counts_words else [span for span in spans if _cuts_word(text, span)]
        counts = counter.counts([prefix.text + text[start:end] for start, end in doubtful])
        if all(count <= limit for count in counts):
            return spans
        return fitted(spans, budget=budget, kind=block.kind, fits=fits)


def _cuts_word(text: str, span: Span) -> bool:
    start, end = span
    return not ((start == 0 or text[start - 1].isspace()) and (end >= len(text) or text[end].isspace()))


def _own(meta: dict[str, Any]) -> dict[str, Any]:
    """A record's own title and language are its chunks' title and language."""
    return {key: meta[key] for key in ("title", "language") if key in meta}


def _without(meta: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if key not in keys}


def _blocks(document: Document) -> Iterator[_Block]:
    for section in document.meta["sections"]:
        yield _Block(
            start=section["start"],
            end=section["end"],
            kind=section["kind"],
            heading=section.get("heading", []),
            page=section.get("page"),
            meta=section.get("meta"),
        )


def _joined(blocks: list[_Block], *, text: str, title: str, starts: TokenStarts, limit: int) -> list[_Block]:
    """Join what belongs together: a bare heading and what follows it, one heading's parts, tiny neighbours."""
    joined: list[_Block] = []
    for block in blocks:
        block.is_tiny = starts.count(block.start, block.end) <= limit * _TINY[block.kind]
        block.is_bare = _is_bare(block, text, title=title)
        heading = _common_heading(joined[-1], block, starts=starts, limit=limit) if joined else None
        if heading is None:
            joined.append(block)
            continue
        last = joined[-1]
        last.end, last.heading = block.end, heading
        last.is_tiny, last.is_bare = last.is_tiny and block.is_tiny, last.is_bare and block.is_bare
    return joined


def _common_heading(last: _Block, block: _Block, *, starts: TokenStarts, limit: int) -> list[str] | None:
    """The heading of two blocks as one; `None` if they stay apart."""
    if last.kind != block.kind or last.page != block.page or last.meta is not None or block.meta is not None:
        return None
    if last.heading == block.heading:
        return block.heading
    if block.kind == "rows":
        return None
    if last.is_bare and block.heading[: len(last.heading)] == last.heading:
        return block.heading
    pairs = zip(last.heading, block.heading, strict=False)
    common = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    has_parent = len(common) >= min(len(last.heading), len(block.heading)) - 1
    is_small = starts.count(last.start, block.end) <= limit // 2
    if last.is_tiny and block.is_tiny and has_parent and is_small:
        return common
    return None


def _is_bare(block: _Block, text: str, *, title: str) -> bool:
    """Whether a block is nothing but its heading, or the title."""
    start, end = trim(text, block.start, block.end)
    name = block.heading[-1] if block.heading else title
    return end - start < 1000 and text[start:end].strip(_MARKS) == name.strip(_MARKS)


def _shortened_heading(heading: Sequence[str], *, counter: TokenCounter, tokens: int) -> str:
    """Headings as one line; of a long one the innermost, which say most."""
    parts = [part for part in heading if part]
    for first in range(len(parts)):
        text = " > ".join(["…"] * (first > 0) + parts[first:])
        if len(counter.starts(text[: tokens * 20])) <= tokens and len(text) <= tokens * 20:
            return text
    return counter.shortened(parts[-1], tokens=tokens) if parts else ""
