"""Tells the language of chunks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from haystack import Document, component

from components.file_types import FILE_TYPES

_SAMPLE, _CHUNK_SAMPLE = 2000, 400
"""Characters that are looked at, of a source and of a chunk: more takes longer and tells no better."""

_LEAST_LETTERS, _SURE = 60, 0.95
"""Below this, a chunk's own language is a guess, and its source's is the better one."""

_LEAST_DOCUMENT_LETTERS, _LIKELY = 20, 0.5


@component
class LanguageDetector:
    """
    Adds `language`, an ISO 639-1 code, to chunks that have none.

    Each chunk is looked at by itself, since documents mix languages; short and doubtful ones take their source's.
    Source code is `en`, the language of its keywords and mostly of its names. Where not even the source can be told,
    such as a table of numbers, the field is left out.
    """

    def warm_up(self) -> None:
        """Load the detector, once a process."""
        _identifier()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Detect.

        :param documents: Chunks; those of one source stand together.
        """
        detected: list[Document] = []
        for _, group in groupby(documents, key=lambda document: document.meta.get("source")):
            chunks = list(group)
            languages = [chunk.meta.get("language") or _own_language(chunk) for chunk in chunks]
            whole = None if all(languages) else _source_language(chunks)
            detected += [
                _with_language(chunk, language or whole) for chunk, language in zip(chunks, languages, strict=True)
            ]
        return {"documents": detected}


def _with_language(chunk: Document, language: str | None) -> Document:
    return replace(chunk, meta={**chunk.meta, "language": language}) if language else chunk


def _own_language(chunk: Document) -> str | None:
    if _is_code(chunk):
        return "en"
    return _language((chunk.content or "")[:_CHUNK_SAMPLE], least=_LEAST_LETTERS, sure=_SURE)


def _source_language(chunks: list[Document]) -> str | None:
    sample = _sample(chunk.content or "" for chunk in chunks)
    return _language(sample, least=_LEAST_DOCUMENT_LETTERS, sure=_LIKELY)


def _is_code(chunk: Document) -> bool:
    kind = FILE_TYPES.get(f".{chunk.meta.get('file_type')}")
    return kind is not None and kind.converter == "code"


def _sample(texts: Iterable[str]) -> str:
    parts, length = [], 0
    for text in texts:
        parts.append(text[: _SAMPLE - length])
        length += len(parts[-1]) + 1
        if length >= _SAMPLE:
            break
    return "\n".join(parts)


def _language(text: str, *, least: int, sure: float) -> str | None:
    if sum(map(str.isalpha, text)) < least:
        return None
    language, probability = _identifier().classify(text)
    return str(language) if probability >= sure else None


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([label for label in identifier.labels if len(label) == 2])  # ISO 639-1 has two letters
    return identifier
