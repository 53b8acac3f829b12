"""
How long the store's searches take, beside the plain store's, on one table of 10,000 chunks.

    python -m benchmarks.store_latency [--chunks 10000] [--queries 200] [--home FOLDER]

Texts are of words as frequent as English ones (Zipf), embeddings lie in clusters, the server is an embedded one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer

DIMENSION, TABLE = 384, "documents_benchmark"
Search = Callable[[int], object]


def chunks(count: int, random: np.random.Generator) -> list[Document]:
    centres = random.normal(size=(100, DIMENSION))
    words = np.minimum(random.zipf(1.3, size=(count, 160)), 30_000)
    embeddings = centres[random.integers(100, size=count)] + random.normal(size=(count, DIMENSION)) * 0.7
    return [
        Document(
            id=f"chunk {n}",
            content=" ".join(f"w{word}" for word in words[n]),
            embedding=(embeddings[n] / np.linalg.norm(embeddings[n])).tolist(),
            meta={"n": n, "percent": n % 100, "language": "en"},
        )
        for n in range(count)
    ]


def timed(name: str, search: Search, *, queries: int) -> None:
    search(0)
    times = []
    for n in range(queries):
        start = time.perf_counter()
        search(n)
        times.append((time.perf_counter() - start) * 1000)
    times.sort()
    print(f"{name:40} p50 {statistics.median(times):7.2f} ms   p95 {times[int(len(times) * 0.95)]:7.2f} ms", flush=True)


def throughput(name: str, search: Search, *, queries: int, threads: int = 8) -> None:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, range(queries)))
    print(f"{name:40} {queries / (time.perf_counter() - start):7.0f} a second, {threads} threads", flush=True)


def compare(
    ours: SynapseDocumentStore, plain: PgvectorDocumentStore, documents: list[Document], *, queries: int
) -> None:
    def embedding(n: int) -> list[float]:
        return documents[n * 7 % len(documents)].embedding or []

    def question(n: int) -> str:
        return " ".join((documents[n * 11 % len(documents)].content or "").split()[:12])

    rare: dict[str, Any] = {"field": "meta.percent", "operator": "==", "value": 7}
    half: dict[str, Any] = {"field": "meta.percent", "operator": "<", "value": 50}
    timed("dense, 10", lambda n: ours.dense_search(embedding(n)), queries=queries)
    timed("dense, 10, plain store", lambda n: plain._embedding_retrieval(embedding(n)), queries=queries)
    timed("dense, 100", lambda n: ours.dense_search(embedding(n), top_k=100), queries=queries)
    timed("dense, 10, 1 % pass", lambda n: ours.dense_search(embedding(n), filters=rare), queries=queries)
    timed("dense, 10, 50 % pass", lambda n: ours.dense_search(embedding(n), filters=half), queries=queries)
    timed("keyword, 10, 12 words", lambda n: ours.keyword_search(question(n)), queries=queries)
    timed("hybrid, 10, 12 words", lambda n: ours.hybrid_search(question(n), embedding(n)), queries=queries)
    throughput("dense, 10", lambda n: ours.dense_search(embedding(n)), queries=4 * queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--home", type=Path, default=None, help="home folder of the embedded server; kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="synapse-benchmark-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(arguments.home or Path(folder) / "home")
        server.start()
        secret = Secret.from_token(server.conninfo(owner=True))
        ours = SynapseDocumentStore(connection_string=secret, table_name=TABLE)
        ours.create_table()
        ours.delete_all_documents()
        documents = chunks(arguments.chunks, np.random.default_rng(0))
        start = time.perf_counter()
        ours.write_documents(documents)
        print(
            f"{'written, indexes live':40} {len(documents) / (time.perf_counter() - start):7.0f} a second", flush=True
        )
        with psycopg.connect(server.conninfo(owner=True), autocommit=True) as connection:
            connection.execute(f"VACUUM ANALYZE {TABLE}")
        plain = PgvectorDocumentStore(
            connection_string=secret,
            table_name=TABLE,
            embedding_dimension=DIMENSION,
            search_strategy="hnsw",
            hnsw_index_name=f"{TABLE}_hnsw_index",
            keyword_index_name=f"{TABLE}_keyword_index",
        )
        compare(ours, plain, documents, queries=arguments.queries)
        ours.delete_table()
        ours.close()
        plain.close()
        server.stop()


if __name__ == "__main__":
    main()
