"""Chooses the settings of the ranking on questions whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from database.document_store import SynapseDocumentStore
from evaluation.collection import Collection
from evaluation.measures import DEPTH, Values, mean, measured
from evaluation.statistics import Comparison, compared

Ranking = dict[str, float]

GRID: dict[str, tuple[float, ...]] = {
    "keyword_weight": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "k1": (0.6, 0.9, 1.2, 1.6, 2.0),
    "b": (0.3, 0.5, 0.75, 0.9),
    "candidates": (30, 50, 100, 200),
}
"""What is tried, one setting after the other; k1 and b as in Robertson & Zaragoza (2009), who recommend 1.2 to 2 and 0.5 to 0.8."""

ROUNDS = 3
"""The settings depend on each other: they are gone through again until nothing changes, this often at most."""

HELD_OUT = 1 / 3
MEASURE = "ndcg@10"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """
    What was chosen.

    :param best: The settings.
    :param start: Those that it began with.
    :param chosen_on: How many questions they were chosen on.
    :param gain: Of `best` over `start`, on questions that had no part in choosing.
    :param tried: How many settings were tried.
    """

    best: Ranking
    start: Ranking
    chosen_on: int
    gain: Comparison
    tried: int

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "best": self.best,
            "start": self.start,
            "chosen_on": self.chosen_on,
            "tried": self.tried,
            "gain": self.gain.to_dict(),
        }


def tune(
    collection: Collection,
    store_with: Callable[[Ranking], SynapseDocumentStore],
    *,
    start: Ranking,
    embeddings: Mapping[str, list[float]],
    text_of: Callable[[str], str],
    on_progress: Callable[[int, Ranking, float], None] | None = None,
    seed: int = 0,
) -> Tuning:
    """
    Choose the settings of a hybrid search that give the highest nDCG@10.

    Each setting in turn takes every value of the grid while the others stay (coordinate search): some forty searches of
    all questions instead of the 560 of the full grid. A third of the questions are held out and tell the gain: the gain
    on the others would flatter, as the settings were chosen for them.

    :param collection: Training questions, never those that results are reported on.
    :param store_with: Gives a store with such settings.
    :param start: Where to begin, and what the gain is over.
    :param embeddings: By query.
    :param text_of: From a chunk's id to its document's.
    :param on_progress: Called before each try: how many there were, the best settings so far, their nDCG@10.
    :param seed: Which questions are held out.
    """
    chosen_on, held_out = _halves(collection, seed=seed)
    scores: dict[tuple[float, ...], float] = {}

    def score(ranking: Ranking) -> float:
        key = tuple(ranking[name] for name in GRID)
        if key not in scores:
            values = _values(chosen_on, store_with(ranking), embeddings=embeddings, text_of=text_of)
            scores[key] = mean(values[MEASURE])
        return scores[key]

    best = start
    for _ in range(ROUNDS):
        before = best
        for name, value in ((name, value) for name, values in GRID.items() for value in values):
            if on_progress:
                on_progress(len(scores), best, score(best))
            candidate = {**best, name: value}
            if score(candidate) > score(best) + 1e-9:
                best = candidate
        if best == before:
            break
    gained = {
        name: _values(held_out, store_with(ranking), embeddings=embeddings, text_of=text_of)[MEASURE]
        for name, ranking in (("tuned", best), ("untuned", start))
    }
    gain = compared(("tuned", gained["tuned"]), ("untuned", gained["untuned"]), measure=MEASURE, seed=seed)
    return Tuning(best=best, start=start, chosen_on=len(chosen_on.queries), gain=gain, tried=len(scores))


def _halves(collection: Collection, *, seed: int) -> tuple[Collection, Collection]:
    """The questions to choose on, and those that are held out; of very few, the same for both."""
    queries = sorted(collection.queries)
    random.Random(seed).shuffle(queries)
    count = round(len(queries) * HELD_OUT)
    if count < 2:
        return collection, collection
    return _only(collection, queries[count:]), _only(collection, queries[:count])


def _only(collection: Collection, queries: list[str]) -> Collection:
    return replace(
        collection,
        queries={query: collection.queries[query] for query in queries},
        qrels={query: collection.qrels[query] for query in queries},
    )


def _values(
    collection: Collection,
    store: SynapseDocumentStore,
    *,
    embeddings: Mapping[str, list[float]],
    text_of: Callable[[str], str],
) -> Values:
    top = {}
    for query, question in collection.queries.items():
        if question.strip():
            found = store.hybrid_search(question, embeddings[query], top_k=2 * DEPTH)
            top[query] = list(dict.fromkeys(text_of(scored.document.id) for scored in found))[:DEPTH]
    return measured(collection.qrels, top=top)
