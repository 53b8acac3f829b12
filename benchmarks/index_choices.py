"""
What each index of pgvector costs and finds: build time, size, recall@10 and p50, at 384, 1,536 and 3,072 dimensions.

    python -m benchmarks.index_choices [--rows 20000] [--dimensions 384 1536 3072] [--embeddings FILE.npz] [--home FOLDER]

FILE.npz holds `documents` and `queries`, rows of real embeddings; without it they are clusters, on which every index looks good.
Embeddings of more dimensions than the file's are made from it: multiplied by a random matrix with orthogonal rows, which keeps
every angle, and a little noise in the new directions (a tenth of the length), as no model of that size comes with the program.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector

from database.embedded import EmbeddedServer
from database.index_build import graph_bytes

TOP_K, NOISE = 10, 0.1
REPEATS = 5
"""Times that each query is run; the fastest counts, as another program may take the processor away meanwhile."""

DISTANCE = "SELECT id FROM choices ORDER BY embedding <=> %(query)b LIMIT 10"
HALF = "SELECT id FROM choices ORDER BY embedding::halfvec({d}) <=> %(query)b::halfvec({d}) LIMIT 10"
RESCORED = """
    WITH near AS MATERIALIZED (
        SELECT id, embedding FROM choices
         ORDER BY binary_quantize(embedding)::bit({d}) <~> binary_quantize(%(query)b::{type}({d})) LIMIT {candidates}
    )
    SELECT id FROM near ORDER BY embedding <=> %(query)b LIMIT 10"""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An index: how it is made, how it is asked, and the settings to try."""

    name: str
    index: str
    query: str
    settings: tuple[str, ...]


def choices(dimension: int, *, column: str, rows: int) -> list[Choice]:
    searches = ("hnsw.ef_search = 40", "hnsw.ef_search = 100", "hnsw.ef_search = 200")
    probes = tuple(f"ivfflat.probes = {count}" for count in (5, 15, 40))
    found = [Choice(name="none", index="", query=DISTANCE, settings=("enable_indexscan = off",))]
    for m, ef_construction in ((16, 64), (8, 48), (12, 32)):
        found.append(
            Choice(
                name=f"HNSW, {column}, m {m}, ef_construction {ef_construction}",
                index=f"hnsw (embedding {column}_cosine_ops) WITH (m = {m}, ef_construction = {ef_construction})",
                query=DISTANCE,
                settings=searches,
            )
        )
    if column == "vector":
        found.append(
            Choice(
                name="HNSW, halfvec, m 16, ef_construction 64",
                index=f"hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops)",
                query=HALF.format(d=dimension),
                settings=searches,
            )
        )
    for candidates in (40, 200):
        found.append(
            Choice(
                name=f"HNSW, bits, the best {candidates} rescored",
                index=f"hnsw ((binary_quantize(embedding)::bit({dimension})) bit_hamming_ops)",
                query=RESCORED.format(d=dimension, type=column, candidates=candidates),
                settings=(f"hnsw.ef_search = {candidates}",),
            )
        )
    lists = max(rows // 200, 10)
    ivf = f"ivfflat (embedding {column}_cosine_ops) WITH (lists = {lists})"
    return [*found, Choice(name=f"IVFFlat, {lists} lists", index=ivf, query=DISTANCE, settings=probes)]


def embeddings(path: Path | None, *, rows: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    if path is not None:
        file = np.load(path)
        documents, asked = file["documents"], file["queries"]
        documents = documents[random.permutation(len(documents))[:rows]]
        asked = asked[random.permutation(len(asked))[:queries]]
    else:
        centres = random.normal(size=(200, 384))
        documents, asked = (
            centres[random.integers(200, size=count)] + random.normal(size=(count, 384)) for count in (rows, queries)
        )
    return unit(documents), unit(asked)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def widened(vectors: np.ndarray, *, dimension: int) -> np.ndarray:
    """The same angles in more dimensions, with some noise."""
    if dimension == vectors.shape[1]:
        return vectors
    random = np.random.default_rng(dimension)
    basis, _ = np.linalg.qr(random.normal(size=(dimension, vectors.shape[1])))
    noise = random.normal(size=(len(vectors), dimension)) * NOISE / dimension**0.5
    return unit(vectors @ basis.T + noise)


def measure(connection: psycopg.Connection, documents: np.ndarray, queries: np.ndarray, *, column: str) -> None:
    rows, dimension = documents.shape
    connection.execute("DROP TABLE IF EXISTS choices")
    connection.execute(f"CREATE TABLE choices (id integer, embedding {column}({dimension}))")
    if dimension * (4 if column == "vector" else 2) <= 4096:
        connection.execute("ALTER TABLE choices ALTER embedding SET STORAGE PLAIN")  # as in our tables
    kind = Vector if column == "vector" else HalfVector
    with connection.cursor().copy("COPY choices FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", column])
        for number, embedding in enumerate(documents):
            copy.write_row((number, kind(embedding)))
    connection.execute("ANALYZE choices")
    similarities = queries @ documents.T
    least = np.sort(similarities, axis=1)[:, -TOP_K] - 1e-4  # of two equally near, either is right
    for choice in choices(dimension, column=column, rows=rows):
        connection.execute("DROP INDEX IF EXISTS choice")
        needed = graph_bytes(rows=rows, dimension=dimension, vector_type=column, definition=choice.index)
        connection.execute(f"SET maintenance_work_mem = '{needed // 1024}kB'")
        start = time.perf_counter()
        if choice.index:
            connection.execute(f"CREATE INDEX choice ON choices USING {choice.index}")
        built = time.perf_counter() - start
        (size,) = connection.execute("SELECT coalesce(pg_relation_size(to_regclass('choice')), 0)").fetchone() or (0,)
        for setting in choice.settings:
            connection.execute("RESET ALL")
            connection.execute(f"SET {setting}")
            connection.execute("SET jit = off")
            if choice.index:
                connection.execute("SET enable_seqscan = off")
            right, times = 0, []
            for number, query in enumerate(queries):
                best = float("inf")
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    found = connection.execute(choice.query, {"query": kind(query)}, binary=True).fetchall()
                    best = min(best, time.perf_counter() - start)
                times.append(best * 1000)
                right += sum(similarities[number, id_] >= least[number] for (id_,) in found)
            print(
                f"| {dimension} | {choice.name} | {built:.1f} | {size / 2**20:.0f} | {setting.split('.')[-1]} "
                f"| {right / len(queries) / TOP_K:.3f} | {statistics.median(times):.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 1536, 3072])
    parser.add_argument("--embeddings", type=Path, default=None, help="real embeddings, documents and queries")
    parser.add_argument("--home", type=Path, default=None, help="home folder of the embedded server; kept")
    arguments = parser.parse_args()
    documents, queries = embeddings(arguments.embeddings, rows=arguments.rows, queries=arguments.queries)
    with tempfile.TemporaryDirectory(prefix="synapse-benchmark-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(arguments.home or Path(folder) / "home")
        server.start()
        print(
            "| dimensions | index | build, s | size, MB | setting | recall@10 | p50, ms |\n|---|---|---|---|---|---|---|"
        )
        with psycopg.connect(server.conninfo(owner=True), autocommit=True) as connection:
            register_vector(connection)
            for dimension in arguments.dimensions:
                column = "vector" if dimension <= 2000 else "halfvec"
                wide = (widened(vectors, dimension=dimension) for vectors in (documents, queries))
                measure(connection, *wide, column=column)
            connection.execute("DROP TABLE choices")
        server.stop()


if __name__ == "__main__":
    main()
