"""
Writing, beside the plain store and beside COPY: 20,000 x 384 into an empty table, and 10,000 into one that is searched.

An empty table is loaded with its indexes built afterwards, which is what migrations and new models do. The plain store writes
with its HNSW index live; it has no other way. Raw COPY is the least that any program can do: binary COPY of the same rows into
the same columns, then the primary key and the HNSW index, and with the GIN index for keyword search that the plain layout has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from benchmarks.corpora import clusters, zipf_texts
from benchmarks.measuring import Finding, Options, say, seconds
from benchmarks.stores import PLAIN_TABLE, benchmark_server, bulk_write, our_store, owner, plain_store, settle
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer

_RAW = """
    DROP TABLE IF EXISTS raw;
    CREATE TABLE raw (id varchar(128), embedding vector(384), content text, blob_data bytea, blob_meta jsonb,
                      blob_mime_type varchar(255), meta jsonb);
    ALTER TABLE raw ALTER COLUMN embedding SET STORAGE PLAIN
"""
_COPY = "COPY raw (id, embedding, content, meta) FROM STDIN (FORMAT BINARY)"
_RAW_HNSW = "ALTER TABLE raw ADD PRIMARY KEY (id); CREATE INDEX ON raw USING hnsw (embedding vector_cosine_ops)"
_RAW_KEYWORDS = "CREATE INDEX ON raw USING gin (to_tsvector('english', content))"


def documents(count: int, *, first: int = 0, words: int = 100) -> list[Document]:
    """Chunks of 100 words with clustered embeddings."""
    vectors = clusters(count, seed=first + 1)
    texts = zipf_texts(count, words=words, seed=first + 1)
    return [
        Document(
            id=f"row {first + n}",
            content=text,
            embedding=vector.tolist(),
            meta={"source": f"file {n % 100}.txt", "position": n, "language": "en", "year": 2000 + n % 25},
        )
        for n, (vector, text) in enumerate(zip(vectors, texts, strict=True))
    ]


def run_bulk(options: Options) -> list[Finding]:
    """Load an empty table, each way three times in turn (the plain store once, which takes as long as all others)."""
    rows = documents(options.size(20_000, 400))
    with benchmark_server() as server:
        ours: list[dict[str, float]] = []
        raw: list[tuple[float, float]] = []
        plain = 0.0
        for turn in range(options.size(3, 1)):
            raw.append(raw_copy(server, rows))
            if turn == 1 or options.quick:
                plain = plain_write(server, rows)
            with our_store(server, table="documents_bulk") as store:
                ours.append(_steps(store, rows))
            say(
                f"ours {ours[-1]['s']:.1f} s, raw COPY {raw[-1][0]:.1f} s with HNSW, {raw[-1][1]:.1f} s with both indexes"
            )
    steps, best_hnsw, best_both = (
        min(ours, key=lambda found: found["s"]),
        min(first for first, _ in raw),
        min(both for _, both in raw),
    )
    best = steps["s"]
    beside = {
        "ours s": best,
        **{f"of which {step}": taken for step, taken in steps.items() if step != "s"},
        "plain store s": plain,
        "COPY + HNSW s": best_hnsw,
        "COPY + HNSW + keyword index s": best_both,
    }
    what = f"{len(rows):,} x 384, bulk write and index:"
    return [
        Finding(
            row="bulk",
            what=f"{what} times faster than the plain store",
            value=plain / best,
            unit="x",
            at_least=6,
            beside=beside,
        ),
        Finding(
            row="bulk",
            what=f"{what} against raw COPY and the same indexes",
            value=best / best_both,
            unit="x",
            at_most=1.6,
            beside={**beside, "against COPY + HNSW alone": best / best_hnsw},
        ),
    ]


def run_served(options: Options) -> list[Finding]:
    """Write into tables that hold 10,000 chunks already, all indexes live, twice in turn."""
    size = options.size(10_000, 200)
    with benchmark_server() as server, our_store(server, table="documents_served") as ours:
        plain = plain_store(server)
        start = documents(size)
        bulk_write(ours, start)
        plain.count_documents()  # makes the table and its indexes
        _copied(server, PLAIN_TABLE, start)
        for table in (ours.table_name, PLAIN_TABLE):
            settle(server, table)
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for turn in range(2):
            batch = documents(size, first=(turn + 1) * size)
            stores: list[tuple[str, Callable[..., int]]] = [
                ("ours", ours.write_documents),
                ("plain", plain.write_documents),
            ]
            for side, write in stores if turn else reversed(stores):
                times[side].append(seconds(write, batch, DuplicatePolicy.OVERWRITE))
                say(f"{side} {size / times[side][-1]:.0f} a second")
        plain.close()
    ratio = sum(times["plain"]) / sum(times["ours"])
    rates = {f"{side} per second": round(2 * size / sum(values)) for side, values in times.items()}
    return [
        Finding(
            row="served",
            what=f"write_documents of {size:,} into a served table, HNSW live: times faster than the plain store",
            value=ratio,
            unit="x",
            at_least=2.5,
            beside=rates,
        )
    ]


def _steps(store: SynapseDocumentStore, rows: list[Document]) -> dict[str, float]:
    """Seconds of a bulk load, in all (`s`) and of each step: rows, keywords, the indexes by their names."""
    began = last = time.perf_counter()
    current, taken = "rows", dict[str, float]()

    def progress(step: str) -> None:
        nonlocal current, last
        if step != current:
            taken[current], last, current = time.perf_counter() - last, time.perf_counter(), step

    bulk_write(store, rows, progress)
    ended = time.perf_counter()
    return {**taken, current: ended - last, "s": ended - began}


def plain_write(server: EmbeddedServer, rows: list[Document]) -> float:
    """Seconds that the plain store takes to write to a new table, with its indexes."""
    store = plain_store(server)
    store.count_documents()  # makes the table and its indexes
    taken = seconds(store.write_documents, rows)
    store.delete_table()
    store.close()
    say(f"plain store {taken:.1f} s")
    return taken


def raw_copy(server: EmbeddedServer, rows: list[Document]) -> tuple[float, float]:
    """Seconds of COPY with primary key and HNSW index, and of these with the keyword index."""
    with owner(server) as connection:
        connection.execute(_RAW)
        register_vector(connection)
        began = time.perf_counter()
        _copy(connection, _COPY, rows)
        connection.execute(_RAW_HNSW)
        hnsw = time.perf_counter() - began
        connection.execute(_RAW_KEYWORDS)
        both = time.perf_counter() - began
        connection.execute("DROP TABLE raw")
    return hnsw, both


def _copied(server: EmbeddedServer, table: str, rows: list[Document]) -> None:
    with owner(server) as connection:
        register_vector(connection)
        _copy(connection, _COPY.replace("raw", table, 1), rows)


def _copy(connection: psycopg.Connection[Any], statement: str, rows: list[Document]) -> None:
    with connection.cursor().copy(statement) as copy:  # type: ignore[arg-type]  # of our own words
        copy.set_types(["varchar", "vector", "text", "jsonb"])
        for row in _values(rows):
            copy.write_row(row)


def _values(rows: list[Document]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield row.id, Vector(row.embedding or []), row.content, Jsonb(row.meta)
