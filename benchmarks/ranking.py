"""
Ranking of SciFact's test questions, parameters chosen on its training questions, beside Haystack's plain hybrid pipeline.

Every abstract is one chunk, title and text; the model is the default one; nothing is reranked. An empty answer counts 0. The
plain pipeline is `PgvectorEmbeddingRetriever` and `PgvectorKeywordRetriever`, 100 documents each, joined by reciprocal ranks.
The time of the hybrid statement is measured on the same table with ten documents wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from haystack import Document
from haystack.components.joiners import DocumentJoiner
from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever, PgvectorKeywordRetriever
from psycopg.sql import SQL, Identifier

from benchmarks.corpora import SciFact, Vectors, embedded, scifact
from benchmarks.measuring import Finding, Options, in_turn, p50, p95, say
from benchmarks.stores import PLAIN_TABLE, benchmark_server, fill, our_store, owner, plain_store, settle, view_of
from database.document_store import SynapseDocumentStore

DEPTH = 100
WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7)
SATURATIONS = ((0.9, 0.4), (1.2, 0.75), (1.5, 0.75), (2.0, 0.75))
"""k1 and b: the values of Anserini, of Lucene, and two that let repeated words count for more."""

_COPY = "INSERT INTO {} (id, embedding, content, meta) SELECT id, embedding, content, meta FROM {}"

Run: TypeAlias = "dict[str, dict[str, float]]"
Ask: TypeAlias = "Callable[[str, list[float]], Iterable[Document]]"


def run(options: Options) -> list[Finding]:
    """Choose on train, report on test, time the statement."""
    collection = scifact(options.scifact)
    rows = embedded(collection.texts, name="documents", options=options)
    vectors = embedded(collection.questions, name="questions", options=options)
    questions = {
        i: (t, v.tolist()) for i, t, v in zip(collection.question_ids, collection.questions, vectors, strict=True)
    }
    documents = _documents(collection, rows)
    test, train = (_part(collection, questions, part, options) for part in ("test", "train"))
    with benchmark_server() as server, our_store(server) as ours:
        fill(server, ours, documents)
        plain = plain_store(server)
        plain.count_documents()
        with owner(server) as connection:
            connection.execute(SQL(_COPY).format(Identifier(PLAIN_TABLE), Identifier(ours.table_name)))
        settle(server, PLAIN_TABLE)
        judged = collection.judged["test"]
        chosen, on_train = _chosen(lambda ranking: view_of(server, ranking=ranking), train, collection.judged["train"])
        tuned = view_of(server, ranking=chosen)
        scores = {
            "as delivered": measures(answers(_hybrid(ours), test), judged),
            "parameters chosen anew on train": measures(answers(_hybrid(tuned), test), judged),
            "ours, dense": measures(answers(lambda _, v: ours.dense_search(v, top_k=DEPTH), test), judged),
            "ours, keyword": measures(answers(lambda q, _: ours.keyword_search(q, top_k=DEPTH), test), judged),
            "plain hybrid": measures(answers(_plain_hybrid(plain), test), judged),
        }
        plain.close()
        findings = _quality(scores, chosen, on_train)
        return [*findings, _latency(ours, list(test.values()), options)]


def _documents(collection: SciFact, rows: Vectors) -> list[Document]:
    texts = zip(collection.ids, collection.texts, rows, strict=True)
    return [Document(id=i, content=text, embedding=row.tolist(), meta={"source": i}) for i, text, row in texts]


def _part(
    collection: SciFact, questions: dict[str, tuple[str, list[float]]], part: str, options: Options
) -> dict[str, tuple[str, list[float]]]:
    return {i: questions[i] for i in list(collection.judged[part])[: options.size(10_000, 10)]}


def answers(ask: Ask, questions: dict[str, tuple[str, list[float]]]) -> Run:
    """What a search answers to each question: document ids with scores that keep its order."""
    return {i: {d.id: 1.0 / (place + 1) for place, d in enumerate(ask(*question))} for i, question in questions.items()}


def measures(run: Run, judged: dict[str, dict[str, int]]) -> dict[str, float]:
    """nDCG@10 and recall@100 over the questions of a run; an empty answer counts 0."""
    import ir_measures

    wanted = {i: judged[i] for i in run}
    padded = {i: found or {"": 0.0} for i, found in run.items()}
    found = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.R @ 100], wanted, padded)
    return {"ndcg@10": found[ir_measures.nDCG @ 10], "recall@100": found[ir_measures.R @ 100]}


def _hybrid(store: SynapseDocumentStore, top_k: int = DEPTH) -> Ask:
    return lambda text, vector: [passage.document for passage in store.hybrid_search(text, vector, top_k=top_k)]


def _plain_hybrid(store: Any) -> Ask:
    near = PgvectorEmbeddingRetriever(document_store=store, top_k=DEPTH)
    worded = PgvectorKeywordRetriever(document_store=store, top_k=DEPTH)
    joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=DEPTH)

    def ask(text: str, vector: list[float]) -> Iterable[Document]:
        legs = [near.run(query_embedding=vector)["documents"], worded.run(query=text)["documents"]]
        joined: list[Document] = joiner.run(documents=legs)["documents"]
        return joined

    return ask


def _chosen(
    store: Callable[[dict[str, float]], SynapseDocumentStore],
    train: dict[str, tuple[str, list[float]]],
    judged: dict[str, dict[str, int]],
) -> tuple[dict[str, float], dict[str, float]]:
    """The weight of words, then k1 and b, that rank the training questions best; and what every choice gave."""
    tried: dict[str, float] = {}
    best: tuple[float, dict[str, float]] = (-1.0, {})

    def attempt(ranking: dict[str, float]) -> None:
        nonlocal best
        found = measures(answers(_hybrid(store(ranking), 10), train), judged)["ndcg@10"]
        tried[" ".join(f"{key} {value:g}" for key, value in ranking.items())] = round(found, 4)
        best = max(best, (found, ranking), key=lambda pair: pair[0])

    for weight in WEIGHTS:
        attempt({"keyword_weight": weight})
    for k1, b in SATURATIONS:
        attempt({**best[1], "k1": k1, "b": b})
    say("train nDCG@10: " + ", ".join(f"{name}: {value:.4f}" for name, value in tried.items()))
    return best[1], tried


def _quality(
    scores: dict[str, dict[str, float]], chosen: dict[str, float], on_train: dict[str, float]
) -> list[Finding]:
    name = ", ".join(f"{key} {value:g}" for key, value in chosen.items())
    notes = {
        "as delivered": "",
        "parameters chosen anew on train": f"of {len(on_train)} choices on train: {name}",
    }
    return [
        Finding(
            row="ranking",
            what=f"SciFact test, hybrid, {how}: {measure}",
            value=scores[how][measure],
            at_least=bound,
            beside={
                **{side: round(values[measure], 4) for side, values in scores.items() if side not in notes},
                "train": on_train,
            },
            note=note,
        )
        for how, note in notes.items()
        for measure, bound in (("ndcg@10", 0.735), ("recall@100", 0.95))
    ]


def _latency(ours: SynapseDocumentStore, questions: list[tuple[str, list[float]]], options: Options) -> Finding:
    def search(n: int) -> Any:
        return ours.hybrid_search(*questions[n % len(questions)], top_k=10)

    times, _ = in_turn({"hybrid": search}, calls=options.size(2, 1) * len(questions))
    return Finding(
        row="hybrid time",
        what="SciFact test questions: p50 of a hybrid search, ten documents",
        value=p50(times["hybrid"]),
        unit=" ms",
        at_most=20,
        beside={"p95 ms": p95(times["hybrid"])},
    )
