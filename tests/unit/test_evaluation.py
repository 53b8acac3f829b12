"""Collections, measures, intervals, comparisons and the certificate, against values computed by hand."""

from __future__ import annotations

import gzip
import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from database.errors import InvalidInputError
from database.index_recall import Answer, frequent_filters, recall
from evaluation.certificate import certify, interval, made_queries
from evaluation.collection import read_collection
from evaluation.evaluation import evaluate, percentile
from evaluation.measures import mean, measured
from evaluation.plots import check_plot, plot_recall, plot_strategies
from evaluation.saved import compared_pair, compared_with_hybrid, queries_of
from evaluation.statistics import bootstrap_interval, compared, holm, limit_if_all_perfect, permutation_test

CORPUS = [
    {"_id": "d1", "title": "One", "text": "first"},
    {"_id": "d/2 ä\u0000", "title": None, "text": "second \ud83d"},
    {"_id": 3, "title": "Only a title"},
]
QUERIES = [{"_id": "q1", "text": "one?"}, {"_id": "q2", "text": "two?"}, {"_id": "q3", "text": "nobody judged this"}]


def written(folder: Path, *, corpus: list[dict] = CORPUS, queries: list[dict] = QUERIES, **qrels: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    for name, rows in (qrels or {"test": "q1\td1\t1\n"}).items():
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


# Collections


def test_a_collection(tmp_path: Path) -> None:
    found = read_collection(
        written(tmp_path / "small", test="q1\td1\t2\nq1\t3\t0\nq2\td/2 ä\u0000\t1\n", train="q1\t3\t1\n")
    )
    assert found.name == "small/test"
    assert [text.id for text in found.texts] == ["d1", "d/2 ä ", "3"]
    assert found.texts[1].title == ""
    assert found.texts[1].text == "second ?"
    assert found.queries == {"q1": "one?", "q2": "two?"}
    assert found.qrels == {"q1": {"d1": 2, "3": 0}, "q2": {"d/2 ä ": 1}}
    assert found.notes == []
    assert measured(found.qrels, top={"q2": ["d1", "d/2 ä "]})["mrr@10"] == {"q1": 0, "q2": 0.5}
    assert read_collection(tmp_path / "small", qrels="train").qrels == {"q1": {"3": 1}}


def test_compressed_files_are_the_same_collection(tmp_path: Path) -> None:
    plain = read_collection(written(tmp_path / "small"))
    for path in [*(tmp_path / "small").glob("*.jsonl"), tmp_path / "small" / "qrels" / "test.tsv"]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_collection(tmp_path / "small") == plain
    assert read_collection(tmp_path / "small").digest == plain.digest


def test_another_text_is_another_digest(tmp_path: Path) -> None:
    one = read_collection(written(tmp_path / "a"))
    other = read_collection(written(tmp_path / "b", corpus=[{**CORPUS[0], "text": "First"}, *CORPUS[1:]]))
    assert one.digest != other.digest


def test_oddities_are_counted_and_named(tmp_path: Path) -> None:
    rows = "q1\td1\t1\nq1\tgone\t1\nq2\td1\t0\nnobody\td1\t1\n"
    found = read_collection(written(tmp_path / "odd", corpus=[*CORPUS, {"_id": "d1", "text": "again"}], test=rows))
    assert found.notes == [
        "Ids that corpus.jsonl has more than once, 1: d1; the first counts.",
        "Judged documents that are not in the corpus, 1: gone; they count as not found.",
        "Judged queries that are not in queries.jsonl, 1: nobody; they are left out.",
        "Queries without a relevant document, 1: q2; they are left out.",
    ]
    assert found.texts[0].text == "first"
    assert found.qrels == {"q1": {"d1": 1, "gone": 1}}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n{"_id": ', "line 2: one JSON object"),
        ("corpus.jsonl", '{"text": "no id"}\n', "line 1: an object with _id"),
        ("corpus.jsonl", '["d1"]\n', "line 1: an object with _id"),
        ("corpus.jsonl", "\n", "but it is empty"),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}\nq2\n', "queries.jsonl, line 2"),
        ("qrels/test.tsv", "q1\td1\t1\nq2 d1 1\n", "line 2: query, document and a whole number"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\thigh\n", "line 2"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "it has none"),
        ("qrels/test.tsv", "q3\td1\t0\n", "it has none"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, file: str, text: str, message: str) -> None:
    folder = written(tmp_path / "broken")
    (folder / file).write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_collection(folder)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    folder = written(tmp_path / "broken")
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(InvalidInputError, match="expected in UTF-8"):
        read_collection(folder)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"A folder with corpus\.jsonl"):
        read_collection(tmp_path / "nowhere")
    folder = written(tmp_path / "here", dev="q1\td1\t1\n", train="q1\td1\t1\n")
    with pytest.raises(InvalidInputError, match="Judgements were expected") as refused:
        read_collection(folder)
    assert refused.value.hint == "Choose with --qrels: dev, train."
    (folder / "queries.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"queries\.jsonl was expected"):
        read_collection(folder, qrels="dev")


# Measures


def test_measures_are_those_computed_by_hand() -> None:
    qrels = {"a": {"x": 1, "y": 2}, "b": {"z": 1}, "c": {"w": 1}}
    ten = [f"n{number}" for number in range(10)]
    values = measured(qrels, top={"a": ["y", "n", "x"], "b": [*ten, "z"]}, deep={"a": ["y"], "b": [*ten, "z"]})
    ideal = 2 + 1 / math.log2(3)
    assert values["ndcg@10"] == pytest.approx({"a": (2 + 1 / 2) / ideal, "b": 0, "c": 0})
    assert values["mrr@10"] == pytest.approx({"a": 1, "b": 0, "c": 0})  # z is at rank 11
    assert values["recall@100"] == pytest.approx({"a": 1 / 2, "b": 1, "c": 0})
    assert mean(values["recall@100"]) == pytest.approx(1 / 2)


def test_ties_and_ids_do_not_change_the_order() -> None:
    """trec_eval orders equal scores by id, and counts scores in float32: so the rank must be what it is given."""
    many = [f"d{number:06}" for number in range(100, 0, -1)]
    values = measured({"q": {many[1]: 1}}, top={"q": many})
    assert values["mrr@10"]["q"] == 0.5


# Statistics


def test_a_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400).tolist()
    low, high = bootstrap_interval(values)
    half = 1.96 * float(np.std(values)) / 20
    assert low == pytest.approx(float(np.mean(values)) - half, abs=0.001)
    assert high == pytest.approx(float(np.mean(values)) + half, abs=0.001)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)


