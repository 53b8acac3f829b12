"""
The data of the benchmarks: clusters of random vectors, words as frequent as English ones, and SciFact with its sentences.

What a model embeds is embedded once and kept in the cache folder, under a name that says of which texts it is.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.measuring import Options, Skipped, say

Vectors: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.float32]]"

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_VOCABULARY = 30_000


def clusters(count: int, *, dimension: int = 384, centres: int = 100, seed: int = 1) -> Vectors:
    """Unit vectors around random centres, the same number around each on average."""
    numbers = np.random.default_rng(seed)
    middle = np.random.default_rng(7).standard_normal((centres, dimension), dtype=np.float32)
    found = numbers.standard_normal((count, dimension), dtype=np.float32) * np.float32(0.7)
    found += middle[numbers.integers(centres, size=count)]
    return unit(found)


def unit(vectors: Any) -> Vectors:
    """Vectors of length 1, in single precision."""
    values = np.asarray(vectors, dtype=np.float32)
    scaled: Vectors = values / np.linalg.norm(values, axis=1, keepdims=True)
    return scaled


def zipf_texts(count: int, *, words: int = 160, seed: int = 1) -> Iterator[str]:
    """Texts of words that are as frequent as English ones (Zipf); `w1` is in nearly all of them."""
    numbers = np.random.default_rng(seed)
    for _ in range(count):
        yield " ".join(f"w{word}" for word in np.minimum(numbers.zipf(1.3, size=words), _VOCABULARY))


@dataclass(frozen=True)
class SciFact:
    """
    The collection: texts of its documents and questions, and the judgements.

    :param ids: Of the documents.
    :param texts: Title and text of each.
    :param question_ids: Of all questions.
    :param questions: Their texts.
    :param judged: By part (`train`, `test`), by question, the grade per document.
    """

    ids: list[str]
    titles: list[str]
    bodies: list[str]
    question_ids: list[str]
    questions: list[str]
    judged: dict[str, dict[str, dict[str, int]]]

    @property
    def texts(self) -> list[str]:
        """Title and text, as one chunk."""
        return [f"{title} {body}" for title, body in zip(self.titles, self.bodies, strict=True)]

    def sentences(self, most: int) -> list[str]:
        """The sentences of all texts and then, until there are enough, titles."""
        found = [part for body in self.bodies for part in _SENTENCE_END.split(body) if len(part) > 20]
        return list(dict.fromkeys(found + self.titles))[:most]

    def recombined(self, count: int, *, sentences: int = 8, seed: int = 1) -> Iterator[str]:
        """Texts of random sentences of the collection, about as long as its abstracts."""
        chance, pool = random.Random(seed), self.sentences(10**6)
        for _ in range(count):
            yield " ".join(chance.choices(pool, k=sentences))


@cache
def scifact(folder: Path | None) -> SciFact:
    """
    Read the collection.

    :raises Skipped: If there is none.
    """
    if folder is None or not (folder / "corpus.jsonl").is_file():
        raise Skipped("needs SciFact in BEIR's layout: pass --scifact FOLDER, or set BENCH_SCIFACT")
    corpus, questions = (_lines(folder / name) for name in ("corpus.jsonl", "queries.jsonl"))
    return SciFact(
        ids=[str(row["_id"]) for row in corpus],
        titles=[row["title"] for row in corpus],
        bodies=[row["text"] for row in corpus],
        question_ids=[str(row["_id"]) for row in questions],
        questions=[row["text"] for row in questions],
        judged={part: _judgements(folder / "qrels" / f"{part}.tsv") for part in ("train", "test")},
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        question, document, grade = line.split("\t")
        found.setdefault(question, {})[document] = int(grade)
    return found


def embedded(texts: list[str], *, name: str, options: Options) -> Vectors:
    """
    Unit vectors of texts by the default model, from the cache or made and kept there.

    :param texts: What is embedded.
    :param name: What they are, for the file's name.
    """
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    path = options.cache / f"{name}-{len(texts)}-{digest}.npy"
    if not path.exists():
        say(f"embedding {len(texts):,} {name}, once; they are kept in {options.cache}")
        options.cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, unit(_by_default_model(texts)))
        unfinished.rename(path)
    found: Vectors = np.load(path)
    return found


def _by_default_model(texts: list[str]) -> Any:
    from components.embedders import TextEmbedder

    embedder = TextEmbedder()
    embedder.warm_up()
    assert embedder.embedding_backend is not None
    return embedder.embedding_backend.embed(texts, batch_size=32, show_progress_bar=False)
