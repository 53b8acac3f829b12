"""The engine on a real database: books that close, runs that go on, and what verifying finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from database.connection import Database
from database.errors import DatabaseError, GuardError, InvalidInputError
from database.migration_runs import find_run, list_runs, roll_back
from database.models import EmbeddingModel, active_model, add_model, list_models, switch_model
from migration.conversion import checked_policies
from migration.engine import Migration, Options, UndecidedError
from migration.progress import Progress
from migration.receipt import Receipt
from migration.source import Record
from tests.support.record_source import RecordSource, record, records, vector

TABLE = "documents_papers"


@pytest.fixture
def home(owner: Database, database: Database) -> Iterator[Database]:
    """The owner's database, with a model of 8 dimensions as the active one and no migrations."""
    clean(owner)
    add_model(owner, EmbeddingModel.named("tests/tiny", dimension=8))
    switch_model(owner, "tiny")
    yield owner
    clean(owner)


def clean(owner: Database) -> None:
    with owner.connection() as connection:
        connection.execute("DELETE FROM migration_runs")
    for model in list_models(owner):
        if model.name != "all-minilm-l6-v2":
            switch_model(owner, "all-minilm-l6-v2")
            with owner.connection() as connection:
                names = [Identifier(f"{model.table_name}{suffix}") for suffix in ("", "_keywords", "_terms")]
                connection.execute(SQL("DROP TABLE IF EXISTS {}").format(SQL(", ").join(names)))
                connection.execute("DELETE FROM embedding_models WHERE name = %s", (model.name,))