def test_the_permutation_test_looks_at_every_permutation_of_a_few() -> None:
    differences = [0.5, 0.1, -0.2, 0.3, 0.05]
    observed = abs(sum(differences))
    every = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=5)
    ]
    assert permutation_test(differences) == sum(total >= observed - 1e-12 for total in every) / 32
    assert permutation_test([*differences, 0.0, 0.0]) == permutation_test(differences)
    assert permutation_test([0.0, 0.0]) == 1.0


def test_the_drawn_permutations_agree_with_theory() -> None:
    generator = np.random.default_rng(2)
    same, better = generator.normal(0, 1, 300), generator.normal(0.3, 1, 300)
    z = abs(float(same.sum())) / math.sqrt(float((same**2).sum()))
    assert permutation_test(same.tolist()) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)
    assert permutation_test(better.tolist()) < 0.001


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_words() -> None:
    queries = [f"q{number}" for number in range(100)]
    good, bad = dict.fromkeys(queries, 0.8), {query: 0.7 + 0.01 * (number % 3) for number, query in enumerate(queries)}
    real = compared(("bad", bad), ("good", good), measure="ndcg@10")
    assert real.words.startswith("good is better than bad by 0.090 nDCG@10 (0.08")
    assert real.words.endswith("p < 0.001): the difference is real.")
    chance = compared(("one", {"a": 1.0, "b": 0.2}), ("two", {"a": 0.9, "b": 0.4, "c": 1.0}), measure="ndcg@10")
    assert chance.words == "one and two differ by 0.050 nDCG@10 (p = 1.00): that may be chance on 2 queries."
    assert (
        compared(("a", good), ("b", good), measure="ndcg@10").words == "a and b give the same nDCG@10 on every query."
    )


# Comparing what was saved


