"""
One table, partitions, a table per tenant; full and half precision, IVFFlat, partial: what each costs and finds.

    python -m benchmarks.index_variants [--rows 20000] [--dimension 384] [--tenants 8] [--queries 100] [--recall 0.99]

All layouts hold the same documents, whose vectors are clusters, and are searched through the store as the application does.
A layout's searches run with the smallest ef_search that finds the recall asked for on these queries, so that times compare at
that recall or above. The tenants' documents are an eighth each: in tables of their own, or told apart by a filter.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from haystack import Document
from haystack.utils import Secret

from benchmarks.corpora import clusters
from benchmarks.machine import description
from benchmarks.measuring import p50, p95, say, seconds
from benchmarks.stores import benchmark_server
from database.bulk_load import load_documents
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer
from database.index_definition import Wanted
from database.index_recall import recall
from database.models import EmbeddingModel, add_model, drop_model
from database.reindex import reindex
from database.tenancy import create_tenant, drop_tenant, schema_of

TOP_K = 10
EF_SEARCHES = (20, 40, 60, 100, 150, 200, 300, 400, 600, 1000)
WRITES = 500
"""Documents that are written, and searched for, after the build."""

Filter = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """
    What was measured of one layout.

    :param build: Seconds to rebuild its index, or all of its indexes, concurrently.
    :param size: MB of them.
    :param insert: Documents a second, in batches of a hundred, into the table with its index.
    :param ef_search: The smallest that finds enough; `None` if none does, and then the times are of the largest.
    """

    layout: str
    build: float
    size: float
    insert: float
    ef_search: int | None
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, kw_only=True)
class Data:
    """
    The same documents for all layouts.

    :param tenants: Tenant n has each document whose number leaves n.
    """

    vectors: np.ndarray
    queries: np.ndarray
    tenants: int

    def documents(self, tenant: int | None = None) -> Iterator[Document]:
        """All documents, or those of a tenant."""
        for number, vector in enumerate(self.vectors):
            if tenant is None or number % self.tenants == tenant:
                yield Document(
                    id=f"d{number}",
                    content=f"document {number}",
                    embedding=vector.tolist(),
                    meta={"tenant": f"t{number % self.tenants}"},
                )

    def fresh(self, count: int) -> list[Document]:
        """New documents near those that are there."""
        return [
            Document(id=f"n{n}", content="new", embedding=vector.tolist(), meta={"tenant": "t0"})
            for n, vector in enumerate(clusters(count, dimension=self.vectors.shape[1], seed=99))
        ]


def store_of(
    server: EmbeddedServer, model: EmbeddingModel, *, ef_search: int = 200, exact: bool = False, schema: str = "public"
) -> SynapseDocumentStore:
    """A model's store, as the owner."""
    return SynapseDocumentStore(
        connection_string=Secret.from_token(server.conninfo(owner=True)),
        schema_name=schema,
        table_name=model.table_name,
        embedding_dimension=model.dimension,
        search_strategy="exact_nearest_neighbor" if exact else "hnsw",
        hnsw_ef_search=ef_search,
    )


def at_recall(
    stores: Callable[..., SynapseDocumentStore],
    queries: Sequence[list[float]],
    *,
    wanted: float,
    filters: Filter | None,
) -> tuple[int | None, float, list[float]]:
    """The smallest ef_search that finds enough, what it finds, and its times in milliseconds."""
    exact = stores(exact=True)
    truths = [exact.dense_search(query, filters=filters, top_k=TOP_K) for query in queries]
    found, times = 0.0, list[float]()
    for ef_search in EF_SEARCHES:
        store = stores(ef_search=ef_search)
        for query in queries[:5]:
            store.dense_search(query, filters=filters, top_k=TOP_K)
        times, shares = [], []
        for query, truth in zip(queries, truths, strict=True):
            began = time.perf_counter()
            back = store.dense_search(query, filters=filters, top_k=TOP_K)
            times.append((time.perf_counter() - began) * 1000)
            shares.append(recall(back, truth))
        found = float(np.mean(shares))
        if found >= wanted:
            return ef_search, found, times
    return None, found, times


def measure(
    layout: str,
    stores: Callable[..., SynapseDocumentStore],
    data: Data,
    *,
    wanted: float,
    builds: Callable[[], tuple[float, int]],
    filters: Filter | None = None,
) -> Measured:
    """Build, search and write in one layout."""
    say(layout)
    build, size = builds()
    queries = [query.tolist() for query in data.queries]
    ef_search, found, times = at_recall(stores, queries, wanted=wanted, filters=filters)
    store, fresh = stores(), data.fresh(WRITES)
    written = seconds(lambda: [store.write_documents(fresh[at : at + 100]) for at in range(0, WRITES, 100)])
    store.delete_documents([document.id for document in fresh])
    return Measured(
        layout=layout,
        build=round(build, 1),
        size=round(size / 2**20, 1),
        insert=round(WRITES / written),
        ef_search=ef_search,
        recall=round(found, 4),
        p50_ms=round(p50(times), 2),
        p95_ms=round(p95(times), 2),
    )


