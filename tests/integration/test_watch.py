"""A watched folder: what changes in it arrives in the index."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config import Settings
from database.connection import Database
from database.errors import DatabaseUnavailableError, InvalidInputError, SynapseError
from database.ledger import Ledger
from database.models import active_model
from pipelines import watch as watching
from pipelines.indexing_driver import IndexingDriver
from pipelines.indexing_run import SyncResult
from pipelines.sync import SyncPlan, SyncRules
from pipelines.watch import watch
from tests.support.indexing import HashEmbedder, LineConverter, assert_books_agree

RULES = SyncRules(fingerprint="v1", suffixes=frozenset({".txt"}), max_file_bytes=1_000_000)


class Watched:
    """A folder that another thread watches."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.ledger = Ledger(database, model=active_model(database))
        self.synced: list[SyncResult] = []
        self.errors: list[SynapseError] = []
        self.stop = threading.Event()
        self.driver = IndexingDriver(Settings(), ledger=self.ledger, embedder=HashEmbedder(), converter=LineConverter())
        self.thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        watch(
            [self.folder],
            driver=self.driver,
            rules=RULES,
            on_sync=self._note,
            on_error=self.errors.append,
            stop=self.stop,
        )

    def _note(self, plan: SyncPlan, result: SyncResult) -> None:
        self.synced.append(result)

    def contents(self) -> list[str]:
        rows = self.database.read("SELECT content FROM documents_all_minilm_l6_v2 ORDER BY content")
        return [row["content"].strip() for row in rows]


def soon(holds: Callable[[], bool], *, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


@pytest.fixture
def watched(tmp_path: Path, database: Database) -> Iterator[Watched]:
    (tmp_path / "first.txt").write_text("first\n")
    watched = Watched(tmp_path, database)
    watched.thread.start()
    try:
        assert soon(lambda: watched.contents() == ["first"])
        yield watched
    finally:
        watched.stop.set()
        watched.thread.join(20)
    assert not watched.thread.is_alive()
    assert_books_agree(database)


def test_saved_moved_and_deleted_files(watched: Watched) -> None:
    (watched.folder / "new.txt").write_text("second\n")
    assert soon(lambda: watched.contents() == ["first", "second"])
    (watched.folder / "first.txt").write_text("changed\n")
    assert soon(lambda: watched.contents() == ["changed", "second"])
    (watched.folder / "sub").mkdir()
    (watched.folder / "new.txt").rename(watched.folder / "sub" / "moved.txt")
    assert soon(lambda: str(watched.folder / "sub" / "moved.txt") in watched.ledger.read())
    (watched.folder / "first.txt").unlink()
    assert soon(lambda: watched.contents() == ["second"])
    assert not watched.errors


def test_a_changed_sidecar_is_a_change(watched: Watched) -> None:
    (watched.folder / "first.txt.meta.json").write_text('{"team": "sales"}')
    path = str(watched.folder / "first.txt")
    assert soon(lambda: watched.ledger.chunks(path)[0]["meta"].get("team") == "sales")


def test_a_mass_delete_is_refused_and_the_watch_goes_on(watched: Watched) -> None:
    for number in range(12):
        (watched.folder / f"{number}.txt").write_text(f"{number}\n")
    assert soon(lambda: len(watched.contents()) == 13)
    for number in range(12):
        (watched.folder / f"{number}.txt").unlink()
    assert soon(lambda: any("--allow-mass-delete" in error.hint for error in watched.errors))
    for number in range(12):
        (watched.folder / f"{number}.txt").write_text(f"{number}\n")
    (watched.folder / "more.txt").write_text("more\n")
    assert soon(lambda: len(watched.contents()) == 14)


def test_a_database_that_was_away_is_tried_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RETRY", 0.1)
    with monkeypatch.context() as patched:

        def away(_: object) -> None:
            raise DatabaseUnavailableError("The server is down.")

        patched.setattr(watched.ledger, "read", away)
        (watched.folder / "new.txt").write_text("second\n")
        assert soon(lambda: bool(watched.errors))
    assert soon(lambda: watched.contents() == ["first", "second"])


def test_a_missing_root_is_an_error(tmp_path: Path, database: Database) -> None:
    missing = Watched(tmp_path / "missing", database)
    with pytest.raises(InvalidInputError):
        missing._watch()
