"""Plans applied to a real database: what stands in the ledger and in the table afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from database.connection import Database
from database.errors import DatabaseUnavailableError, SchemaError
from database.ledger import Ledger
from database.models import active_model
from pipelines.conversion_worker import ConversionError
from pipelines.indexing_driver import IndexingDriver
from pipelines.indexing_run import SyncResult
from pipelines.preparation import PreparedSource
from pipelines.source_metadata import OutsideMetadata
from pipelines.sync import SyncPlan, SyncRules, plan_sync
from tests.support.indexing import HashEmbedder, LineConverter, assert_books_agree

RULES = SyncRules(fingerprint="v1", suffixes=frozenset({".txt"}), max_file_bytes=1_000_000)


class Index:
    """A folder and the database that it is indexed in."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.ledger = Ledger(database, model=active_model(database))
        self.embedder = HashEmbedder()
        self.converter = LineConverter()
        settings = Settings(embedding_batch_size=8)
        self.driver = IndexingDriver(settings, ledger=self.ledger, embedder=self.embedder, converter=self.converter)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def plan(self, **rules: Any) -> SyncPlan:
        return plan_sync([self.folder], self.ledger, rules=SyncRules(**{**_as_dict(RULES), **rules}))

    def sync(self, **rules: Any) -> SyncResult:
        self.embedder.batches.clear()
        self.converter.converted.clear()
        return self.driver.apply(self.plan(**rules))

    def contents(self) -> list[str]:
        rows = self.database.read("SELECT content FROM documents_all_minilm_l6_v2 ORDER BY content")
        return [row["content"].strip() for row in rows]


def _as_dict(rules: SyncRules) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in ("fingerprint", "suffixes", "max_file_bytes")}


@pytest.fixture
def index(tmp_path: Path, database: Database) -> Iterator[Index]:
    index = Index(tmp_path, database)
    yield index
    assert_books_agree(database)


def counts(result: SyncResult) -> tuple[int, ...]:
    return (result.added, result.updated, result.moved, result.unchanged, result.removed, len(result.failed))


def test_new_files_are_converted_embedded_and_written(index: Index) -> None:
    index.write("a.txt", "one\ntwo\n")
    path = index.write("b.txt", "three\n")
    result = index.sync()
    assert counts(result) == (2, 0, 0, 0, 0, 0)
    assert (result.chunks, result.embedded, result.converted) == (3, 3, 2)
    assert index.contents() == ["one", "three", "two"]
    assert index.ledger.text(str(path)) == "three\n"


def test_a_second_sync_does_nothing(index: Index) -> None:
    index.write("a.txt", "one\n")
    index.sync()
    assert counts(index.sync()) == (0, 0, 0, 1, 0, 0)
    assert not index.converter.converted


def test_a_changed_file_embeds_only_what_changed(index: Index) -> None:
    index.write("a.txt", "one\ntwo\nthree\n")
    index.sync()
    index.write("a.txt", "one\nTWO\nthree\n")
    result = index.sync()
    assert counts(result) == (0, 1, 0, 0, 0, 0)
    assert index.embedder.embedded == ["TWO\n"]
    assert index.contents() == ["TWO", "one", "three"]


def test_a_shorter_file_loses_its_stale_chunks(index: Index) -> None:
    index.write("a.txt", "one\ntwo\nthree\n")
    index.sync()
    index.write("a.txt", "one\n")
    index.sync()
    assert index.contents() == ["one"]


def test_changed_metadata_reaches_the_chunks_without_embedding(index: Index) -> None:
    index.write("a.txt", "one\n")
    index.sync()
    index.write("a.txt.meta.json", '{"team": "sales"}')
    assert counts(index.sync()) == (0, 1, 0, 0, 0, 0)
    assert not index.embedder.embedded
    index.sync(metadata=OutsideMetadata(given={"year": 2024}))
    assert not index.embedder.embedded
    (row,) = index.database.read("SELECT meta FROM documents_all_minilm_l6_v2")
    assert (row["meta"]["team"], row["meta"]["year"]) == ("sales", 2024)


