"""Answers without a language model: the best sentences of the best passages, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from haystack import Document, component, default_to_dict
from haystack.utils import Secret

from components.answers import Answer, cite, not_in_documents
from components.embedding_precision import Precision
from components.model_files import DEFAULT_MODEL
from components.sentences import content_words, sentence_spans
from components.untrusted_text import as_plain_text

LONGEST_SENTENCE = 500
"""Characters; what is longer is a table or code, and is cut at its lines."""

SHORTEST_SENTENCE = 3
"""Words; what is shorter says nothing on its own."""

WORDS_WEIGHT = 0.3
"""What a sentence with all of the question's words gains over one with none, in cosine similarity."""

RANK_WEIGHT = 0.02
"""What a passage loses to the one before it, in cosine similarity."""

CLOSE_TO_BEST = 0.12
"""Sentences that score this much less than the best one are left out."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    document: Document
    rank: int
    span: tuple[int, int]
    context: str
    coverage: float

    @property
    def text(self) -> str:
        return (self.document.content or "")[slice(*self.span)]


@component
class ExtractiveAnswerer:
    """
    Answers with sentences of the documents, and says nothing of its own.

    All sentences of the first passages are compared with the question by words, and the best of them by meaning.

    :param model: The embedding model that embedded the question.
    :param compute_precision: As for `TextEmbedder`.
    :param max_sentences: How many sentences an answer has at most.
    :param max_passages: How many passages they come from at most.
    :param max_candidates: How many sentences are embedded at most; bounds the time, about 4 ms each.
    :param api_base_url: A server that embeds, as for `RemoteTextEmbedder`; `None` means the model in this process.
    :param api_key: Its key.
    :param timeout: Seconds until it must have answered.
    """

    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        compute_precision: Precision = "auto",
        max_sentences: int = 3,
        max_passages: int = 5,
        max_candidates: int = 12,
        api_base_url: str | None = None,
        api_key: Secret | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.model = model
        self.max_sentences = max_sentences
        self.max_passages = max_passages
        self.max_candidates = max_candidates
        self.compute_precision = compute_precision
        self.api_base_url, self.api_key, self.timeout = api_base_url, api_key, timeout
        self._embedder = self._made_embedder()

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return default_to_dict(
            self,
            model=self.model,
            compute_precision=self.compute_precision,
            max_sentences=self.max_sentences,
            max_passages=self.max_passages,
            max_candidates=self.max_candidates,
            api_base_url=self.api_base_url,
            api_key=self.api_key,
            timeout=self.timeout,
        )

    def warm_up(self) -> None:
        """Load the model; a process has its weights once."""
        self._embedder.warm_up()

    @component.output_types(answer=Answer)
    def run(self, question: str, question_embedding: list[float], documents: list[Document]) -> dict[str, Answer]:
        """
        Answer.

        :param question: The question.
        :param question_embedding: Its embedding.
        :param documents: Relevant passages, best first.
        :returns: `answer`, which is supported if there is any sentence to quote.
        """
        self.warm_up()
        candidates = self._candidates(question, documents[: self.max_passages])
        if not candidates:
            return {"answer": not_in_documents(extractive=True, documents=tuple(documents))}
        chosen = self._chosen(candidates, np.asarray(question_embedding, dtype=np.float32))
        citations = [cite(one.document, one.rank + 1, one.span) for one in chosen]
        return {
            "answer": Answer(
                text="\n".join(f"{_readable(citation.quote)} [{citation.number}]" for citation in citations),
                supported=True,
                extractive=True,
                citations=tuple(sorted(citations, key=lambda citation: citation.number)),
                documents=tuple(documents),
            )
        }

    def _made_embedder(self) -> Any:
        if self.api_base_url:
            from components.remote_embedders import RemoteTextEmbedder

            return RemoteTextEmbedder(
                model=self.model, api_base_url=self.api_base_url, api_key=self.api_key, timeout=self.timeout
            )
        from components.embedders import TextEmbedder

        return TextEmbedder(model=self.model, compute_precision=self.compute_precision)

    def _candidates(self, question: str, documents: list[Document]) -> list[_Candidate]:
        words = set(content_words(question))
        found = [one for rank, document in enumerate(documents) for one in _sentences(document, rank, words)]
        found.sort(key=lambda one: -(one.coverage - RANK_WEIGHT * one.rank))  # stable: earlier sentences first
        return found[: self.max_candidates]

    def _chosen(self, candidates: list[_Candidate], question: np.ndarray[Any, Any]) -> list[_Candidate]:
        vectors = np.asarray(self._embedder.embed([one.context for one in candidates]))
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(question)
        scores = vectors @ question / np.where(lengths == 0, 1, lengths)
        scores += [WORDS_WEIGHT * one.coverage - RANK_WEIGHT * one.rank for one in candidates]
        chosen: list[_Candidate] = []
        for index in np.argsort(-scores, kind="stable"):
            if len(chosen) == self.max_sentences or scores[index] < scores.max() - CLOSE_TO_BEST:
                break
            if not any(_repeats(candidates[index], other) for other in chosen):
                chosen.append(candidates[index])
        return chosen


def _sentences(document: Document, rank: int, words: set[str]) -> list[_Candidate]:
    content = document.content or ""
    above = set(content_words(f"{document.meta.get('title') or ''} {document.meta.get('heading') or ''}"))
    heading = str(document.meta.get("heading") or "").rsplit(" > ", 1)[-1]
    found = []
    asked = ""
    for start, end in _cut(content):
        text = content[start:end]
        if text.endswith("?") or text.startswith("#") or text.endswith(":"):
            asked = text  # a question or a heading answers nothing, but says what the next sentence is about
            continue
        own = content_words(text)
        if len(own) >= SHORTEST_SENTENCE or asked:
            about = set(own) | set(content_words(asked))
            # A word of the heading counts half: it holds for all sentences below it.
            share = (len(words & about) + 0.5 * len(words & above - about)) / max(1, len(words))
            context = " ".join(part for part in (heading, asked, text) if part)
            found.append(_Candidate(document, rank, (start, end), context, share))
        asked = ""
    return found


def _cut(content: str) -> list[tuple[int, int]]:
    """Sentences; those that are too long, at their lines."""
    spans = []
    for start, end in sentence_spans(content):
        if end - start <= LONGEST_SENTENCE:
            spans.append((start, end))
            continue
        for line in re.finditer(r"\S[^\n]*", content[start:end]):
            text = line[0].rstrip()[:LONGEST_SENTENCE]
            spans.append((start + line.start(), start + line.start() + len(text)))
    return spans


def _repeats(one: _Candidate, other: _Candidate) -> bool:
    words, others = set(content_words(one.text)), set(content_words(other.text))
    return len(words & others) > 0.7 * min(len(words), len(others))


def _readable(quote: str) -> str:
    """The quote on one line, without the marks of a list or a table around it, and without marks that look like ours."""
    return as_plain_text(" ".join(re.sub(r"^(?:[-*•>|]|\d+[.)])\s+", "", quote).split()).strip("| "))