def migration(
    source: RecordSource,
    owner: Database,
    folder: Path,
    *,
    on: dict[str, str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Migration:
    chosen = Options(policies=checked_policies(on or {}), **{"queries": 5, "batch": 10, **options})
    return Migration(source, owner, chosen, receipts=folder, on_progress=on_progress or (lambda _: None))


def papers(count: int = 35) -> RecordSource:
    return RecordSource({"papers": records(count)})


def without_run(receipt: Receipt) -> dict[str, Any]:
    return {key: value for key, value in receipt.to_dict().items() if key != "run"}


def stored(owner: Database, table: str = TABLE) -> dict[str, Any]:
    rows = owner.read(SQL("SELECT id, embedding, content, meta FROM {} ORDER BY id").format(Identifier(table)))
    return {row["id"]: (row["embedding"], row["content"], row["meta"]) for row in rows}


def execute(owner: Database, statement: str, *params: Any) -> None:
    with owner.connection() as connection:
        connection.execute(statement, params or None)  # type: ignore[arg-type]


def test_everything_arrives_bit_for_bit(home: Database, tmp_path: Path) -> None:
    source = papers()
    receipt = migration(source, home, tmp_path).run()
    assert receipt.open() == []
    (part,) = receipt.parts
    assert (part.records, part.copied, part.changed, part.rejected) == (35, 35, 0, 0)
    assert part.source_checksum == part.target_checksum
    assert part.checks["search"]["overlap_at_10"] == part.checks["search"]["recall_at_10"] == 1.0
    found = stored(home)
    for wanted in source.contents["papers"]:
        embedding, content, meta = found[wanted.id]
        assert embedding.to_numpy().tobytes() == wanted.embedding.tobytes()  # type: ignore[union-attr]
        assert (content, meta) == (wanted.content, wanted.meta)


def test_run_twice_nothing_changes(home: Database, tmp_path: Path) -> None:
    first = migration(papers(), home, tmp_path).run()
    versions = "SELECT id, xmin::text FROM documents_papers ORDER BY id"
    before = home.read(versions)
    again = migration(papers(), home, tmp_path).run()
    assert without_run(again) == without_run(first)
    assert home.read(versions) == before
    assert (first.run["attempts"], again.run["attempts"]) == (1, 2)


def test_a_dry_run_writes_nothing(home: Database, tmp_path: Path) -> None:
    receipt = migration(papers(), home, tmp_path).dry_run()
    assert receipt.problems == []
    assert (receipt.parts[0].records, receipt.parts[0].copied) == (35, 35)
    assert [model.name for model in list_models(home)] == ["all-minilm-l6-v2", "tiny"]
    assert list_runs(home) == []


@pytest.mark.parametrize("after", range(1, 5))
def test_what_breaks_off_after_any_batch_goes_on(home: Database, tmp_path: Path, after: int) -> None:
    whole = migration(papers(), home, tmp_path / "whole").run()
    roll_back(home, find_run(home, whole.run["id"]))

    def stop(progress: Progress) -> None:
        if progress.step == "loading" and progress.done >= min(after * 10, 35):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migration(papers(), home, tmp_path / "half", on_progress=stop).run()
    assert len(stored(home)) == min(after * 10, 35)
    resumed = migration(papers(), home, tmp_path / "half").run()
    assert without_run(resumed) == without_run(whole)
    assert resumed.run["attempts"] == 2


def test_search_goes_to_what_was_migrated_only_where_it_would_find_nothing(home: Database, tmp_path: Path) -> None:
    receipt = migration(papers(), home, tmp_path).run()
    assert active_model(home).table_name == TABLE
    other = migration(RecordSource({"books": records(3)}), home, tmp_path).run()
    assert active_model(home).table_name == TABLE
    assert any("models switch books" in warning for warning in other.warnings)
    roll_back(home, find_run(home, receipt.run["id"]))
    assert active_model(home).name == "tiny"


# Decisions


HOSTILE = [record(0), record(1, content="a\x00b"), record(2, meta={"x": float("nan")}), record(3, embedding=None)]


def test_nothing_is_written_until_everything_is_decided(home: Database, tmp_path: Path) -> None:
    with pytest.raises(
        UndecidedError, match=r"(?s)1 record needs a decision, nul: .*not_finite: .*missing_vector"
    ) as caught:
        migration(RecordSource({"papers": HOSTILE}), home, tmp_path).run()
    assert "--on KIND=keep" in caught.value.hint
    assert [model.name for model in list_models(home)] == ["all-minilm-l6-v2", "tiny"]
    assert list_runs(home) == []
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(line["id"], line["kind"], line["action"], line["original"]) for line in lines] == [
        ("id 1", "nul", "stopped", "a\x00b"),
        ("id 2", "not_finite", "stopped", {"float": "nan"}),
        ("id 3", "missing_vector", "stopped", None),
    ]


def test_changes_and_rejects_are_counted_and_kept(home: Database, tmp_path: Path) -> None:
    chosen = {"nul": "keep", "not_finite": "reject", "missing_vector": "keep"}
    receipt = migration(RecordSource({"papers": HOSTILE}), home, tmp_path, on=chosen).run()
    (part,) = receipt.parts
    assert receipt.closed
    assert (part.records, part.copied, part.changed, part.rejected) == (4, 1, 2, 1)
    assert {kind: (change.policy, change.records) for kind, change in part.changes.items()} == {
        "nul": ("keep", 1), "not_finite": ("reject", 1), "missing_vector": ("keep", 1),
    }  # fmt: skip
    assert set(stored(home)) == {"id 0", "id 1", "id 3"}
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    (rejected,) = [line for line in lines if line["kind"] == "rejected"]
    assert rejected["original"]["content"] == HOSTILE[2].content
    assert set(rejected["original"]["embedding"]) == {"float32"}
    assert receipt.rejects["lines"] == len(lines) == 4


def test_choices_cannot_change_half_way(home: Database, tmp_path: Path) -> None:
    source = RecordSource({"papers": HOSTILE})
    run = migration(source, home, tmp_path, on={"nul": "keep", "not_finite": "keep", "missing_vector": "keep"}).run()
    with pytest.raises(GuardError, match=f"--rollback {run.run['id']}"):
        migration(source, home, tmp_path, on={"nul": "keep", "not_finite": "reject", "missing_vector": "keep"}).run()


def test_another_ranking_is_refused_unless_accepted(home: Database, tmp_path: Path) -> None:
    longer = [replace(one, embedding=one.embedding * (1 + number)) for number, one in enumerate(records(40))]  # type: ignore[operator]
    source = RecordSource({"papers": longer}, distance="l2")
    with pytest.raises(UndecidedError, match=r"searched by l2, .*lengths from 1 to 40.*--accept-rank-change"):
        migration(source, home, tmp_path).run()
    receipt = migration(source, home, tmp_path, accept_rank_change=True).run()
    assert receipt.closed
    search = receipt.parts[0].checks["search"]
    assert search["overlap_at_10"] < 1
    assert search["rank_change_accepted"]


@pytest.mark.parametrize("distance", ["l2", "ip"])
def test_vectors_of_one_length_rank_alike(home: Database, tmp_path: Path, distance: Any) -> None:
    same = [replace(one, embedding=one.embedding * np.float32(3)) for one in records(40)]  # type: ignore[operator]
    receipt = migration(RecordSource({"papers": same}, distance=distance), home, tmp_path).run()
    assert receipt.closed
    assert receipt.parts[0].checks["search"]["overlap_at_10"] == 1.0


def test_documents_with_the_same_vector_are_ties(home: Database, tmp_path: Path) -> None:
    twins = [replace(one, embedding=record(number % 2).embedding) for number, one in enumerate(records(60))]
    receipt = migration(RecordSource({"papers": twins}), home, tmp_path).run()
    assert receipt.parts[0].checks["search"]["overlap_at_10"] == 1.0


# What verifying finds


def verified(home: Database, tmp_path: Path) -> Receipt:
    return migration(papers(), home, tmp_path).verify()


def test_verifying_finds_a_flipped_bit(home: Database, tmp_path: Path) -> None:
    migration(papers(), home, tmp_path).run()
    assert verified(home, tmp_path).closed
    values = record(7).embedding.copy()  # type: ignore[union-attr]
    values.view(np.uint32)[3] ^= 1
    execute(home, "UPDATE documents_papers SET embedding = %s WHERE id = 'id 7'", values)
    receipt = verified(home, tmp_path)
    assert receipt.open() == [f"papers: 1 different in {TABLE}"]
    assert receipt.parts[0].different.examples == [{"id": "id 7", "fields": ["embedding"]}]


def test_verifying_finds_swapped_documents(home: Database, tmp_path: Path) -> None:
    migration(papers(), home, tmp_path).run()
    texts = [record(3).content, record(4).content]
    execute(home, "UPDATE documents_papers SET content = CASE id WHEN 'id 3' THEN %s ELSE %s END WHERE id IN ('id 3', 'id 4')",
            texts[1], texts[0])  # fmt: skip
    found = verified(home, tmp_path).parts[0].different.examples
    assert sorted(one["id"] for one in found) == ["id 3", "id 4"]
    assert {tuple(one["fields"]) for one in found} == {("content",)}


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ("meta = meta || '{\"number\": 7.0}'", ["meta"]),
        ("meta = NULL, content = NULL", ["content", "meta"]),
        ("embedding = NULL", ["embedding"]),
        ("blob_data = 'x'", ["blob"]),
    ],
)
def test_verifying_finds_any_other_change(home: Database, tmp_path: Path, change: str, fields: list[str]) -> None:
    migration(papers(), home, tmp_path).run()
    execute(home, "UPDATE documents_papers SET " + change + " WHERE id = 'id 7'")  # noqa: S608
    assert verified(home, tmp_path).parts[0].different.examples == [{"id": "id 7", "fields": fields}]