def test_another_title_is_embedded_again(index: Index) -> None:
    index.write("a.txt", "one\n")
    index.sync()
    index.sync(metadata=OutsideMetadata(given={"title": "Another"}))
    assert index.embedder.embedded == ["one\n"]


def test_a_moved_file_is_neither_converted_nor_embedded(index: Index) -> None:
    old = index.write("a.txt", "one\ntwo\n")
    index.sync()
    (index.folder / "sub").mkdir()
    new = old.rename(index.folder / "sub" / "new name.txt")
    assert counts(index.sync()) == (0, 0, 1, 0, 0, 0)
    assert not index.converter.converted
    metas = [row["meta"] for row in index.ledger.chunks(str(new))]
    assert [(m["source"], m["title"]) for m in metas] == [(str(new), "new name")] * 2
    assert index.ledger.text(str(old)) is None


def test_a_copy_at_the_old_name_of_a_moved_file(index: Index) -> None:
    old = index.write("a.txt", "one\n")
    index.sync()
    old.rename(index.folder / "b.txt")
    index.sync()
    index.write("a.txt", "one\n")
    assert counts(index.sync()) == (1, 0, 0, 1, 0, 0)
    assert index.contents() == ["one", "one"]


def test_a_moved_file_that_changes_keeps_the_embeddings_of_the_rest(index: Index) -> None:
    old = index.write("a.txt", "one\ntwo\n")
    index.sync(metadata=OutsideMetadata(given={"title": "Fixed"}))
    old.rename(index.folder / "b.txt")
    index.sync(metadata=OutsideMetadata(given={"title": "Fixed"}))
    index.write("b.txt", "one\nTWO\n")
    index.sync(metadata=OutsideMetadata(given={"title": "Fixed"}))
    assert index.embedder.embedded == ["TWO\n"]


def test_removed_files_are_removed(index: Index) -> None:
    index.write("a.txt", "one\n")
    index.write("b.txt", "two\n")
    index.sync()
    (index.folder / "b.txt").unlink()
    assert counts(index.sync()) == (0, 0, 0, 1, 1, 0)
    assert index.contents() == ["one"]


def test_a_file_that_came_back_is_not_removed(index: Index) -> None:
    path = index.write("a.txt", "one\n")
    index.sync()
    path.unlink()
    plan = index.plan()
    index.write("a.txt", "one\n")
    assert index.driver.apply(plan).removed == 0
    assert index.contents() == ["one"]


def test_a_damaged_file_is_kept_out_and_the_others_go_on(index: Index) -> None:
    bad = index.write("a.txt", "damaged\n")
    index.write("b.txt", "two\n")
    result = index.sync()
    assert counts(result) == (1, 0, 0, 0, 0, 1)
    assert result.failed == {str(bad): "it is damaged"}
    again = index.sync()
    assert again.failed == result.failed
    assert not index.converter.converted
    index.sync(retry=True)
    assert index.converter.converted == ["a.txt"]


def test_a_file_that_becomes_damaged_loses_its_chunks_until_it_is_mended(index: Index) -> None:
    index.write("a.txt", "one\n")
    index.sync()
    index.write("a.txt", "damaged\n")
    index.sync()
    assert index.contents() == []
    index.write("a.txt", "mended\n")
    assert counts(index.sync()) == (0, 1, 0, 0, 0, 0)
    assert index.contents() == ["mended"]


def test_a_file_that_vanishes_before_its_conversion_is_no_failure(index: Index) -> None:
    path = index.write("a.txt", "one\n")
    plan = index.plan()
    path.unlink()
    assert counts(index.driver.apply(plan)) == (0, 0, 0, 0, 0, 0)


def test_what_postgresql_cannot_hold_is_kept_out_alone(index: Index) -> None:
    bad = index.write("a.txt", "one\0\n")
    index.write("b.txt", "two\n")
    index.write("c.txt", "three\n")
    result = index.sync()
    assert counts(result) == (2, 0, 0, 0, 0, 1)
    assert "U+0000" in result.failed[str(bad)]
    assert index.contents() == ["three", "two"]


