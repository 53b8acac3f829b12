"""Checks what a language model wrote: every sentence cites a document that was retrieved, or is marked."""

from __future__ import annotations

import re

from haystack import Document, component
from haystack.dataclasses import ChatMessage

from components.answers import UNSUPPORTED_MARK, Answer, Citation, cite, not_in_documents
from components.prompt_builder import NOT_FOUND
from components.sentences import content_words, sentence_spans

_MARK = re.compile(r"\[\s*(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\s*\]")
_MARKS_AFTER_STOP = re.compile(rf"(?<![.!?…])([.!?…]++)\s*((?:{_MARK.pattern}\s*)+)")
LONGEST_QUOTE = 500


@component
class CitationChecker:
    """Turns a model's reply into an answer whose every citation can be opened, and marks what has none."""

    @component.output_types(answer=Answer)
    def run(self, replies: list[ChatMessage], documents: list[Document]) -> dict[str, Answer]:
        """
        Check a reply.

        :param replies: The model's replies; the first one counts.
        :param documents: The documents that stood in its prompt, in the order of their numbers.
        :returns: `answer`: the reply, where sentences that cite nothing, or no document of the prompt, end in a mark.
        """
        reply = (replies[0].text or "").strip()
        if NOT_FOUND in reply:
            return {"answer": not_in_documents(extractive=False, documents=tuple(documents))}
        # A mark belongs to the sentence before it, on whichever side of the full stop it stands.
        reply = _MARKS_AFTER_STOP.sub(lambda found: f" {found[2].strip()}{found[1]} ", reply).strip()
        parts: list[str] = []
        unsupported: list[str] = []
        citations: dict[tuple[int, tuple[int, int]], Citation] = {}
        end = 0
        for start, stop in sentence_spans(reply):
            sentence, cited = _checked(reply[start:stop], documents)
            parts += [reply[end:start], sentence]
            end = stop
            if cited:
                citations.update(((one.number, one.span), one) for one in cited)
            else:
                unsupported.append(reply[start:stop])
        return {
            "answer": Answer(
                text="".join([*parts, reply[end:]]).strip(),
                supported=bool(citations),
                extractive=False,
                citations=tuple(citations[key] for key in sorted(citations)),
                documents=tuple(documents),
                unsupported=tuple(unsupported),
            )
        }


def _checked(sentence: str, documents: list[Document]) -> tuple[str, list[Citation]]:
    """The sentence, its marks in one form, without those that lead nowhere; and its citations."""
    numbers: list[int] = []

    def known(found: re.Match[str]) -> str:
        kept = [number for text in re.split(r"\s*[,;]\s*", found[1]) if 1 <= (number := int(text)) <= len(documents)]
        numbers.extend(kept)
        return "".join(f"[{number}]" for number in kept)

    marked = re.sub(r"\s+([.!?])", r"\1", _MARK.sub(known, sentence))
    if not numbers:
        return f"{marked} {UNSUPPORTED_MARK}", []
    citations = [
        cite(documents[number - 1], number, _best_quote(documents[number - 1], sentence)) for number in numbers
    ]
    return marked, citations


def _best_quote(document: Document, sentence: str) -> tuple[int, int]:
    """Where in the document the sentence stands that has most of the words of what cites it."""
    content = document.content or ""
    words = set(content_words(sentence))

    def shared(span: tuple[int, int]) -> int:
        return len(words & set(content_words(content[slice(*span)])))

    start, end = max(sentence_spans(content), key=shared, default=(0, len(content)))
    return start, min(end, start + LONGEST_QUOTE)