def test_verifying_finds_missing_and_extra_rows(home: Database, tmp_path: Path) -> None:
    migration(papers(), home, tmp_path).run()
    execute(home, "DELETE FROM documents_papers WHERE id = 'id 9'")
    execute(home, "INSERT INTO documents_papers (id, content) VALUES ('stranger', 'x')")
    (part,) = verified(home, tmp_path).parts
    assert (part.missing.count, part.missing.examples) == (1, ["id 9"])
    assert (part.extra.count, part.extra.examples) == (1, ["stranger"])


def test_a_run_puts_back_what_is_missing(home: Database, tmp_path: Path) -> None:
    first = migration(papers(), home, tmp_path).run()
    execute(home, "DELETE FROM documents_papers WHERE id IN ('id 2', 'id 33')")
    assert without_run(migration(papers(), home, tmp_path).run()) == without_run(first)


def test_a_source_that_changes_meanwhile_keeps_the_books_open(home: Database, tmp_path: Path) -> None:
    source = papers()

    def change(progress: Progress) -> None:
        if progress.step == "verifying" and len(source.contents["papers"]) == 35:
            source.contents["papers"].append(record(99))

    receipt = migration(source, home, tmp_path, on_progress=change).run()
    assert receipt.open()[0] == "The source has changed while it was read"


