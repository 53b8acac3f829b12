"""Asks every judged question in every way, and measures what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.collection import Collection
from evaluation.measures import DEPTH, NAMES, RECALL_DEPTH, Values, mean, measured
from evaluation.statistics import bootstrap_interval
from evaluation.strategies import REORDERING, Strategy

MOST = 1000
"""Chunks that a search is asked for at most."""

Rankings = dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    What one strategy reached.

    :param values: By measure, then by query.
    :param latencies: Milliseconds of each query, the embedding of the question left out.
    """

    values: Values
    latencies: list[float]

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            **{name: round(mean(self.values[name]), 4) for name in NAMES},
            "p50_ms": round(percentile(self.latencies, 0.5), 2),
            "p95_ms": round(percentile(self.latencies, 0.95), 2),
            "intervals": {
                name: [round(end, 4) for end in bootstrap_interval(list(self.values[name].values()))] for name in NAMES
            },
            "queries": {
                query: {name: round(self.values[name][query], 4) for name in NAMES} for query in self.values[NAMES[0]]
            },
        }


def evaluate(
    collection: Collection,
    strategies: Mapping[str, Strategy],
    *,
    embeddings: Mapping[str, list[float]],
    text_of: Callable[[str], str],
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Result]:
    """
    Ask each question in each way, one way after the other, so that all meet the same load of the machine.

    nDCG@10 and MRR@10 come from a search for ten documents, as the application asks it, and so does the time;
    recall@100 from a second one for a hundred.

    :param collection: The questions and their judgements.
    :param strategies: By name.
    :param embeddings: By query.
    :param text_of: From the id of what is found to a document of the collection; of several chunks of one document, the
        best stands for it.
    :param on_progress: Called with how many questions were asked.
    """
    top: dict[str, Rankings] = {name: {} for name in strategies}
    deep: dict[str, Rankings] = {name: {} for name in strategies}
    latencies: dict[str, list[float]] = {name: [] for name in strategies}
    titles = {text.id: (text.title, text.text) for text in collection.texts if text.id in collection.queries}
    for number, (query, question) in enumerate(collection.queries.items()):
        if on_progress:
            on_progress(number)
        if not question.strip():
            continue
        # In some collections the questions are documents, too; BEIR leaves these out of what they find.
        itself = query if question.strip() in titles.get(query, ()) else None
        for name, strategy in strategies.items():
            ranking = _Ranking(strategy, question, embeddings[query], text_of=text_of, itself=itself)
            if not latencies[name]:
                ranking.best(DEPTH)  # the first one loads what the others find loaded
            started = time.perf_counter()
            top[name][query] = ranking.best(DEPTH)
            latencies[name].append((time.perf_counter() - started) * 1000)
            if name not in REORDERING or "hybrid" not in strategies:
                deep[name][query] = ranking.best(RECALL_DEPTH)
    for name in REORDERING:
        if name in deep and "hybrid" in deep:
            deep[name] = deep["hybrid"]
    return {
        name: Result(
            values=measured(collection.qrels, top=top[name], deep=deep[name]), latencies=latencies[name] or [0.0]
        )
        for name in strategies
    }


@dataclass(frozen=True)
class _Ranking:
    """One question, asked in one way."""

    strategy: Strategy
    question: str
    embedding: list[float]
    text_of: Callable[[str], str]
    itself: str | None

    def best(self, count: int) -> list[str]:
        """The documents, best first: chunks are asked for until enough different documents are found."""
        wanted = count + (self.itself is not None)
        asked = wanted
        while True:
            chunks = self.strategy(self.question, self.embedding, asked)
            found = list(dict.fromkeys(self.text_of(chunk.id) for chunk in chunks))
            if len(found) >= wanted or len(chunks) < asked or asked >= MOST:
                return [text for text in found if text != self.itself][:count]
            asked = min(MOST, 2 * asked)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies, linear between two."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
