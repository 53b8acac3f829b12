"""
What the relevance gate's thresholds rest on: similarities of questions that a collection answers, and of others.

    python -m benchmarks.relevance_thresholds FOLDER [--claims 300]

FOLDER holds SciFact in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/train.tsv.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.embedders import TextEmbedder
from components.sentences import content_words

UNANSWERED = (
    "What is the capital of Mongolia?",
    "How do I bake sourdough bread?",
    "Who won the football world cup in 2014?",
    "What is the warranty period of the dishwasher?",
    "How do I reset my router password?",
    "When does the train leave?",
    "What is the price of a ticket to the opera?",
    "How do I change the oil of a car?",
    "Who wrote the novel Moby Dick?",
    "What is the best chess opening for beginners?",
    "How tall is the Eiffel Tower?",
    "Which bank offers the best mortgage?",
    "What are the visa requirements for Japan?",
    "How do I install PostgreSQL on Windows?",
    "Who painted the Mona Lisa?",
    "What is the exchange rate of the euro?",
    "How many employees does the company have?",
    "How do I cook rice?",
    "What is our vacation policy?",
    "How do I configure HNSW ef_search?",
    "When was the Berlin Wall torn down?",
    "Which programming language is used for Django?",
    "How do I train a puppy?",
    "Which planets have rings?",
    "Does the parental leave policy cover adoption?",
    "How do I descale a coffee machine?",
)


def embedded(texts: list[str]) -> np.ndarray[Any, Any]:
    """Unit vectors of texts."""
    embedder = TextEmbedder()
    embedder.warm_up()
    assert embedder.embedding_backend is not None
    vectors = np.asarray(embedder.embedding_backend.embed(texts, batch_size=32, show_progress_bar=False))
    unit: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def evidence(questions: Sequence[str], vectors: np.ndarray[Any, Any], texts: list[str]) -> np.ndarray[Any, Any]:
    """Per question, the best passage's similarity and the best share of its words in the first five passages."""
    words = [set(content_words(text)) for text in texts]
    found = []
    for question, similarities in zip(questions, embedded(list(questions)) @ vectors.T, strict=True):
        wanted = set(content_words(question))
        first = np.argsort(-similarities)[:5]
        found.append((similarities.max(), max(len(wanted & words[i]) / max(1, len(wanted)) for i in first)))
    return np.array(found)


def main() -> None:
    """Embed the collection (minutes), ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--claims", type=int, default=300)
    options = parser.parse_args()
    rows = [json.loads(line) for line in (options.folder / "corpus.jsonl").read_text().splitlines()]
    texts = [f"{row['title']}\n{row['text']}" for row in rows]
    queries = [json.loads(line) for line in (options.folder / "queries.jsonl").read_text().splitlines()]
    judged = {line.split("\t")[0] for line in (options.folder / "qrels" / "train.tsv").read_text().splitlines()[1:]}
    claims = [row["text"] for row in queries if row["_id"] in judged][: options.claims]
    vectors = embedded(texts)
    answered, others = evidence(claims, vectors, texts), evidence(UNANSWERED, vectors, texts)
    print("similarity of claims, percentiles 5, 50:", np.percentile(answered[:, 0], [5, 50]).round(2))
    print("similarity of others, percentiles 50, 100:", np.percentile(others[:, 0], [50, 100]).round(2))
    for sure in (0.40, 0.45, 0.50):
        for unsure in (0.25, 0.30, 0.35):
            for share in (0.5, 0.6):
                passed = [
                    ((x[:, 0] >= sure) | ((x[:, 0] >= unsure) & (x[:, 1] >= share))).mean() for x in (answered, others)
                ]
                print(f"{sure:.2f} or {unsure:.2f} with {share:.0%}: claims {passed[0]:.3f}   others {passed[1]:.3f}")


if __name__ == "__main__":
    main()