def test_verifying_a_source_that_has_changed_says_so(home: Database, tmp_path: Path) -> None:
    run = migration(papers(), home, tmp_path).run()
    receipt = migration(papers(36), home, tmp_path).verify()
    assert f"it has changed since run {run.run['id']}" in receipt.warnings[0]
    assert receipt.parts[0].missing.examples == ["id 35"]


def test_verifying_knows_what_was_decided(home: Database, tmp_path: Path) -> None:
    source = RecordSource({"papers": HOSTILE, "others": records(3)})
    chosen = {"nul": "keep", "not_finite": "reject", "missing_vector": "keep"}
    migration(source, home, tmp_path, on=chosen, parts=("papers",), table="documents_mine").run()
    receipt = migration(source, home, tmp_path).verify()
    assert receipt.open() == []
    assert [part.target for part in receipt.parts] == ["documents_mine"]


# Tables that hold something already


def test_other_documents_stay_and_equal_ones_are_not_written_again(home: Database, tmp_path: Path) -> None:
    migration(RecordSource({"papers": records(10)}), home, tmp_path).run()
    receipt = migration(RecordSource({"papers": records(10, first=5)}), home, tmp_path).run()
    (part,) = receipt.parts
    assert receipt.closed
    assert (part.records, part.copied) == (10, 10)
    assert part.facts["other_documents_in_table"] == 5
    (undone,) = roll_back(home, find_run(home, receipt.run["id"]))
    assert (undone["dropped"], undone["deleted"]) == (False, 5)
    assert set(stored(home)) == {f"id {number}" for number in range(10)}


@pytest.mark.parametrize("policy", ["keep", "reject"])
def test_another_document_under_an_id_is_never_overwritten_untold(home: Database, tmp_path: Path, policy: str) -> None:
    migration(papers(10), home, tmp_path).run()
    changed = RecordSource({"papers": [*records(9), record(9, content="newer", meta={"n": 1})]})
    before = stored(home)
    with pytest.raises(UndecidedError, match="1 record needs a decision, conflict"):
        migration(changed, home, tmp_path).run()
    assert stored(home) == before

    receipt = migration(changed, home, tmp_path, on={"conflict": policy}).run()
    assert receipt.closed
    assert stored(home)["id 9"][1] == ("newer" if policy == "keep" else record(9).content)
    line = json.loads((tmp_path / "rejects.jsonl").read_text().splitlines()[0])
    assert (line["id"], line["kind"]) == ("id 9", "conflict")
    assert line["original"]["content"] == (record(9).content if policy == "keep" else "newer")
    again = migration(changed, home, tmp_path, on={"conflict": policy}).run()
    assert without_run(again) == without_run(receipt)
    roll_back(home, find_run(home, receipt.run["id"]))
    assert stored(home) == before


def test_several_parts_each_get_a_table(home: Database, tmp_path: Path) -> None:
    source = RecordSource({"Papers!": records(3), "papers": records(4), "empty": [], "t/d/x": records(2)})
    receipt = migration(source, home, tmp_path).run()
    assert receipt.closed
    tables = [part.target for part in receipt.parts]
    assert len(set(tables)) == 3
    assert tables[2] == "documents_t_d_x"
    assert all(table.startswith("documents_papers_") for table in tables[:2])
    assert receipt.left_out == [{"name": "empty", "reason": "empty"}]
    assert any("each" in warning.lower() for warning in receipt.warnings)


