"""
A search by embedding, beside plain SQL on one connection and beside the plain store, and with eight threads at once.

The plain SQL is one statement on one connection, prepared by psycopg, its vector and its result in binary; it looks at as many
candidates as our store (`hnsw.ef_search`) and asks for nothing more. Both stores are called through Haystack's
`PgvectorEmbeddingRetriever`, on one table; the plain one gets the smallest candidate list that finds as much as ours, so that
it does not lose time on a recall that ours does not have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from haystack import Document
from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from benchmarks.corpora import Vectors, clusters, embedded, scifact, zipf_texts
from benchmarks.measuring import Finding, Options, Skipped, in_turn, p50, p95, say
from benchmarks.stores import TABLE, benchmark_server, fill, our_store, owner, plain_store, view_of
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer

TOP_K = 10
EF_SEARCH = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 400)
THREADS = 8
USUAL = 40
"""pgvector's default `ef_search`."""

SAME_RECALL = 0.0005

_PLAIN_SQL = (
    "SELECT id, content, meta, 1 - (embedding <=> %(embedding)b) AS score FROM {table}"
    " ORDER BY embedding <=> %(embedding)b LIMIT 10"
)
Search = Callable[[int], list[str]]


def run(options: Options) -> list[Finding]:
    """Measure on SciFact's documents if they are given, else on random clusters."""
    name, rows, texts, questions = _data(options)
    with benchmark_server() as server, our_store(server) as ours:
        fill(server, ours, _documents(rows, texts))
        found = _Comparison(server, ours, rows, questions[: options.size(300, 10)])
        return [*found.latency(name, rounds=options.size(2, 1)), found.throughput(name, calls=options.size(1600, 40))]


def _data(options: Options) -> tuple[str, Vectors, list[str], Vectors]:
    try:
        if options.quick:
            raise Skipped("embedding takes minutes")
        collection = scifact(options.scifact)
        texts = collection.sentences(50_000)
        rows = embedded(texts, name="sentences", options=options)
        questions = embedded(collection.questions, name="questions", options=options)
        chosen = np.random.default_rng(5).permutation(len(rows))[:10_000]
        return "10,000 of SciFact's sentences", rows[chosen], [texts[n] for n in chosen], questions
    except Skipped:
        count = options.size(10_000, 500)
        return f"{count:,} random vectors", clusters(count), list(zipf_texts(count, words=40)), clusters(500, seed=2)


def _documents(rows: Vectors, texts: list[str]) -> Iterator[Document]:
    for n, (row, text) in enumerate(zip(rows, texts, strict=True)):
        meta = {"source": f"file {n % 100}.txt", "position": n, "language": "en"}
        yield Document(id=f"row {n}", content=text, embedding=row.tolist(), meta=meta)


