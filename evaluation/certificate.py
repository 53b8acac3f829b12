"""
The recall certificate: what a table's index loses against comparing every embedding, and which setting it needs.

A document's own embedding is too easy a query: it lies where the index is densest. Between real questions and their nearest
documents there is more room. Without questions at hand, queries are therefore made of the documents' embeddings and noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from database.index_recall import Answer
from evaluation.evaluation import percentile
from evaluation.statistics import bootstrap_interval, limit_if_all_perfect

EF_SEARCHES = (10, 20, 40, 100, 200, 400, 1000)
EF_SEARCHES_FILTERED = (10, 100, 1000)
"""Under a filter, fewer: recall hangs less on it there, and time is better spent on more queries."""

COSINE = 0.5
"""
Between a made query and the document that it is made of. With it, the recall of made queries is that of real claims, or below:
on SciFact's abstracts .933 .961 .985 .998 for ef_search 11, 20, 40, 100 (real: .932 .962 .985 .998), on its 45,413 sentences
.853 .906 .950 .983 (real: .903 .945 .982 .996). Documents themselves as queries would show .997 and .990 for ef_search 11.
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """
    What one `ef_search` reaches under one filter.

    :param recall: Mean over the queries.
    :param interval: 95 %, by the bootstrap over queries; never above what as many perfect queries would prove.
    :param short: Queries that got fewer documents than there are.
    """

    ef_search: int
    recall: float
    interval: tuple[float, float]
    short: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """
    All settings under one filter.

    :param filter: For people; empty without one.
    :param share: Of the documents that pass, about.
    :param exact_ms: p50 of comparing every embedding that passes.
    """

    filter: str
    share: float
    exact_ms: float
    settings: list[Setting]

    def at(self, ef_search: int) -> Setting:
        """What that `ef_search` reaches at least: the next smaller one where it was not measured."""
        return max(
            (one for one in self.settings if one.ef_search <= ef_search),
            key=lambda one: one.ef_search,
            default=self.settings[0],
        )


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """
    What a table's index is worth.

    :param queries: How many were asked.
    :param configured: The `ef_search` that the application uses.
    :param recommended: The smallest that reaches the target under every filter, by the lower end of its interval; `None` if
        no setting is proven to.
    :param likely: The smallest that was measured to reach it, proven or not; `None` if none was.
    :param exact_below: Rows up to which comparing every embedding is as quick as the index at that setting, from the times
        that were measured; 0 where it never is.
    :param needed: How many queries could prove the target if all were answered perfectly.
    """

    rows: int
    queries: int
    top_k: int
    target: float
    configured: int
    groups: list[Group]
    recommended: int | None
    likely: int | None
    exact_below: int
    needed: int

    @property
    def worst(self) -> tuple[Group, Setting]:
        """The lowest recall at the configured setting, and under which filter."""
        return min(((group, group.at(self.configured)) for group in self.groups), key=lambda pair: pair[1].recall)

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def made_queries(vectors: Sequence[Sequence[float]], *, cosine: float = COSINE, seed: int = 0) -> list[list[float]]:
    """
    Queries at a distance from documents, as questions are.

    :param vectors: Embeddings of documents.
    :param cosine: Between each and the query made of it.
    :param seed: Of the noise.
    :returns: One per embedding, of length 1.
    """
    if not vectors:
        return []
    data = np.asarray(vectors, dtype=float)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    noise = np.random.default_rng(seed).normal(size=data.shape)
    noise -= (noise * data).sum(axis=1, keepdims=True) * data
    length = np.linalg.norm(noise, axis=1, keepdims=True)
    noise = np.divide(noise, length, out=np.zeros_like(noise), where=length > 1e-9)  # of one dimension, nothing is left
    made = cosine * data + math.sqrt(1 - cosine**2) * noise
    found: list[list[float]] = made.astype(np.float32).tolist()
    return found


def certify(
    answers: Mapping[tuple[int, int], Sequence[Answer]],
    *,
    filters: Sequence[tuple[str, float]],
    rows: int,
    top_k: int,
    target: float,
    configured: int,
    floor_ms: float,
) -> Certificate:
    """
    Turn answers into a certificate.

    :param answers: Of `database.index_recall.answers`.
    :param filters: For each filter its text and the share that passes, in the same order; the first is no filter.
    :param rows: Of the table.
    :param top_k: How many documents were asked for.
    :param target: The recall that is wanted, 0 to 1.
    :param configured: The application's `ef_search`.
    :param floor_ms: What a search takes that compares nothing: the way to the server and back.
    """
    groups = [
        _group(text, share, {ef: found for (n, ef), found in answers.items() if n == place})
        for place, (text, share) in enumerate(filters)
    ]
    ef_searches = [one.ef_search for one in groups[0].settings]

    def smallest(reached: Callable[[Setting], float]) -> int | None:
        good = (ef for ef in ef_searches if all(reached(group.at(ef)) >= target for group in groups))
        return next(good, None)

    recommended, likely = smallest(lambda one: one.interval[0]), smallest(lambda one: one.recall)
    used = next(one for one in groups[0].settings if one.ef_search == (recommended or likely or ef_searches[-1]))
    return Certificate(
        rows=rows,
        queries=len(answers[0, ef_searches[0]]),
        top_k=top_k,
        target=target,
        configured=configured,
        groups=groups,
        recommended=recommended,
        likely=likely,
        exact_below=_exact_below(rows, exact_ms=groups[0].exact_ms, index_ms=used.p50_ms, floor_ms=floor_ms),
        needed=_needed(target),
    )


def interval(recalls: Sequence[float]) -> tuple[float, float]:
    """
    The 95 % interval of the mean recall.

    The queries are what was sampled, not the documents that they return, which are lost or found together: so the bootstrap
    draws queries. It cannot know of what it did not see; its lower end is capped by what as many perfect ones would prove.
    """
    low, high = bootstrap_interval(recalls)
    return min(low, limit_if_all_perfect(len(recalls))), high


def _group(text: str, share: float, answers: Mapping[int, Sequence[Answer]]) -> Group:
    times = [answer.exact_ms for answer in next(iter(answers.values()))]
    return Group(
        filter=text,
        share=round(share, 4),
        exact_ms=round(percentile(times, 0.5), 2),
        settings=[_setting(ef, answers[ef]) for ef in sorted(answers)],
    )


def _setting(ef_search: int, found: Sequence[Answer]) -> Setting:
    recalls, times = [answer.recall for answer in found], [answer.ms for answer in found]
    low, high = interval(recalls)
    return Setting(
        ef_search=ef_search,
        recall=round(sum(recalls) / len(recalls), 4),
        interval=(round(low, 4), round(high, 4)),
        short=sum(answer.returned < answer.wanted for answer in found),
        p50_ms=round(percentile(times, 0.5), 2),
        p95_ms=round(percentile(times, 0.95), 2),
    )


def _exact_below(rows: int, *, exact_ms: float, index_ms: float, floor_ms: float) -> int:
    """Comparing grows with the rows, beginning at the floor: where its line meets the index's time."""
    per_row = max(exact_ms - floor_ms, 1e-3) / max(rows, 1)
    count = max(0.0, index_ms - floor_ms) / per_row
    digits = 1 - len(str(int(count))) if count >= 1 else 0
    return int(round(count, min(0, digits + 1)))


def _needed(target: float) -> int:
    count = 1
    while limit_if_all_perfect(count) < target and count < 1_000_000:
        count *= 2
    low = count // 2
    while low + 1 < count:
        middle = (low + count) // 2
        low, count = (middle, count) if limit_if_all_perfect(middle) < target else (low, middle)
    return count