def result(**strategies: list[float]) -> dict:
    return {
        "strategies": {
            name: {"queries": {f"q{number}": {"ndcg@10": value} for number, value in enumerate(values)}}
            for name, values in strategies.items()
        }
    }


def test_comparing_with_a_saved_result(tmp_path: Path) -> None:
    old, new = result(dense=[0.1] * 20, hybrid=[0.5] * 20), result(hybrid=[0.9] * 20)
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "new.json").write_text(json.dumps(new))
    path = str(tmp_path / "old.json")

    (both,) = compared_pair(path, str(tmp_path / "new.json"), run={})
    assert both.first == f"{path}:hybrid"
    assert both.difference == pytest.approx(-0.4)
    (with_run,) = compared_pair("hybrid", path, run=queries_of(new))
    assert (with_run.first, with_run.second, with_run.is_real) == ("hybrid", f"{path}:hybrid", True)
    (crossed,) = compared_pair(f"{path}:dense", "hybrid", run=queries_of(new))
    assert crossed.difference == pytest.approx(-0.8)
    assert [one.second for one in compared_with_hybrid(queries_of(old))] == ["dense"]

    for first, second, message in (
        ("sparse", "hybrid", "takes one of hybrid or a file"),
        (f"{path}:sparse", "hybrid", "expected to have the strategy sparse"),
        (str(tmp_path), "hybrid", "takes one of hybrid"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            compared_pair(first, second, run=queries_of(new))
    for text in ("[]", '{"strategies": 3}', "no json"):
        (tmp_path / "new.json").write_text(text)
        with pytest.raises(InvalidInputError, match="holds something else"):
            compared_pair(str(tmp_path / "new.json"), "hybrid", run=queries_of(new))


# Asking


class Found:
    def __init__(self, id_: str) -> None:
        self.id = id_


def test_chunks_stand_for_documents_and_questions_do_not_find_themselves(tmp_path: Path) -> None:
    corpus = [{"_id": f"d{number}", "text": f"text {number}"} for number in range(30)] + [{"_id": "q1", "text": "one?"}]
    folder = written(
        tmp_path / "small",
        corpus=corpus,
        test="q1\td20\t1\nq2\td0\t1\nblank\td0\t1\n",
        queries=[*QUERIES, {"_id": "blank", "text": " "}],
    )
    collection = read_collection(folder)
    ranking = ["q1"] + [f"d{number}" for number in range(20, -1, -1)]
    asked = []

    def search(question: str, embedding: list[float], top_k: int) -> list[Found]:
        assert question.strip()
        asked.append(top_k)
        return [Found(f"{text}#{chunk}") for text in ranking for chunk in range(5)][:top_k]

    found = evaluate(
        collection,
        {"only": search},  # type: ignore[dict-item]
        embeddings={query: [0.0] for query in collection.queries},
        text_of=lambda chunk: chunk.split("#")[0],
    )["only"]
    assert found.values["mrr@10"] == {"q1": 1.0, "q2": 0.0, "blank": 0.0}
    assert found.values["recall@100"] == {"q1": 1.0, "q2": 1.0, "blank": 0.0}
    assert max(asked) == 202  # twice as many until all of the documents are found, or no more come
    assert len(found.latencies) == 2


def test_percentiles() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([1, 2], 0.95) == pytest.approx(1.95)


# The certificate


def test_made_queries_are_as_far_from_documents_as_said() -> None:
    vectors = np.random.default_rng(3).normal(size=(20, 64))
    made = np.asarray(made_queries(vectors.tolist(), cosine=0.5))
    assert np.linalg.norm(made, axis=1) == pytest.approx(np.ones(20), abs=1e-5)
    cosines = (made * vectors).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosines == pytest.approx(np.full(20, 0.5), abs=1e-5)
    assert made_queries([]) == []
    assert made_queries([[2.0]]) == [[0.5]]


class Scored:
    def __init__(self, id_: str, score: float) -> None:
        self.id, self.score = id_, score


def test_equally_near_documents_are_equally_right() -> None:
    truth = [Scored("a", 0.9), Scored("b", 0.5)]
    assert recall([Scored("a", 0.9), Scored("c", 0.5)], truth) == 1  # type: ignore[arg-type]
    assert recall([Scored("a", 0.9), Scored("c", 0.4999)], truth) == 0.5  # type: ignore[arg-type]
    assert recall([Scored("a", 0.9), Scored("a", 0.9)], truth) == 0.5  # type: ignore[arg-type]
    assert recall([], []) == 1
    far = [Scored("a", 1.0), Scored("b", 2.0)]
    assert recall([Scored("a", 1.0), Scored("c", 3.0)], far, smaller_is_better=True) == 0.5  # type: ignore[arg-type]


def test_perfect_queries_prove_only_so_much() -> None:
    assert limit_if_all_perfect(368) >= 0.99 > limit_if_all_perfect(367)
    assert interval([1.0] * 50) == (pytest.approx(0.025 ** (1 / 50)), 1.0)


def test_a_certificate() -> None:
    def answers(*recalls: float, ms: float) -> list[Answer]:
        return [Answer(recall=one, returned=10, wanted=10, ms=ms, exact_ms=10.5) for one in recalls * 100]

    found = {
        (0, 10): answers(1, 0.9, 0.9, 1, ms=1),
        (0, 40): answers(1, 1, 1, 1, ms=2.5),
        (0, 100): answers(1, 1, 1, 1, ms=4),
        (1, 10): answers(1, 1, 1, 1, ms=1),
        (1, 40): answers(1, 1, 1, 0.9, ms=2),
        (1, 100): answers(1, 1, 1, 1, ms=3),
    }
    filters = [("", 1.0), ("lang == 'en'", 0.5)]
    made = certify(found, filters=filters, rows=1000, top_k=10, target=0.99, configured=40, floor_ms=0.5)
    assert (made.recommended, made.likely, made.queries, made.needed) == (100, 100, 400, 368)
    assert made.worst[0].filter == "lang == 'en'"
    assert made.worst[1].recall == 0.975
    assert made.exact_below == 350  # 3.5 ms above the floor, at 10 ms for 1,000 rows
    sparse = {key: some for key, some in found.items() if key != (1, 40)}
    made = certify(sparse, filters=filters, rows=1000, top_k=10, target=0.99, configured=40, floor_ms=0.5)
    assert made.recommended == 40  # under the filter, 10 was enough
    few = {key: some[:40] for key, some in found.items()}
    made = certify(few, filters=filters, rows=1000, top_k=10, target=0.99, configured=40, floor_ms=0.5)
    assert (made.recommended, made.likely) == (None, 100)


def test_filters_that_the_metadata_suggest() -> None:
    metadata = [
        {"lang": "en" if number % 2 else "de", "id": number, "shelf": number % 10, "list": [1]} for number in range(200)
    ]
    assert list(frequent_filters(metadata, shares=(0.5, 0.1, 0.001))) == [
        {"field": "meta.lang", "operator": "==", "value": "de"},
        {"field": "meta.shelf", "operator": "==", "value": 0},
    ]
    assert [one["field"] for one in frequent_filters(metadata, shares=(0.1, 0.1), declared={"lang", "shelf"})] == [
        "meta.shelf"
    ] * 2
    tenths = [{"shelf": number % 10, "row": number % 9, "position": number % 10} for number in range(200)]
    assert [one["field"] for one in frequent_filters(tenths, shares=(0.1,))] == ["meta.shelf"]
    assert [one["field"] for one in frequent_filters(tenths, shares=(0.1,), declared={"row"})] == ["meta.row"]
    assert list(frequent_filters([{}] * 5, shares=(0.5,))) == []


# Pictures


def test_pictures(tmp_path: Path) -> None:
    strategies = {"dense": {"ndcg@10": 0.5, "intervals": {"ndcg@10": [0.4, 0.6]}}}
    plot_strategies(
        {"collection": "x/test", "documents": 3, "queries": 2, "strategies": strategies}, tmp_path / "a.png"
    )
    setting = {"ef_search": 10, "recall": 0.9, "interval": (0.8, 1.0), "p50_ms": 1.5}
    plot_recall([{"filter": "", "settings": [setting]}], tmp_path / "b.png", title="t", top_k=10)
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    for path in (tmp_path / "a.jpg", tmp_path / "nowhere" / "a.png"):
        with pytest.raises(InvalidInputError, match=r"takes the name of a \.png file"):
            check_plot(path)
    check_plot(None)
