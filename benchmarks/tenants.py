"""
What tenants cost, at 2, 100 and 2,000 of them, as the application's role: searches, their recall, room, and a backend's memory.

    python -m benchmarks.tenants [--tenants 2 100 2000] [--documents 200] [--large 20000] [--searches 300]

Each tenant has the same number of small documents, and the first one many: searches are compared with those of the owner on
the same tables in the same run, by turns, which take no role and meet no policy.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import psycopg
from haystack import Document
from haystack.utils import Secret
from psycopg.sql import SQL, Identifier

from benchmarks.measuring import p50, p95
from benchmarks.stores import DIMENSION, benchmark_server
from database.bulk_load import load_documents
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer
from database.tenancy import create_tenant, schema_of

SHARES = {"one half": 2, "one in 20": 20, "one in 500": 500}
"""How many of a tenant's documents pass a filter."""


def store_of(database: Database, tenant: str, **options: Any) -> SynapseDocumentStore:
    """A store of a tenant, of whoever connects."""
    return SynapseDocumentStore(
        connection_string=Secret.from_token(database.conninfo), schema_name=schema_of(tenant), **options
    )


def documents(count: int, *, tenant: int) -> list[Document]:
    """Noise around a few centres, so that there are neighbours; `pass` says which share of a filter a document is in."""
    rng = np.random.default_rng(tenant)
    centres = rng.normal(size=(20, DIMENSION))
    vectors = centres[rng.integers(0, 20, count)] + rng.normal(size=(count, DIMENSION))
    shuffled = rng.permutation(count)
    return [
        Document(
            id=str(n),
            content=f"text {n} of tenant{tenant} word{n % 97}",
            embedding=vectors[n].astype(np.float32).tolist(),
            meta={"number": int(shuffled[n])},
        )
        for n in range(count)
    ]


def by_turns(
    first: Callable[[], object], second: Callable[[], object], *, rounds: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of each, measured in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = [(first, times[0]), (second, times[1])]
        for action, kept in order if number % 2 else reversed(order):
            began = time.perf_counter()
            action(number)
            kept.append((time.perf_counter() - began) * 1000)
    return times


def searches(
    tenant: SynapseDocumentStore, owner: SynapseDocumentStore, *, count: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind of search in a tenant, beside the owner's, and what the tenant's find of the ten nearest."""
    rng = np.random.default_rng(7)
    exact = SynapseDocumentStore(
        connection_string=owner.connection_string,
        schema_name=owner.schema_name,
        search_strategy="exact_nearest_neighbor",
    )
    asked = [found.embedding or [] for found in owner.filter_documents()[:50]]
    queries = [(np.asarray(one) + rng.normal(size=DIMENSION) * 0.5).tolist() for one in asked]
    kinds: dict[str, dict[str, Any] | None] = {"dense": None}
    for share, part in SHARES.items():
        kinds[f"dense, {share} passes"] = {"field": "meta.number", "operator": "<", "value": max(count // part, 1)}
    table = {}
    for kind, filters in kinds.items():
        times = by_turns(
            lambda number, f=filters: tenant.dense_search(queries[number % len(queries)], filters=f),  # type: ignore[misc]
            lambda number, f=filters: owner.dense_search(queries[number % len(queries)], filters=f),  # type: ignore[misc]
            rounds=rounds,
        )
        recall = []
        for query in queries:
            nearest = {found.id for found in exact.dense_search(query, filters=filters)}
            found = {found.id for found in tenant.dense_search(query, filters=filters)}
            recall.append(len(found & nearest) / max(len(nearest), 1))
        table[kind] = _row(*times) | {"recall@10": float(np.mean(recall))}
    table["keywords"] = _row(
        *by_turns(
            lambda number: tenant.keyword_search(f"text word{number % 97}"),
            lambda number: owner.keyword_search(f"text word{number % 97}"),
            rounds=rounds,
        )
    )
    return table


def _row(mine: list[float], theirs: list[float]) -> dict[str, float]:
    return {"p50_ms": p50(mine), "p95_ms": p95(mine), "owner_p50_ms": p50(theirs), "ratio": p50(mine) / p50(theirs)}


def backend_memory(application: str, tenants: list[str], *, steps: tuple[int, ...]) -> dict[int, float]:
    """MB that one connection's backend has to itself after it has searched for so many tenants."""
    query = np.random.default_rng(0).normal(size=DIMENSION).astype(np.float32).tolist()
    found = {}
    with psycopg.connect(application, autocommit=True) as connection:
        for done, tenant in enumerate(tenants, start=1):
            with connection.transaction():
                connection.execute("SELECT set_config('role', %s, true)", (f"synapse_tenant_{tenant}",))
                table = Identifier(schema_of(tenant), "documents_all_minilm_l6_v2")
                connection.execute(
                    SQL("SELECT id FROM {} ORDER BY embedding <=> %s::vector LIMIT 5").format(table), (str(query),)
                )
            if done in steps:
                found[done] = psutil.Process(connection.info.backend_pid).memory_full_info().uss / 1e6
    return found


def measure(
    server: EmbeddedServer, tenants: int, *, before: int, small: int, large: int, rounds: int
) -> dict[str, Any]:
    """Make as many tenants as are missing, and measure."""
    owner = Database(server.conninfo(owner=True))
    application = Database(server.conninfo(), server=server)
    creating, names = [], [f"t{n}" for n in range(tenants)]
    for number in range(before, tenants):
        began = time.perf_counter()
        create_tenant(owner, names[number])
        creating.append((time.perf_counter() - began) * 1000)
        count = small if number else large
        load_documents(owner, store_of(owner, names[number]), documents(count, tenant=number))
    with psycopg.connect(owner.conninfo, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        size = connection.execute(
            "SELECT pg_database_size(current_database()), (SELECT count(*) FROM pg_class)"
        ).fetchone()
    last = names[-1]
    result = {
        "tenants": tenants,
        "create_p50_ms": p50(creating),
        "create_p95_ms": p95(creating),
        "database_mb": (size or (0,))[0] / 1e6,
        "relations": (size or (0, 0))[1],
        "first": searches(store_of(application, names[0]), store_of(owner, names[0]), count=large, rounds=rounds),
        "last": searches(store_of(application, last), store_of(owner, last), count=small, rounds=rounds),
        "backend_mb": backend_memory(application.conninfo, names, steps=(1, 100, tenants)),
    }
    owner.close()
    application.close()
    return result


def main() -> None:
    """Measure at each number of tenants, on one server; print a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[2, 100, 2000])
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--searches", type=int, default=300)
    options = parser.parse_args()
    with benchmark_server() as server:
        before = 0
        for tenants in sorted(options.tenants):
            found = measure(
                server,
                tenants,
                before=before,
                small=options.documents,
                large=options.large,
                rounds=options.searches,
            )
            print(json.dumps(found), flush=True)
            before = tenants


if __name__ == "__main__":
    main()
