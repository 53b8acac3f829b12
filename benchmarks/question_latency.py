"""
Milliseconds from a question to its answer in a running chat, no language model, over 10,000 chunks.

    python -m benchmarks.question_latency [--chunks 10000] [--rounds 10]

The project's documentation and examples are indexed into a database of their own; the rest are chunks of recombined
sentences of theirs with random embeddings, so that keyword search has as much to count as it would among real ones.
"""

from __future__ import annotations

import argparse
import random

import numpy as np
from haystack import Document

from benchmarks.measuring import p50, p95, temporary_home
from components.sentences import sentence_spans
from config import PROJECT, Settings
from database.connection import open_database
from pipelines.answering import Assistant
from pipelines.api import index_paths
from pipelines.query import document_store, question_model

QUESTIONS = (
    "How much does a ticket cost for a child?",
    "When is the observatory closed?",
    "How many steps does the large dome have?",
    "What happens if a visit is cancelled because of the weather?",
    "How do I become a member?",
    "Which exit code means refused?",
    "Darf ich meinen Hund in die Kuppel mitnehmen?",
    "What is the capital of Mongolia?",
)


def fill(settings: Settings, chunks: int) -> None:
    """Index what is there, then write recombined chunks until there are as many as wanted."""
    index_paths([PROJECT / "docs", PROJECT / "examples" / "documents"], settings=settings)
    store = document_store(settings, question_model(settings))
    texts = [document.content or "" for document in store.filter_documents()]
    sentences = [text[start:end] for text in texts for start, end in sentence_spans(text)]
    chance, numbers = random.Random(1), np.random.default_rng(1)
    missing = chunks - len(texts)
    vectors = numbers.standard_normal((missing, store.embedding_dimension))
    store.write_documents(
        [
            Document(
                content=" ".join(chance.choices(sentences, k=6)),
                embedding=(vector / np.linalg.norm(vector)).tolist(),
                meta={"source": f"recombined/{number}", "title": "Recombined", "position": 0},
            )
            for number, vector in enumerate(vectors)
        ]
    )


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with temporary_home() as home:
        settings = Settings(home=home)
        fill(settings, options.chunks)
        assistant = Assistant(settings)
        for question in QUESTIONS:
            assistant.ask(question)
        timings = [assistant.ask(question).timings_ms for _ in range(options.rounds) for question in QUESTIONS]
        database = open_database(settings)
        database.close()
        if database.server is not None:
            database.server.stop()
    for stage in ("embedder", "retriever", "answerer", "total"):
        values = sorted(found[stage] for found in timings if stage in found)
        print(f"{stage:<10} p50 {p50(values):7.1f} ms   p95 {p95(values):7.1f} ms   n {len(values)}")


if __name__ == "__main__":
    main()
