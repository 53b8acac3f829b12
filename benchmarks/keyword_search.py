"""
The time of a search by words at 10,000 and 100,000 chunks, questions of common words included.

With SciFact, chunks are of eight random sentences of the collection and questions are its claims; without, both are of words
that are as frequent as English ones. Three kinds of question: as they are, with the commonest words added, and two of the
commonest words with a rare one. The slowest kind counts. Chunks have no embeddings; no leg but this one runs.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from haystack import Document

from benchmarks.corpora import scifact, zipf_texts
from benchmarks.measuring import Finding, Options, Skipped, in_turn, p50, p95, say, seconds
from benchmarks.stores import BATCH, TABLE, benchmark_server, our_store, settle

BOUNDS = {10_000: 10.0, 100_000: 75.0}
"""Milliseconds that are wanted, by the number of chunks."""

_WORD = re.compile(r"\w{4,}")


def run(options: Options) -> list[Finding]:
    """Fill to each size in turn, and ask."""
    findings = []
    texts, claims, kind = _texts(options)
    with benchmark_server() as server, our_store(server) as ours:
        common, rare, written = Counter[str](), list[str](), 0
        for chunks, bound in BOUNDS.items():
            size = chunks if not options.quick else chunks // 200
            missing = (Document(id=f"row {n}", content=next(texts)) for n in range(written, size))
            took = 0.0
            while batch := list(islice(missing, BATCH)):
                took += seconds(ours.write_documents, batch)
                if not written:
                    for document in batch[:2_000]:
                        common.update({word.lower() for word in _WORD.findall(document.content or "")})
                    rare = [word for word, count in common.items() if count == 1]
            say(f"{size - written:,} chunks written in {took:.1f} s")
            written = size
            settle(server, TABLE)
            questions = _questions(claims, [word for word, _ in common.most_common(8)], rare, options.size(100, 5))
            sides = {name: (lambda n, asked=asked: ours.keyword_search(asked[n])) for name, asked in questions.items()}
            times, found = in_turn(sides, calls=len(next(iter(questions.values()))))
            medians = {name: p50(values) for name, values in times.items()}
            findings.append(
                Finding(
                    row="keyword",
                    what=f"{size:,} chunks of {kind}: p50 of the slowest kind of question",
                    value=max(medians.values()),
                    unit=" ms",
                    at_most=bound,
                    beside={
                        **{f"{name} ms": value for name, value in medians.items()},
                        "worst p95 ms": max(p95(values) for values in times.values()),
                        "unanswered": sum(not answer for answers in found.values() for answer in answers),
                    },
                )
            )
    return findings


def _texts(options: Options) -> tuple[Iterator[str], list[str], str]:
    most = max(BOUNDS)
    try:
        collection = scifact(options.scifact)
        return collection.recombined(most), collection.questions, "SciFact's sentences"
    except Skipped:
        claims = [" ".join(text.split()[:12]) for text in zipf_texts(300, seed=2)]
        return zipf_texts(most), claims, "words as frequent as English ones"


def _questions(claims: list[str], common: list[str], rare: list[str], count: int) -> dict[str, list[str]]:
    chance = random.Random(4)
    chosen = chance.sample(claims, count)
    words = [[*chance.sample(common, 2), chance.choice(rare)] for _ in range(count)]
    return {
        "as they are": chosen,
        "with common words": [f"{claim} {' '.join(common[:4])}" for claim in chosen],
        "two common, one rare": [" ".join(three) for three in words],
    }
