"""An evaluation from files to figures, in a schema of its own, with a deterministic embedder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from haystack import Document
from psycopg.sql import SQL, Identifier, Literal

from components.model_files import DEFAULT_MODEL
from config import Settings
from database.connection import Database
from database.errors import DatabaseError, InvalidInputError
from database.evaluation_schema import PREFIX, drop_evaluation, evaluation_schema
from database.models import EmbeddingModel
from evaluation.collection import Collection, Text
from evaluation.workbench import TABLE, Workbench, documents_of

MODEL = EmbeddingModel.named("tests/words", dimension=8)
WORDS = ("mirror", "ticket", "dome", "bus", "moon", "dog", "fee", "storm")
HOLDS = {"documents": "abc", "model": "m"}


class Embedder:
    """A dimension per word; counts what it is given."""

    def __init__(self) -> None:
        self.embedded = 0

    def run(self, *, documents: list[Document] | None = None, text: str = "") -> dict[str, Any]:
        if documents is None:
            return {"embedding": self.vector(text)}
        self.embedded += len(documents)
        texts = [f"{document.meta.get('title', '')} {document.content}" for document in documents]
        return {
            "documents": [replace(one, embedding=self.vector(text)) for one, text in zip(documents, texts, strict=True)]
        }

    @staticmethod
    def vector(text: str) -> list[float]:
        return [text.lower().count(word) + 0.001 * (place + 1) for place, word in enumerate(WORDS)]


@contextmanager
def silent(_: str, __: int | None) -> Iterator[Callable[[int, str], None]]:
    yield lambda *_: None


def collection(count: int = 40) -> Collection:
    """Each document is about one word; every question asks for one, and only the first document of that word is right."""
    texts = [
        Text(f"d/{n} ä" * (30 if n == 0 else 1), WORDS[n % 8].title(), f"The {WORDS[n % 8]} number {n}.")
        for n in range(count)
    ]
    return Collection(
        name="made/test",
        texts=[*texts, Text("empty", "", ""), Text("title", "Storm", "")],
        queries={"q0": "mirror number 0", "q1": "ticket number 1", "q2": "xyz"},
        qrels={"q0": {texts[0].id: 2, texts[8].id: 1}, "q1": {texts[1].id: 1}, "q2": {texts[2].id: 1}},
    )


def bench(owner: Database, schema: str, embedder: Embedder, **options: Any) -> Workbench:
    given = {"collection": collection(), "settings": Settings(), "model": MODEL, "progress": silent, **options}
    return Workbench(owner, schema, document_embedder=embedder, text_embedder=embedder, **given)


def interrupted(
    owner: Database, embedder: Embedder, error: type[BaseException], *, keep: str | None = None, **options: Any
) -> None:
    with evaluation_schema(owner, holds=HOLDS, keep=keep) as schema:
        bench(owner, schema.name, embedder, **options).fill()
        raise error


def schemas(owner: Database) -> list[str]:
    rows = owner.read(
        "SELECT nspname AS name FROM pg_namespace WHERE nspname LIKE 'synapse!_evaluation!_%%' ESCAPE '!'", {}
    )
    return [row["name"] for row in rows]


def test_every_strategy_is_measured(owner: Database, database: Database) -> None:
    with evaluation_schema(owner, holds=HOLDS) as schema:
        one = bench(owner, schema.name, Embedder())
        assert one.fill() == one.chunks == 42
        found = one.results()
        assert set(found) == {"dense", "keyword", "hybrid", "feedback", "diversity"}
        for name, result in found.items():
            assert set(result.values["ndcg@10"]) == {"q0", "q1", "q2"}
            assert len(result.latencies) == 3
            assert result.values["mrr@10"]["q1"] > 0, name
        assert found["keyword"].values["ndcg@10"]["q2"] == 0  # it finds nothing, and counts
        assert found["hybrid"].values["ndcg@10"]["q1"] == 1
        shown = found["hybrid"].to_dict()
        assert {"ndcg@10", "recall@100", "mrr@10", "p50_ms", "p95_ms", "intervals", "queries"} == set(shown)
        with pytest.raises(InvalidInputError, match="A strategy is one of dense"):
            one.results(only=["sparse"])
    assert schemas(owner) == []


def test_titles_are_indexed_once(owner: Database, database: Database) -> None:
    titled = next(documents_of(collection()))
    assert (titled.meta, titled.content) == ({"title": "Mirror"}, "The mirror number 0.")
    *_, only_a_title = documents_of(collection())
    assert (only_a_title.meta, only_a_title.content) == ({}, "Storm")
    with evaluation_schema(owner, holds=HOLDS) as schema:
        one = bench(owner, schema.name, Embedder())
        one.fill()
        lengths = owner.read(
            SQL("SELECT length FROM {} ORDER BY document_id").format(Identifier(schema.name, f"{TABLE}_keywords"))
        )
    # "the" is no term: the title's word, the word, "number" and the number
    assert sorted(row["length"] for row in lengths) == [0, 1] + [4] * 40


def test_chunks_stand_for_their_document(owner: Database, database: Database) -> None:
    long = " ".join(f"Sentence {n} is about the dome of the observatory." for n in range(200))
    texts = [Text("long", "Dome", long + " The mirror stands apart."), *collection().texts]
    split = replace(collection(), texts=texts, qrels={"q0": {"long": 1}}, queries={"q0": "mirror"})
    with evaluation_schema(owner, holds=HOLDS) as schema:
        one = bench(
            owner, schema.name, Embedder(), collection=split, split=True, model=replace(MODEL, model=DEFAULT_MODEL)
        )
        one.fill()
        assert one.chunks > len(texts)
        assert one.results(only=["keyword"])["keyword"].values["recall@100"]["q0"] == 1


def test_what_is_kept_is_not_embedded_again(owner: Database, database: Database) -> None:
    embedder = Embedder()
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted(owner, embedder, KeyboardInterrupt, keep="made", collection=collection(16))
        assert embedder.embedded == 18
        with evaluation_schema(owner, holds=HOLDS, reuse="made") as schema:
            assert not schema.is_new
            assert bench(owner, schema.name, embedder).fill() == 24
            assert bench(owner, schema.name, embedder).fill() == 0
        for options, message in (
            ({"keep": "made"}, "is kept as made already"),
            ({"reuse": "other"}, "A kept evaluation other was expected, but there is none"),
            ({"reuse": "made", "holds": {**HOLDS, "model": "n"}}, "expected to hold model n, but holds m"),
            ({"keep": 'a"; DROP'}, "A name of up to 40"),
        ):
            with (
                pytest.raises(InvalidInputError, match=message),
                evaluation_schema(owner, **{"holds": HOLDS, **options}),
            ):
                pass
        assert schemas(owner) == [f"{PREFIX}made"]
        with (
            evaluation_schema(owner, holds=HOLDS, reuse="made"),
            pytest.raises(InvalidInputError, match="another run works"),
        ):
            drop_evaluation(owner, "made")
    finally:
        drop_evaluation(owner, "made")
    assert schemas(owner) == []
    with pytest.raises(InvalidInputError, match="there is none"):
        drop_evaluation(owner, "made")


def test_nothing_is_left_after_an_error(owner: Database, database: Database) -> None:
    for error in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(error):
            interrupted(owner, Embedder(), error)
        assert schemas(owner) == []


def test_what_a_killed_run_left_is_dropped_when_it_is_old(owner: Database, database: Database) -> None:
    def left(name: str, *, hours: float, kept: bool = False, described: bool = True) -> None:
        since = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        text = json.dumps({"kept": kept, "since": since, "holds": {}}) if described else "mine"
        with owner.unpooled() as connection:
            connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(PREFIX + name)))
            connection.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(PREFIX + name), Literal(text)))

    left("old", hours=2)
    left("young", hours=0.1)
    left("wanted", hours=200, kept=True)
    left("foreign", hours=200, described=False)
    left("held", hours=2)
    with owner.unpooled() as other:
        other.execute(f"SELECT pg_advisory_lock(hashtext('synapse evaluation'), hashtext('{PREFIX}held'))")
        with evaluation_schema(owner, holds=HOLDS) as schema:
            assert schema.dropped == [f"{PREFIX}old"]
    rest = ["foreign", "held", "wanted", "young"]
    assert sorted(schemas(owner)) == [PREFIX + name for name in rest]
    for name in rest:
        drop_evaluation(owner, name)


def test_a_role_that_may_not_create_a_schema(database: Database, server: object) -> None:
    if server is None:
        pytest.skip("the application role of another server is the owner")
    with (
        pytest.raises(DatabaseError, match="this role may not create one") as refused,
        evaluation_schema(database, holds=HOLDS),
    ):
        pass
    assert "DATABASE_OWNER_URL" in refused.value.hint


def test_tuning_finds_better_settings_and_says_so(owner: Database, database: Database) -> None:
    """Embeddings that mislead: only a high weight of the words finds the answers."""

    class Misled(Embedder):
        def run(self, *, documents: list[Document] | None = None, text: str = "") -> dict[str, Any]:
            if documents is None:
                return {"embedding": self.vector("mirror" * 5)}
            return super().run(documents=documents)

    texts = collection().texts
    queries = {f"q{n}": f"number {n} {WORDS[n % 8]}" for n in range(1, 13)}
    hard = replace(collection(), queries=queries, qrels={f"q{n}": {texts[n].id: 1} for n in range(1, 13)})
    with evaluation_schema(owner, holds=HOLDS) as schema:
        one = bench(owner, schema.name, Misled(), collection=hard, settings=Settings(keyword_weight=0.0))
        one.fill()
        tuned = one.tuned()
    assert tuned.start["keyword_weight"] == 0
    assert tuned.best["keyword_weight"] > 0
    assert tuned.chosen_on == 8
    assert tuned.gain.queries == 4
    assert tuned.gain.difference > 0.3
    assert set(tuned.to_dict()) == {"best", "start", "chosen_on", "tried", "gain"}
