"""
The same at 10,000, 100,000 and 300,000 x 384: writing rows, building the indexes, a search, and memory of program and server.

Each size has a server of its own; making the data counts as writing it. No step may grow faster than n log n: its growth from one size to the next, divided by the
growth of n log n, is what is printed; 10 % are allowed for noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from haystack import Document

from benchmarks.corpora import Vectors, clusters
from benchmarks.machine import peak_of
from benchmarks.measuring import Finding, Options, in_turn, p50, p95, say
from benchmarks.stores import BATCH, TABLE, benchmark_server, bulk_write, our_store, settle

SIZES = (10_000, 100_000, 300_000)
TOP_K = 10
ALLOWED = 1.1
STEPS = {"write_s": "writing rows", "build_s": "building indexes", "query_ms": "a search"}
MEMORY = {"server_mib": "the server's memory", "client_mib": "the program's memory"}


def run(options: Options) -> list[Finding]:
    """Measure every size, and compare their growth."""
    sizes = [options.size(size, size // 50) for size in SIZES]
    measured = [_at(size, options) for size in sizes]
    return [_growth(key, name, measured) for key, name in (STEPS | MEMORY).items()]


def _documents(count: int) -> Iterator[Document]:
    for first in range(0, count, BATCH):
        for n, vector in enumerate(_vectors(first, min(BATCH, count - first)), first):
            meta = {"source": f"file {n % 1000}.txt", "position": n}
            yield Document(
                id=f"row {n}", content=f"Chunk {n} of file {n % 1000}.", embedding=vector.tolist(), meta=meta
            )


def _vectors(first: int, count: int) -> Vectors:
    return clusters(count, seed=1_000 + first // BATCH)


def _at(size: int, options: Options) -> dict[str, float]:
    with benchmark_server() as server, our_store(server) as ours, peak_of(server.data) as peak:
        began = time.perf_counter()
        until: dict[str, float] = {}
        bulk_write(ours, _documents(size), lambda step: until.update({step: time.perf_counter() - began}))
        loaded = time.perf_counter() - began
        settle(server, TABLE)
        questions = clusters(options.size(100, 5), seed=2)
        times, found = in_turn(
            {"search": lambda n: ours.dense_search(questions[n].tolist(), top_k=TOP_K)},
            calls=len(questions),
            warm_up=20,
        )
        recall = _recall(found["search"], questions, size)
    result = {
        "rows": float(size),
        "write_s": until["rows"],
        "build_s": loaded - until["rows"],
        "query_ms": p50(times["search"]),
        "query_p95_ms": p95(times["search"]),
        "recall@10": recall,
        "server_mib": peak.server,
        "client_mib": peak.client,
    }
    say(", ".join(f"{key} {value:,.4g}" for key, value in result.items()))
    return result


def _recall(answers: list[list[Document]], questions: Vectors, size: int) -> float:
    best = np.full((len(questions), TOP_K), -2.0, dtype=np.float32)
    for first in range(0, size, BATCH):
        found = questions @ _vectors(first, min(BATCH, size - first)).T
        best = -np.sort(-np.hstack([best, found]), axis=1)[:, :TOP_K]
    shares = [
        sum((document.score or 0.0) >= float(row[-1]) - 1e-6 for document in answer) / TOP_K
        for answer, row in zip(answers, best, strict=True)
    ]
    return float(np.mean(shares))


def _growth(key: str, name: str, measured: list[dict[str, Any]]) -> Finding:
    factors = []
    for small, large in pairwise(measured):
        nlogn = large["rows"] * math.log(large["rows"]) / (small["rows"] * math.log(small["rows"]))
        factors.append(large[key] / small[key] / nlogn)
    sizes = {f"at {int(found['rows']):,}": round(found[key], 2) for found in measured}
    return Finding(
        row="scale",
        what=f"growth of {name} against n log n, the fastest of {len(factors)} steps",
        value=max(factors),
        unit="x",
        at_most=ALLOWED,
        beside={**sizes, "by size": measured},
    )
