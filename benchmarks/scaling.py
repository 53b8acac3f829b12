"""
What a table costs at 10^4 to 10^6 chunks: loading, index builds, bytes on disk, searches, live inserts; for docs/scaling.md.

    python -m benchmarks.scaling --scifact FOLDER [--rows 10000 100000 1000000] [--json FILE]

The data: texts of eight random SciFact sentences each (about 1 KB), and as embeddings mixtures of two sentences' by the
default model, so that they lie as a model's do, and not as noise. Recall is against NumPy's exact answer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document

from benchmarks.corpora import Vectors, embedded, scifact, unit
from benchmarks.machine import description, peak_of
from benchmarks.measuring import Options, in_turn, p50, p95, say
from benchmarks.stores import BATCH, TABLE, benchmark_server, bulk_write, our_store, owner, settle
from database.document_store import SynapseDocumentStore

ROWS = (10_000, 100_000, 1_000_000)
SENTENCES = 50_000
TOP_K = 10
QUESTIONS = 100
INSERTED, TOGETHER = 2_000, 100
TENTH = {"field": "meta.shelf", "operator": "==", "value": 3}
PARTS = """
    SELECT c.relname AS name, pg_total_relation_size(c.oid) - pg_indexes_size(c.oid) AS size FROM pg_class c
     WHERE c.relkind = 'r' AND starts_with(c.relname, %(table)s) AND c.relnamespace = 'public'::regnamespace
     UNION ALL
    SELECT i.relname, pg_relation_size(i.oid) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
     WHERE starts_with(x.indrelid::regclass::text, %(table)s)"""


class Corpus:
    """Documents, made as they are asked for, the same each time."""

    def __init__(self, options: Options) -> None:
        self._collection = scifact(options.scifact)
        self._sentences = embedded(self._collection.sentences(SENTENCES), name="sentences", options=options)

    def vectors(self, first: int, count: int) -> Vectors:
        """Embeddings of the documents from a number on; each batch has a seed of its own."""
        numbers = np.random.default_rng(1_000 + first // BATCH)
        one, other = (self._sentences[numbers.integers(len(self._sentences), size=count)] for _ in range(2))
        share = numbers.uniform(0.5, 1.0, size=(count, 1)).astype(np.float32)
        return unit(share * one + (1 - share) * other)

    def documents(self, rows: int) -> Iterator[Document]:
        """That many documents."""
        texts = self._collection.recombined(rows)
        for first in range(0, rows, BATCH):
            vectors = self.vectors(first, min(BATCH, rows - first))
            for n, (vector, text) in enumerate(zip(vectors, texts, strict=False), first):
                meta = {"source": f"file {n // 20}.txt", "position": n % 20, "shelf": n % 10}
                yield Document(id=f"row {n}", content=text, embedding=vector.tolist(), meta=meta)

    def texts(self, count: int, *, seed: int) -> list[str]:
        """Texts that no document has."""
        return list(self._collection.recombined(count, seed=seed))

    def recall(self, answers: list[list[Document]], questions: Vectors, rows: int) -> float:
        """The share of the nearest that came back, on average."""
        best = np.full((len(questions), TOP_K), -2.0, dtype=np.float32)
        for first in range(0, rows, BATCH):
            found = questions @ self.vectors(first, min(BATCH, rows - first)).T
            best = -np.sort(-np.hstack([best, found]), axis=1)[:, :TOP_K]
        shares = [
            sum((document.score or 0.0) >= float(row[-1]) - 1e-6 for document in answer) / TOP_K
            for answer, row in zip(answers, best, strict=True)
        ]
        return round(float(np.mean(shares)), 4)


def measured(rows: int, corpus: Corpus) -> dict[str, Any]:
    """All figures of one size, on a server of its own."""
    with benchmark_server() as server, our_store(server) as store, peak_of(server.data) as peak:
        began = time.perf_counter()
        steps: dict[str, float] = {}
        bulk_write(store, corpus.documents(rows), lambda step: steps.update({step: time.perf_counter() - began}))
        loaded = time.perf_counter() - began
        settle(server, TABLE)
        with owner(server) as connection:
            sizes = dict(connection.execute(PARTS, {"table": TABLE}).fetchall())
        found = {
            "rows": rows,
            "load_s": round(loaded, 1),
            "steps_s": {step: round(at, 1) for step, at in steps.items()},
            "bytes_a_row": {name.removeprefix(TABLE): round(size / rows) for name, size in sorted(sizes.items())},
            **searched(store, corpus, rows),
            "inserts_a_second": inserted(store, corpus),
        }
    return {**found, "server_mib": round(peak.server), "client_mib": round(peak.client)}


def searched(store: SynapseDocumentStore, corpus: Corpus, rows: int) -> dict[str, Any]:
    """Times of four kinds of search, in turn, and the recall of the two that go by embedding alone."""
    vectors = corpus.vectors(10**9, QUESTIONS)
    asked = [vector.tolist() for vector in vectors]
    words = [" ".join(text.split()[:8]) for text in corpus.texts(QUESTIONS, seed=2)]
    times, found = in_turn(
        {
            "dense": lambda n: store.dense_search(asked[n], top_k=TOP_K),
            "dense, a tenth passes": lambda n: store.dense_search(asked[n], filters=TENTH, top_k=TOP_K),
            "words": lambda n: store.keyword_search(words[n], top_k=TOP_K),
            "both": lambda n: store.hybrid_search(words[n], asked[n], top_k=TOP_K),
        },
        calls=QUESTIONS,
        warm_up=20,
    )
    return {
        "recall@10": corpus.recall(found["dense"], vectors, rows),
        "ms": {name: {"p50": round(p50(some), 2), "p95": round(p95(some), 2)} for name, some in times.items()},
    }


def inserted(store: SynapseDocumentStore, corpus: Corpus) -> int:
    """Documents a second that go into the table while its indexes stand, a hundred at a time."""
    vectors = corpus.vectors(2 * 10**9, INSERTED)
    texts = corpus.texts(INSERTED, seed=3)
    documents = [
        Document(id=f"later {n}", content=text, embedding=vector.tolist(), meta={"shelf": n % 10})
        for n, (vector, text) in enumerate(zip(vectors, texts, strict=True))
    ]
    began = time.perf_counter()
    for first in range(0, INSERTED, TOGETHER):
        store.write_documents(documents[first : first + TOGETHER])
    return round(INSERTED / (time.perf_counter() - began))


def main() -> None:
    """Measure every size, and print each as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--cache", type=Path, default=Options.cache)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    corpus = Corpus(Options(scifact=given.scifact, cache=given.cache))
    report: dict[str, Any] = {**description(), "sizes": []}
    for rows in given.rows:
        report["sizes"].append(measured(rows, corpus))
        say(json.dumps(report["sizes"][-1]))
        if given.json:
            given.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