class _Comparison:
    """Three ways to ask the same questions of one table."""

    def __init__(self, server: EmbeddedServer, ours: SynapseDocumentStore, rows: Vectors, questions: Vectors) -> None:
        self.server = server
        self.ours = PgvectorEmbeddingRetriever(document_store=ours, top_k=TOP_K)
        self.ef_search = int(ours.hnsw_ef_search or 40)
        self.vectors, self.questions = questions, [question.tolist() for question in questions]
        similarities = questions @ rows.T
        self.nearest = [
            {f"row {n}" for n in np.argpartition(-row, TOP_K)[:TOP_K]} if len(row) > TOP_K else set()
            for row in similarities
        ]

    def latency(self, name: str, *, rounds: int) -> list[Finding]:
        """Milliseconds of one question."""
        ours = self.searching(self.ours)
        our_recall = self.recall(ours)
        ef_search, plain, plain_recall = self._equal_in_recall(our_recall)
        usual = self._plain(USUAL)
        say(f"recall@10: ours {our_recall:.4f}, plain {plain_recall:.4f} with ef_search {ef_search}")
        with owner(self.server) as connection:
            connection.row_factory = dict_row
            register_vector(connection)
            connection.execute(SQL("SET hnsw.ef_search = {}").format(self.ef_search))
            statement = SQL(_PLAIN_SQL).format(table=Identifier(TABLE))

            def sql(n: int) -> list[str]:
                vector = Vector(self.vectors[n % len(self.vectors)])
                rows = connection.execute(statement, {"embedding": vector}, binary=True)  # type: ignore[call-overload]
                return [row["id"] for row in rows.fetchall()]

            sides = {
                "ours": ours,
                "sql": sql,
                "plain": self.searching(plain),
                "ours, 40": self.searching(self._ours(USUAL)),
                "plain, 40": self.searching(usual),
            }
            times, _ = in_turn(sides, calls=rounds * len(self.questions), warm_up=10)
        plain.document_store.close()
        usual.document_store.close()
        ms = {side: p50(values) for side, values in times.items()}
        beside = {
            "ours ms": ms["ours"],
            "plain SQL ms": ms["sql"],
            "plain store ms": ms["plain"],
            "our p95 ms": p95(times["ours"]),
            "our recall": our_recall,
            "plain store's": plain_recall,
            "its ef_search": ef_search,
            "times faster, both with ef_search 40": ms["plain, 40"] / ms["ours, 40"],
        }
        return [
            Finding(
                row="dense",
                what=f"{name}: p50 against plain SQL with binary parameters",
                value=ms["ours"] / ms["sql"],
                unit="x",
                at_most=2,
                beside=beside,
            ),
            Finding(
                row="dense",
                what=f"{name}: times faster than the plain store at equal recall, p50",
                value=ms["plain"] / ms["ours"],
                unit="x",
                at_least=2.5,
                beside=beside,
            ),
        ]

    def throughput(self, name: str, *, calls: int) -> Finding:
        """Questions per second of eight threads that share a store, both stores twice in turn."""
        plain = self._plain(USUAL)
        own = [self._plain(USUAL) for _ in range(THREADS)]
        sides: dict[str, list[Any]] = {
            "ours": [self.ours] * THREADS,
            "plain": [plain] * THREADS,
            "plain, each its own": own,
        }
        rates: dict[str, list[float]] = {side: [] for side in sides}
        wrong = 0
        for _ in range(2):
            for side, retrievers in sides.items():
                searches = [self.searching(retriever) for retriever in retrievers]
                rate, bad = self._rate(searches, calls if side == "ours" else calls // 2)
                rates[side].append(rate)
                wrong += bad if side == "plain" else 0
        for retriever in (plain, *own):
            retriever.document_store.close()
        best = {side: max(values) for side, values in rates.items()}
        return Finding(
            row="threads",
            what=f"{name}: questions per second with 8 threads against the plain store",
            value=best["ours"] / best["plain"],
            unit="x",
            at_least=3.5,
            beside={
                **{f"{side} per second": round(rate) for side, rate in best.items()},
                "plain store's errors": wrong,
            },
            note="A plain store shares one cursor between its threads; eight of them, one for each, are shown beside.",
        )

    def searching(self, retriever: Any) -> Search:
        """Ask a retriever; returns ids."""

        def search(n: int) -> list[str]:
            return [d.id for d in retriever.run(query_embedding=self.questions[n % len(self.questions)])["documents"]]

        return search

    def recall(self, search: Search) -> float:
        """The share of the ten nearest that a search finds."""
        return float(np.mean([len(wanted & set(search(n))) / TOP_K for n, wanted in enumerate(self.nearest)]))

    def _ours(self, ef_search: int) -> Any:
        store = view_of(self.server, hnsw_ef_search=ef_search)
        return PgvectorEmbeddingRetriever(document_store=store, top_k=TOP_K)

    def _plain(self, ef_search: int) -> Any:
        store = plain_store(self.server, table=TABLE, shares_ours=True, hnsw_ef_search=ef_search)
        return PgvectorEmbeddingRetriever(document_store=store, top_k=TOP_K)

    def _equal_in_recall(self, wanted: float) -> tuple[int, Any, float]:
        for ef_search in EF_SEARCH:
            retriever = self._plain(ef_search)
            recall = self.recall(self.searching(retriever))
            if recall >= wanted - SAME_RECALL:
                break
            retriever.document_store.close()
        return ef_search, retriever, recall

    def _rate(self, searches: list[Search], calls: int) -> tuple[float, int]:
        """Answers per second, and how many calls raised or gave no answer."""

        def ask(n: int) -> bool:
            try:
                return len(searches[n % len(searches)](n)) == TOP_K
            except Exception:
                return False

        with ThreadPoolExecutor(len(searches)) as pool:
            list(pool.map(ask, range(len(searches) * 2)))
            began = time.perf_counter()
            answered = sum(pool.map(ask, range(calls)))
            return answered / (time.perf_counter() - began), calls - answered