def test_several_parts_in_one_table_keep_their_ids_apart(home: Database, tmp_path: Path) -> None:
    source = RecordSource({"a": records(3), "b": records(3, first=2)})
    with pytest.raises(UndecidedError, match="id_collision"):
        migration(source, home, tmp_path, table="documents_both").run()
    receipt = migration(source, home, tmp_path, table="documents_both", on={"id_collision": "keep"}).run()
    assert receipt.open() == []
    assert [(part.copied, part.changed) for part in receipt.parts] == [(3, 0), (2, 1)]
    assert len(stored(home, "documents_both")) == 6
    execute(home, "DELETE FROM documents_both WHERE id = 'id 4'")
    assert migration(source, home, tmp_path).verify().parts[1].missing.examples == ["id 4"]


def test_a_rollback_does_not_take_what_others_have_written(home: Database, tmp_path: Path) -> None:
    run = migration(papers(), home, tmp_path).run().run["id"]
    execute(home, "INSERT INTO documents_papers (id, content) VALUES ('mine', 'x')")
    with pytest.raises(GuardError, match="with 35 documents, but has 36"):
        roll_back(home, find_run(home, run))
    execute(home, "DELETE FROM documents_papers WHERE id = 'mine'")
    roll_back(home, find_run(home, run))
    assert [model.name for model in list_models(home)] == ["all-minilm-l6-v2", "tiny"]
    with pytest.raises(InvalidInputError, match="it has none"):
        find_run(home, run)


# What cannot be


def test_refusals(home: Database, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"named 'x' was expected in the source, which holds papers \(35\)"):
        migration(papers(), home, tmp_path, parts=("x",)).run()
    with pytest.raises(InvalidInputError, match=r"the source holds a \(0\)"):
        migration(RecordSource({"a": []}), home, tmp_path).run()
    with pytest.raises(InvalidInputError, match="vectors of 3 dimensions, but tests/tiny gives 8"):
        migration(RecordSource({"a": [record(1, embedding=vector(1, 2, 3))]}, dimension=3), home, tmp_path).run()
    with pytest.raises(InvalidInputError, match="small letters"):
        migration(papers(), home, tmp_path, table='x"; DROP').run()
    with pytest.raises(GuardError, match="belongs to no model"):
        migration(papers(), home, tmp_path, table="sources").run()
    long = RecordSource({"a": [record(1, dimension=5000)]}, dimension=5000)
    with pytest.raises(InvalidInputError, match="pgvector can index up to 4,000"):
        migration(long, home, tmp_path, model="some/large").run()


def test_a_source_that_gives_less_than_it_says_keeps_the_books_open(home: Database, tmp_path: Path) -> None:
    class Forgetful(RecordSource):
        def records(self, part: Any, *, after: Any = None) -> Iterator[Record]:
            return iter(list(super().records(part, after=after))[:-1])

    receipt = migration(Forgetful({"papers": records(5)}), home, tmp_path).run()
    assert receipt.open() == ["papers: count: the source says 5 records, but 4 could be read"]


def test_large_vectors_go_to_half_precision(home: Database, tmp_path: Path) -> None:
    source = RecordSource({"large": [record(n, dimension=2500) for n in range(12)]}, dimension=2500)
    receipt = migration(source, home, tmp_path, model="some/large", on={"half_precision": "keep"}).run()
    assert receipt.open() == []
    assert receipt.parts[0].changes["half_precision"].records == 12


def test_two_runs_into_one_table_take_turns(home: Database, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def other(progress: Progress) -> None:
        if progress.step == "loading" and progress.done == 10:
            try:
                migration(papers(), home, tmp_path).run()
            except GuardError as exc:
                errors.append(exc)

    assert migration(papers(), home, tmp_path, on_progress=other).run().closed
    assert "being loaded by another process" in str(errors[0])


def test_a_database_that_goes_away_leaves_what_was_committed(home: Database, tmp_path: Path) -> None:
    def cut(progress: Progress) -> None:
        if progress.step == "loading" and progress.done == 20:
            execute(home, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                          "AND datname = current_database()")  # fmt: skip

    with pytest.raises((psycopg.Error, DatabaseError)):
        migration(papers(), home, tmp_path, on_progress=cut).run()
    assert migration(papers(), home, tmp_path).run().closed
