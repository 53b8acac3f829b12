"""Benchmarks that are programs of their own, too, as rows of `benchmarks.all`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.corpora import embedded, scifact
from benchmarks.measuring import MISSED, Finding, Options
from config import PROJECT

WANTED = {"ratio": 2.0, "cosine": 0.9999, "ndcg": 0.002}


def run_precision(options: Options) -> list[Finding]:
    """16 bits against fp32 on SciFact's documents: throughput, cosine, and what ranking loses."""
    from benchmarks.embedding_precision import embedded as embedded_both
    from benchmarks.embedding_precision import ndcg, plain_model
    from components.embedding_precision import has_bf16, precision_sentence

    collection = scifact(options.scifact)
    texts, qrels = collection.texts[: options.size(10_000, 16)], collection.judged["test"]
    plain, reduced, (plain_s, reduced_s, _) = embedded_both(texts)
    questions = {i: t for i, t in zip(collection.question_ids, collection.questions, strict=True) if i in qrels}
    asked = np.array(plain_model().encode(list(questions.values()), show_progress_bar=False))
    names = collection.ids[: len(texts)]
    full, half = (ndcg(asked, vectors, list(questions), names, qrels) for vectors in (plain, reduced))
    note = precision_sentence("auto")
    rates = {"fp32 per second": len(texts) / plain_s, "16 bits per second": len(texts) / reduced_s}
    return [
        Finding(
            row="precision",
            what=f"embedding {len(texts):,} abstracts: times faster than SentenceTransformer",
            value=plain_s / reduced_s,
            unit="x",
            at_least=WANTED["ratio"] if has_bf16() else None,
            beside=rates,
            note=note
            if has_bf16()
            else f"{note}; no bf16 here: it is forced for this comparison, and not used otherwise",
        ),
        Finding(
            row="precision",
            what="least cosine to fp32",
            value=float((plain * reduced).sum(axis=1).min()),
            at_least=WANTED["cosine"],
        ),
        Finding(
            row="precision",
            what="nDCG@10 of dense ranking: difference to fp32",
            value=abs(full - half),
            at_most=WANTED["ndcg"],
            beside={"fp32": round(full, 4), "16 bits": round(half, 4)},
        ),
    ]


def run_index_choices(options: Options) -> list[Finding]:
    """Every index that pgvector offers, on SciFact's sentences if they are given."""
    arguments = ["--rows", str(options.size(10_000, 300)), "--queries", str(options.size(100, 5))]
    if options.quick:
        arguments += ["--dimensions", "384"]
    else:
        arguments += ["--embeddings", str(_real_embeddings(options))] if options.scifact else []
    return [_finding("indexes", "index choices: see their table above", "benchmarks.index_choices", arguments)]


def _real_embeddings(options: Options) -> Path:
    collection = scifact(options.scifact)
    documents = embedded(collection.sentences(50_000), name="sentences", options=options)
    questions = embedded(collection.questions, name="questions", options=options)
    path = options.cache / "index-choices.npz"
    chosen = np.random.default_rng(6).permutation(len(documents))
    np.savez(path, documents=documents[chosen], queries=questions)
    return path


def _finding(row: str, what: str, module: str, arguments: list[str]) -> Finding:
    """Run a program; it has met its figures if it ends with 0, and missed them if it ends with 5."""
    lines = []
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    if program.returncode not in (0, MISSED):
        raise RuntimeError(f"{module} ended with {program.returncode}")
    missed = program.returncode == MISSED
    return Finding(row=row, what=what, value=None, beside={"printed": lines}, failed=missed)