def rebuilt(owner: Database, table: str, wanted: Wanted) -> tuple[float, int]:
    """Seconds and bytes of an index that is made so."""
    done = reindex(owner, table, wanted=wanted, settle=0)
    return done.seconds, done.bytes_after


def run(server: EmbeddedServer, data: Data, *, wanted: float) -> tuple[list[Measured], dict[str, float]]:
    """All layouts in turn; returns what was measured, and the seconds that it takes to drop a tenant."""
    owner = Database(server.conninfo(owner=True))
    dimension = data.vectors.shape[1]
    one = EmbeddingModel.named("bench/one", dimension=dimension)
    cut = EmbeddingModel.named("bench/cut", dimension=dimension, partitions=8)
    own = EmbeddingModel.named("bench/own", dimension=dimension)
    mine = {"field": "meta.tenant", "operator": "==", "value": "t0"}
    found, dropped = [], {}
    for model in (one, cut):
        add_model(owner, model)
        load_documents(owner, model, data.documents())
    tenants = [f"bench{number}" for number in range(data.tenants)]

    def whole(model: EmbeddingModel) -> Callable[..., SynapseDocumentStore]:
        return lambda **options: store_of(server, model, **options)

    kinds = {
        "one table, HNSW": Wanted(half=False, method="hnsw"),
        "one table, HNSW in half precision": Wanted(half=True, method="hnsw"),
        "one table, IVFFlat": Wanted(half=False, method="ivfflat"),
        "one table, HNSW, m 16": Wanted(half=False, method="hnsw", m=16, ef_construction=64),
    }
    for layout, kind in kinds.items():
        found.append(
            measure(layout, whole(one), data, wanted=wanted, builds=lambda k=kind: rebuilt(owner, one.table_name, k))  # type: ignore[misc]
        )
    rebuilt(owner, one.table_name, Wanted(half=False, method="hnsw", m=8, ef_construction=48))
    found.append(
        measure(
            "8 partitions, HNSW",
            whole(cut),
            data,
            wanted=wanted,
            builds=lambda: rebuilt(owner, cut.table_name, Wanted()),
        )
    )
    found.append(
        measure(
            "one tenant of all, by a filter", whole(one), data, wanted=wanted, builds=lambda: (0.0, 0), filters=mine
        )
    )
    partial = Wanted(filters=mine)
    found.append(
        measure(
            "one tenant of all, by a partial index",
            whole(one),
            data,
            wanted=wanted,
            filters=mine,
            builds=lambda: rebuilt(owner, one.table_name, partial),
        )
    )
    dropped["rows of one table, deleted by a filter"] = seconds(lambda: whole(one)().delete_by_filter(mine))
    drop_model(owner, cut.name)
    drop_model(owner, one.name)
    add_model(owner, own)
    for number, tenant in enumerate(tenants):
        create_tenant(owner, tenant)
        load_documents(owner.for_tenant(tenant), own, data.documents(number))

    def of_first(**options: Any) -> SynapseDocumentStore:
        return store_of(server, own, schema=schema_of(tenants[0]), **options)

    def each() -> tuple[float, int]:
        built = [rebuilt(owner.for_tenant(tenant), own.table_name, Wanted()) for tenant in tenants]
        return sum(took for took, _ in built), sum(size for _, size in built)

    found.append(measure("a table per tenant: one of them", of_first, data, wanted=wanted, builds=each))
    dropped["a tenant's own tables"] = seconds(drop_tenant, owner, tenants[0])
    for tenant in tenants[1:]:
        drop_tenant(owner, tenant)
    drop_model(owner, own.name)
    owner.close()
    return found, {name: round(took, 2) for name, took in dropped.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--tenants", type=int, default=8)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.99, help="at which times are compared")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output as well")
    arguments = parser.parse_args()
    vectors = clusters(arguments.rows + arguments.queries, dimension=arguments.dimension)
    data = Data(vectors=vectors[: arguments.rows], queries=vectors[arguments.rows :], tenants=arguments.tenants)
    with benchmark_server() as server:
        found, dropped = run(server, data, wanted=arguments.recall)
    print("| layout | build, s | index, MB | inserts/s | ef_search | recall@10 | p50, ms | p95, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for one in found:
        print("| " + " | ".join(str(value) for value in asdict(one).values()) + " |")
    for name, took in dropped.items():
        print(f"dropping {arguments.rows // arguments.tenants:,} documents of a tenant, {name}: {took} s")
    if arguments.json:
        json.dump({"found": [asdict(one) for one in found], "dropped": dropped, **description()}, sys.stdout)


if __name__ == "__main__":
    main()
