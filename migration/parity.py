"""
Whether a search finds in the target what it found in the source.

Sampled vectors are searched for exactly among the source's vectors, in the source's own distance, and then in the target, as the
application does: exactly, and by the index. Documents as near as the last of the nearest are ties: any of them is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from database.document_store import SynapseDocumentStore
from database.tenancy import DEFAULT_TENANT, schema_of
from migration.record_hash import key_of

if TYPE_CHECKING:
    from haystack import Document

    from database.connection import Database
    from migration.checking import PartCheck
    from migration.source import Distance, Record, Source
    from migration.verification import CheckedPart

TOP_K = 10
BATCH = 4096
TIE = 2e-6
"""Similarities this close, relative to the vectors' lengths, are ties: float32 has seven digits."""

HALF_TIE = 1e-3
"""The same in half precision."""

ENOUGH_OVERLAP = 0.999
"""Exact search in the target must agree with the source's to this share."""

ENOUGH_RECALL = 0.95
"""Below this share of the nearest from the index, a person should know; the data is right all the same."""

Report = Callable[[str, str, int, int | None], None]


def compare_search(owner: Database, source: Source, part: CheckedPart, *, accept: bool, report: Report) -> str | None:
    """
    Search source and target for the part's queries, and write into its books how far they agree.

    :param accept: Whether the user accepts that exact search agrees less, as the source ranks differently.
    :returns: A warning, where the index finds too little of what exact search finds.
    """
    check, queries = part.check, part.check.queries
    vectors = np.stack([query.vector for query in queries])
    wanted = min(TOP_K, check.searchable)
    worst = _nearest_in_source(source, part, vectors, wanted=wanted, report=report)
    exact, indexed = _stores(owner, check)
    overlaps, recalls = [], []
    for number, query in enumerate(queries):
        embedding = [float(value) for value in query.vector]
        truth = _found(exact, embedding, check, wanted)
        back = _found(indexed, embedding, check, wanted)
        overlaps.append(_overlap(truth, query.vector, worst[number], check, wanted=wanted))
        recalls.append(_recall(back, truth, wanted=len(truth)))
        report("comparing search", check.target.part.name, number + 1, len(queries))
    overlap, recall = float(np.mean(overlaps)), float(np.mean(recalls))
    part.books.checks["search"] = {
        "passed": overlap >= ENOUGH_OVERLAP or accept,
        "found": f"overlap@{TOP_K} {overlap:.4f}, recall@{TOP_K} of the index {recall:.4f}",
        "queries": len(queries),
        "distance": check.target.part.distance,
        "overlap_at_10": round(overlap, 4),
        "least_overlap_at_10": round(min(overlaps), 4),
        "recall_at_10": round(recall, 4),
        "least_recall_at_10": round(min(recalls), 4),
        "rank_change_accepted": accept,
    }
    if recall >= ENOUGH_RECALL:
        return None
    return (
        f"The index of {check.target.model.table_name} finds {recall:.1%} of the {TOP_K} nearest; "
        "`python synapse.py recall` measures what another HNSW_EF_SEARCH finds."
    )


def similarities(distance: Distance, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """
    How near vectors are to queries: larger is nearer, and on the scale of the vectors' lengths.

    :param vectors: Of shape (n, dimension).
    :param queries: Of shape (q, dimension).
    :returns: Of shape (q, n): the cosine; the inner product; or minus half the squared Euclidean distance.
    """
    left, right = queries.astype(np.float64), vectors.astype(np.float64)
    if distance == "cosine":
        left = left / np.linalg.norm(left, axis=1, keepdims=True)
        lengths = np.linalg.norm(right, axis=1, keepdims=True)
        right = np.divide(right, lengths, out=np.zeros_like(right), where=lengths > 0)
    products: NDArray[np.float64] = left @ right.T
    if distance == "l2":
        products -= ((left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :]) / 2
    return products


def _nearest_in_source(
    source: Source, part: CheckedPart, queries: NDArray[np.float32], *, wanted: int, report: Report
) -> NDArray[np.float64]:
    """How near the last of the nearest is to each query, of what is to be in the target; of shape (q,)."""
    best = np.full((len(queries), wanted), -np.inf)
    origin, done = part.check.target.part, 0
    records = source.records(origin)
    while batch := list(islice(records, BATCH)):
        vectors = [vector for vector in _searched(batch, part) if vector is not None]
        if vectors:
            near = np.concatenate([best, similarities(origin.distance, np.stack(vectors), queries)], axis=1)
            best = -np.partition(-near, wanted - 1, axis=1)[:, :wanted]
        done += len(batch)
        report("comparing search", origin.name, done, part.books.records)
    nearest: NDArray[np.float64] = best.min(axis=1)
    return nearest


def _searched(batch: Sequence[Record], part: CheckedPart) -> list[NDArray[np.float32] | None]:
    """The vectors that a search goes through; a zero vector has no cosine, so that only its words find it."""
    if part.check.searchable == part.books.records:
        return [record.embedding for record in batch]
    return [converted.record.embedding for converted, _ in part.check.settled(batch) if converted.searchable]


def _stores(owner: Database, check: PartCheck) -> tuple[SynapseDocumentStore, SynapseDocumentStore]:
    """The target as the application searches it: exactly, and by its index."""
    from haystack.utils import Secret

    model = check.target.model
    stores = [
        SynapseDocumentStore(
            connection_string=Secret.from_token(owner.conninfo),
            create_extension=False,
            schema_name=schema_of(owner.tenant or DEFAULT_TENANT),
            table_name=model.table_name,
            language=model.language,
            embedding_dimension=model.dimension,
            vector_type=model.vector_type,  # type: ignore[arg-type]
            search_strategy=strategy,
            return_embedding=True,
        )
        for strategy in ("exact_nearest_neighbor", "hnsw")
    ]
    return stores[0], stores[1]


def _found(store: SynapseDocumentStore, embedding: list[float], check: PartCheck, wanted: int) -> list[Document]:
    """The nearest documents of this part; others that are nearer are passed over."""
    top_k = wanted
    while True:
        documents = store.dense_search(embedding, top_k=top_k)
        places, _ = check.expected.find([key_of(document.id) for document in documents])
        ours = [document for document, place in zip(documents, places, strict=True) if place >= 0]
        if len(ours) >= wanted or len(documents) < top_k or top_k >= 1000:
            return ours[:wanted]
        top_k = min(top_k * 4, 1000)


def _overlap(
    truth: Sequence[Document], query: NDArray[np.float32], worst: float, check: PartCheck, *, wanted: int
) -> float:
    """The share of the nearest in the target that are among the nearest in the source."""
    searchable = [document.embedding for document in truth if document.embedding]
    if not searchable:
        return 0.0
    matrix = np.array(searchable, dtype=np.float32)
    distance = check.target.part.distance
    near = similarities(distance, matrix, query[None, :])[0]
    scale = 1.0 if distance == "cosine" else float(np.linalg.norm(query)) * float(np.linalg.norm(matrix, axis=1).max())
    tie = HALF_TIE if check.target.model.vector_type == "halfvec" else TIE
    return float((near >= worst - tie * scale).sum()) / wanted


def _recall(back: Sequence[Document], truth: Sequence[Document], *, wanted: int) -> float:
    if not truth:
        return 1.0
    last = (truth[-1].score or 0.0) - TIE
    return min(sum((document.score or 0.0) >= last for document in back), wanted) / wanted
