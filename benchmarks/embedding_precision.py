"""
What 16 bits gain and cost in embedding: throughput, cosine to fp32, and nDCG@10 of exact dense ranking.

    python -m benchmarks.embedding_precision FOLDER [--documents N]

FOLDER has the layout of BEIR: corpus.jsonl, queries.jsonl, qrels/test.tsv. Both precisions embed the same documents in turns,
block by block, so that what else the machine does weighs on both; the plain one is sentence-transformers as it comes.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document

from components.embedders import DocumentEmbedder
from components.embedding_precision import has_bf16, precision_sentence
from components.model_files import DEFAULT_MODEL, model_location

BLOCK = 128
"""Documents that one of the two embeds before the other takes its turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, help="judged documents and the first others, so many in all")
    arguments = parser.parse_args()
    qrels = read_qrels(arguments.folder / "qrels" / "test.tsv")
    corpus = {row["_id"]: f"{row.get('title') or ''} {row['text']}" for row in rows(arguments.folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in rows(arguments.folder / "queries.jsonl") if row["_id"] in qrels}
    judged = [name for judgements in qrels.values() for name in judgements if name in corpus]
    names = list(dict.fromkeys([*judged, *corpus]))[: arguments.documents]

    print(f"{platform.machine()}, {precision_sentence('auto')}")
    if not has_bf16():
        print("The processor has no bf16: auto is fp32 here, and unchanged. bf16 is forced below, to compare vectors.")
    plain, reduced, seconds = embedded([corpus[name] for name in names])
    print(f"{len(names)} documents: fp32 {len(names) / seconds[0]:.1f}/s, 16 bits {len(names) / seconds[1]:.1f}/s")
    print(f"ratio {seconds[0] / seconds[1]:.2f}; per block, median {np.median(seconds[2]):.2f}")
    print(f"cosine to fp32: at least {(plain * reduced).sum(axis=1).min():.6f}")
    print(f"length: off by at most {np.abs(np.linalg.norm(reduced, axis=1) - 1).max():.1e}")
    asked = np.array(plain_model().encode(list(queries.values()), show_progress_bar=False))
    figures = [ndcg(asked, vectors, list(queries), names, qrels) for vectors in (plain, reduced)]
    print(f"nDCG@10, questions in fp32: documents in fp32 {figures[0]:.4f}, in 16 bits {figures[1]:.4f}")
    print(f"difference {abs(figures[0] - figures[1]):.4f}")


def embedded(texts: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], tuple[float, float, list[float]]]:
    """The texts in fp32 and in 16 bits, and the seconds of each and their ratio block by block."""
    model = plain_model()
    embedder = DocumentEmbedder(compute_precision="auto" if has_bf16() else "bf16")
    embedder.warm_up()
    for warm in (texts[:8], texts[:8]):
        model.encode(warm)
        embedder.run(documents=[Document(content=text) for text in warm])
    plain, reduced, times = [], [], []
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        began = time.perf_counter()
        plain.append(model.encode(block, show_progress_bar=False))
        middle = time.perf_counter()
        found = embedder.run(documents=[Document(content=text) for text in block])["documents"]
        times.append((middle - began, time.perf_counter() - middle))
        reduced.append(np.array([document.embedding for document in found], dtype=np.float32))
    ratios = [one / other for one, other in times]
    return np.vstack(plain), np.vstack(reduced), (sum(t[0] for t in times), sum(t[1] for t in times), ratios)


def plain_model() -> Any:
    """sentence-transformers without us."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model_location(DEFAULT_MODEL))


def ndcg(
    asked: np.ndarray[Any, Any],
    vectors: np.ndarray[Any, Any],
    questions: list[str],
    names: list[str],
    qrels: dict[str, dict[str, int]],
) -> float:
    """Mean nDCG@10 of exact ranking by cosine; gains are the judgements, as trec_eval has it."""
    discounts = 1 / np.log2(np.arange(2, 12))
    found = []
    for question, row in zip(questions, asked @ vectors.T, strict=True):
        gains = np.array([qrels[question].get(names[n], 0) for n in np.argsort(-row, kind="stable")[:10]], dtype=float)
        best = np.array(sorted(qrels[question].values(), reverse=True)[:10], dtype=float)
        ideal = float(best @ discounts[: len(best)])
        found.append(float(gains @ discounts[: len(gains)]) / ideal if ideal else 0.0)
    return float(np.mean(found))


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements by question and document."""
    found: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            found.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return found


if __name__ == "__main__":
    main()