def test_batches_span_files_and_are_sorted_by_length(index: Index) -> None:
    for number in range(64):
        index.write(f"{number}.txt", "x" * (1 + number % 7) + f"{number}\n")
    index.sync()
    assert len(index.embedder.batches) <= 64 / 2
    assert all(batch == sorted(batch, key=len, reverse=True) for batch in index.embedder.batches)


def test_a_file_of_many_windows_is_one_source(index: Index) -> None:
    path = index.write("a.txt", "".join(f"line {number}\n" for number in range(1500)))
    assert index.sync().chunks == 1500
    assert [row["position"] for row in index.ledger.chunks(str(path))] == list(range(1500))


def test_an_interrupt_keeps_what_was_embedded(index: Index) -> None:
    for number in range(40):
        index.write(f"{number:02}.txt", f"{number}\n")

    def interrupt(result: SyncResult) -> None:
        if result.embedded >= 16 and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.driver.apply(index.plan(), on_progress=interrupt)
    done = index.driver.result
    assert 16 <= done.added == len(index.contents()) < 40
    assert_books_agree(index.database)
    assert counts(index.sync()) == (40 - done.added, 0, 0, done.added, 0, 0)


def test_a_database_that_goes_away_ends_the_sync(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        index.write(f"{number}.txt", f"{number}\n")
    with monkeypatch.context() as patched:

        def gone(_: object) -> None:
            raise DatabaseUnavailableError("The server closed it.")

        patched.setattr(index.ledger, "write", gone)
        with pytest.raises(DatabaseUnavailableError):
            index.driver.apply(index.plan())
    assert counts(index.sync()) == (200, 0, 0, 0, 0, 0)


def test_a_model_of_another_dimension_is_refused(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.write("a.txt", "one\n")
    monkeypatch.setattr("tests.support.indexing.DIMENSION", 5)
    with pytest.raises(SchemaError, match=r"holds vectors of 384 numbers, but .* gives 5"):
        index.sync()


def test_two_runs_at_once_agree(index: Index, database: Database) -> None:
    for number in range(60):
        index.write(f"{number}.txt", "".join(f"{number} {line}\n" for line in range(5)))
    others = [Index(index.folder, database) for _ in range(3)]
    plans = [other.plan() for other in others]
    threads = [
        threading.Thread(target=other.driver.apply, args=(plan,)) for other, plan in zip(others, plans, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.contents()) == 300
    assert index.plan().is_empty


def test_a_file_that_changes_while_it_is_indexed_is_seen_by_the_next_sync(index: Index) -> None:
    path = index.write("a.txt", "one\n")
    plan = index.plan()
    path.write_text("two\n")
    index.driver.apply(plan)
    assert index.contents() == ["two"]
    index.sync()
    path.write_text("one\n")
    index.sync()
    assert index.contents() == ["one"]


def test_conversion_runs_ahead_only_so_far(tmp_path: Path, database: Database) -> None:
    index = Index(tmp_path, database)
    for number in range(200):
        index.write(f"{number}.txt", "".join(f"{number} {line}\n" for line in range(10)))
    ahead: list[int] = []
    run = index.embedder.run

    def slow(documents: list[Any]) -> dict[str, Any]:
        time.sleep(0.002)
        ahead.append(10 * len(index.converter.converted) - len(index.embedder.embedded))
        return run(documents)

    index.embedder.run = slow  # type: ignore[method-assign]
    index.sync()
    assert max(ahead) <= 512 + 1024 + 20


def test_the_interrupt_of_a_slow_conversion_does_not_wait_for_it(index: Index) -> None:
    index.write("a.txt", "one\n")
    released = threading.Event()

    class Slow(LineConverter):
        def stop(self) -> None:
            released.set()

        def convert(self, path: str, *, meta: Mapping[str, Any]) -> PreparedSource:
            timer = threading.Timer(0.2, os.kill, (os.getpid(), 2))
            timer.start()
            released.wait(30)
            raise ConversionError("it was stopped")

    driver = IndexingDriver(Settings(), ledger=index.ledger, embedder=index.embedder, converter=Slow())
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        driver.apply(index.plan())
    assert time.monotonic() - started < 10
    assert not driver.result.failed
