"""
What an index returns, beside what comparing every embedding returns.

Only reads, through the store's own searches: they block no writer. Samples of a large table read some of its pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack import Document
from psycopg.sql import SQL, Identifier

from database.document_store import SynapseDocumentStore
from database.filters import condition
from database.sql import statements

Filter = dict[str, Any]

SAMPLED_WHOLE = 20_000
"""Tables up to this many rows are sampled from all their pages."""

SAMPLE = 20_000
"""Rows that a sample of a larger one looks at, about."""

TIE = 1e-6
"""Scores this close are ties: any of such documents is as right as the other. float32 has seven digits."""

HOUSEKEEPING = frozenset({"content_hash", "modified", "position", "span"})
"""Metadata that indexing adds and nobody filters by."""

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """
    One query through the index and without it.

    :param recall: The share of the nearest documents that came back, 0 to 1; of equally near ones, any counts.
    :param returned: How many came back.
    :param wanted: How many there are to come back: `top_k`, or as many as pass the filter.
    :param ms: Time through the index, in milliseconds.
    :param exact_ms: Time without it.
    """

    recall: float
    returned: int
    wanted: int
    ms: float
    exact_ms: float


class SampledTable:
    """
    A documents table, of which only some pages are read.

    :param store: The table's.
    :param seed: The same seed takes the same pages, as long as the table stays the same.
    """

    def __init__(self, store: SynapseDocumentStore, *, seed: int = 0) -> None:
        self._store, self._seed = store, seed
        self._table = Identifier(store.schema_name, store.table_name)
        self.rows = self._counted()
        self._percent = 100.0 if self.rows <= SAMPLED_WHOLE else 100 * SAMPLE / self.rows

    def vectors(self, count: int) -> list[list[float]]:
        """Embeddings of as many documents, in random order; fewer where there are fewer."""
        vector_type = SQL(self._store.vector_type)
        return [row["embedding"].to_list() for row in self._read("vectors", count=count, vector_type=vector_type)]

    def metadata(self, count: int) -> list[dict[str, Any]]:
        """Metadata of as many documents."""
        return [row["meta"] for row in self._read("metadata", count=count) if isinstance(row["meta"], dict)]

    def share(self, filters: Filter) -> float:
        """The share of the documents that pass a filter, about: 0 to 1."""
        where, params = condition(filters)
        row = self._read("share", condition=where, **params)[0]
        return float(row["passing"] / row["rows"]) if row["rows"] else 0.0

    def _counted(self) -> int:
        name = self._table.as_string()
        found = self._store.database.read(_SQL["rows"], {"table": name})
        estimate = int(found[0]["rows"]) if found else -1
        if estimate > SAMPLED_WHOLE:
            return estimate
        return int(self._store.database.read(SQL(_SQL["count"]).format(table=self._table))[0]["rows"])

    def _read(self, name: str, **given: Any) -> list[dict[str, Any]]:
        parts = {key: given.pop(key) for key in ("condition", "vector_type") if key in given}
        params = {"percent": self._percent, "seed": self._seed, **given}
        return self._store.database.read(SQL(_SQL[name]).format(table=self._table, **parts), params)


def like(store: SynapseDocumentStore, *, ef_search: int | None = None, exact: bool = False) -> SynapseDocumentStore:
    """The same table, searched with another `ef_search`, or without the index."""
    return SynapseDocumentStore(
        connection_string=store.connection_string,
        create_extension=False,
        schema_name=store.schema_name,
        table_name=store.table_name,
        language=store.language,
        embedding_dimension=store.embedding_dimension,
        vector_type=store.vector_type,
        vector_function=store.vector_function,
        search_strategy="exact_nearest_neighbor" if exact else "hnsw",
        hnsw_ef_search=ef_search or store.hnsw_ef_search,
        home=store.home,
    )


def answers(
    store: SynapseDocumentStore,
    vectors: Sequence[list[float]],
    *,
    filters: Sequence[tuple[Filter | None, Sequence[int]]],
    top_k: int,
    seconds: float,
    on_progress: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[tuple[int, int], list[Answer]]:
    """
    Ask each vector under each filter, exactly once and then through the index with each of the filter's `ef_search`.

    Everything is asked in turn of one vector before the next comes, so that all times are of the same minutes.

    :param store: The table's; what is timed are its searches as the application makes them.
    :param vectors: Query embeddings.
    :param filters: Each in Haystack's syntax, or `None` for no filter, with the candidate lists to try.
    :param top_k: How many documents are asked for.
    :param seconds: No vector is begun later; the first one is always asked.
    :param on_progress: Called with how many vectors were asked.
    :param clock: What the time is taken from.
    :returns: By the filter's place and `ef_search`, an answer per vector that was asked.
    """
    exact, indexed = like(store, exact=True), {ef: like(store, ef_search=ef) for _, some in filters for ef in some}
    found: dict[tuple[int, int], list[Answer]] = {
        (place, ef): [] for place, (_, some) in enumerate(filters) for ef in some
    }
    deadline = clock() + seconds
    if vectors:
        for one in (exact, *indexed.values()):  # connections, plans and pages that the first query would wait for
            for wanted, _ in filters:
                one.dense_search(vectors[0], filters=wanted, top_k=top_k)
    for number, vector in enumerate(vectors):
        if number and clock() > deadline:
            break
        for place, (wanted, some) in enumerate(filters):
            truth, exact_ms = _timed(exact, vector, wanted, top_k)
            for ef in some:
                back, ms = _timed(indexed[ef], vector, wanted, top_k)
                found[place, ef].append(
                    Answer(
                        recall=recall(back, truth, smaller_is_better=store.vector_function == "l2_distance"),
                        returned=len(back),
                        wanted=len(truth),
                        ms=ms,
                        exact_ms=exact_ms,
                    )
                )
        if on_progress:
            on_progress(number + 1)
    return found


def floor_ms(store: SynapseDocumentStore, vectors: Sequence[list[float]]) -> float:
    """What a search takes that compares nothing, as no document passes: the way there and back, in milliseconds."""
    exact = like(store, exact=True)
    nobody = {"field": "id", "operator": "==", "value": "no document has this id"}
    times = sorted(_timed(exact, vector, nobody, 1)[1] for vector in vectors)
    return times[len(times) // 2]


def recall(back: Sequence[Document], truth: Sequence[Document], *, smaller_is_better: bool = False) -> float:
    """
    The share of the truth that came back.

    :param back: What the index returned, with scores.
    :param truth: The nearest documents, nearest first, with scores.
    :returns: 0 to 1; of nothing, everything came back. A document as near as the last of the truth counts, whichever it is.
    """
    if not truth:
        return 1.0
    sign = -1 if smaller_is_better else 1
    last = sign * (truth[-1].score or 0.0)
    near_enough = {document.id for document in back if sign * (document.score or 0.0) >= last - TIE}
    return min(len(near_enough), len(truth)) / len(truth)


def frequent_filters(
    metadata: Sequence[Mapping[str, Any]], *, shares: Sequence[float], declared: Collection[str] = ()
) -> Iterator[Filter]:
    """
    Filters that pass about such shares of the documents: a field equal to one of its values, each field once if possible.

    :param metadata: Of a sample of the documents.
    :param shares: 0 to 1; a share for which nothing comes within a factor of three has no filter.
    :param declared: Fields that are taken before others.
    """
    counts: dict[tuple[str, Any], int] = {}
    for meta in metadata:
        for name, value in meta.items():
            if name not in HOUSEKEEPING and isinstance(value, str | bool | int) and len(str(value)) <= 80:
                counts[name, value] = counts.get((name, value), 0) + 1
    used: set[str] = set()
    for share in shares:
        wanted = share * len(metadata)
        close = [
            (key[0] in used, key[0] not in declared, max(count / wanted, wanted / count), str(key), key)
            for key, count in counts.items()
            if count >= 3 and wanted / 3 <= count <= wanted * 3 and count < len(metadata)
        ]
        if close:
            *_, (name, value) = min(close)
            used.add(name)
            del counts[name, value]
            yield {"field": f"meta.{name}", "operator": "==", "value": value}


def _timed(
    store: SynapseDocumentStore, vector: list[float], filters: Filter | None, top_k: int
) -> tuple[list[Document], float]:
    started = time.perf_counter()
    found = store.dense_search(vector, filters=filters, top_k=top_k)
    return found, (time.perf_counter() - started) * 1000
