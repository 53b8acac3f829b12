"""What a sync plans, against a ledger of its own making."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from database.errors import GuardError
from database.ledger import Ledger, SourceState
from pipelines.source_files import is_below
from pipelines.source_metadata import OutsideMetadata, PathPattern
from pipelines.sync import SyncPlan, SyncRules, plan_sync

RULES = SyncRules(fingerprint="v1", suffixes=frozenset({".txt", ".md"}), max_file_bytes=1000)
LONG_AGO = 10_000_000_000


class MemoryLedger:
    """What a plan needs of a ledger, and the effect of applying a plan."""

    def __init__(self) -> None:
        self.states: dict[str, SourceState] = {}

    def read(self, roots: Sequence[str]) -> Mapping[str, SourceState]:
        return {name: s for name, s in self.states.items() if any(is_below(name, root) for root in roots)}

    def apply(self, plan: SyncPlan) -> None:
        for state in plan.removed:
            del self.states[state.source]
        for planned in plan.moved:
            assert planned.previous is not None
            del self.states[planned.previous.source]
        for planned in [*plan.moved, *plan.to_convert]:
            self.states[planned.state.source] = replace(planned.state, chunks=1)
        for state in [*plan.touched, *plan.refused]:
            self.states[state.source] = state


class Folder:
    """A folder of old files, with its ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = MemoryLedger()

    def write(self, name: str, text: str, *, age: float = 100) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
        return path

    def plan(self, *roots: str, **changes: Any) -> SyncPlan:
        paths = [self.path / root for root in roots] or [self.path]
        return plan_sync(paths, cast(Ledger, self.ledger), rules=replace(RULES, **changes))

    def sync(self, *roots: str, **changes: Any) -> SyncPlan:
        plan = self.plan(*roots, **changes)
        self.ledger.apply(plan)
        return plan


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def names(items: Sequence[Any]) -> list[str]:
    return sorted(os.path.basename(getattr(item, "state", item).source) for item in items)


def test_new_files_are_added(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.write("b/c.md", "c")
    plan = folder.sync()
    assert names(plan.added) == ["a.txt", "c.md"]
    assert not folder.plan().to_convert


def test_nothing_to_do_is_an_empty_plan(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.sync()
    plan = folder.plan()
    assert plan.is_empty
    assert names(plan.unchanged) == ["a.txt"]


def test_old_files_are_not_read_again(folder: Folder) -> None:
    path = folder.write("a.txt", "a")
    folder.sync()
    path.write_text("b")  # the same size …
    os.utime(path, ns=(0, folder.ledger.states[str(path)].mtime_ns))  # … and time
    assert names(folder.plan().unchanged) == ["a.txt"]


def test_files_that_were_new_when_looked_at_are_read_again(folder: Folder) -> None:
    path = folder.write("a.txt", "a", age=0)
    folder.sync()
    path.write_text("b")
    os.utime(path, ns=(0, folder.ledger.states[str(path)].mtime_ns))
    assert names(folder.plan().changed) == ["a.txt"]


def test_an_early_look_is_replaced_once_the_file_has_settled(folder: Folder) -> None:
    path = folder.write("a.txt", "a")
    folder.sync()
    known = folder.ledger.states[str(path)]
    folder.ledger.states[str(path)] = replace(known, checked_at_ns=known.mtime_ns + 1)
    plan = folder.sync()
    assert names(plan.touched) == names(plan.unchanged) == ["a.txt"]
    assert folder.plan().is_empty


def test_changed_bytes(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.sync()
    folder.write("a.txt", "bb")
    plan = folder.plan()
    assert names(plan.changed) == ["a.txt"]
    assert plan.changed[0].previous == folder.ledger.states[plan.changed[0].state.source]


def test_a_touched_file_with_equal_bytes_is_unchanged(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.sync()
    folder.write("a.txt", "a", age=50)
    plan = folder.sync()
    assert not plan.to_convert
    assert names(plan.touched) == names(plan.unchanged) == ["a.txt"]
    assert folder.plan().is_empty


def test_another_fingerprint_changes_everything(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.sync()
    assert names(folder.plan(fingerprint="v2").changed) == ["a.txt"]


def test_outside_metadata_changes_a_source(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.sync()
    assert names(folder.plan(metadata=OutsideMetadata(given={"x": 1})).changed) == ["a.txt"]
    folder.write("a.txt.meta.json", '{"x": 1}')
    plan = folder.sync()
    assert names(plan.changed) == ["a.txt"]
    assert plan.changed[0].meta == {"x": 1}
    assert folder.plan().is_empty


def test_a_moved_file_is_not_converted(folder: Folder) -> None:
    path = folder.write("a.txt", "a")
    folder.sync()
    (folder.path / "sub").mkdir()
    path.rename(folder.path / "sub" / "b.txt")
    plan = folder.sync()
    assert names(plan.moved) == ["b.txt"]
    assert plan.moved[0].previous is not None
    assert plan.moved[0].previous.source == str(path)
    assert not [*plan.to_convert, *plan.removed]
    assert folder.plan().is_empty


def test_a_copy_is_added(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.sync()
    folder.write("b.txt", "a")
    plan = folder.plan()
    assert names(plan.added) == ["b.txt"]
    assert not plan.moved


def test_equal_files_that_move_keep_their_names(folder: Folder) -> None:
    for name in ("x/a.txt", "x/b.txt"):
        folder.write(name, "same")
    folder.sync()
    (folder.path / "x").rename(folder.path / "y")
    pairs = {
        (p.previous and os.path.basename(p.previous.source), os.path.basename(p.path)) for p in folder.plan().moved
    }
    assert pairs == {("a.txt", "a.txt"), ("b.txt", "b.txt")}


@pytest.mark.parametrize("change", ["suffix", "pattern"])
def test_a_new_name_that_means_something_else_is_no_move(folder: Folder, change: str) -> None:
    path = folder.write("2023/a.txt", "a")
    metadata = OutsideMetadata(patterns=[PathPattern("{year}/…")])
    folder.sync(metadata=metadata)
    (folder.path / "2024").mkdir()
    path.rename(folder.path / ("2023/a.md" if change == "suffix" else "2024/a.txt"))
    plan = folder.plan(metadata=metadata)
    assert (len(plan.added), len(plan.removed), len(plan.moved)) == (1, 1, 0)


def test_only_what_is_below_the_roots_is_removed(folder: Folder) -> None:
    for name in ("a/1.txt", "b/2.txt"):
        folder.write(name, name)
    folder.sync()
    for name in ("a/1.txt", "b/2.txt"):
        (folder.path / name).unlink()
    assert names(folder.plan("a").removed) == ["1.txt"]


def test_nothing_is_removed_below_a_folder_that_cannot_be_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("a/1.txt", "1")
    folder.write("b.txt", "b")
    folder.sync()
    (folder.path / "b.txt").unlink()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if path == str(folder.path / "a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    plan = folder.plan()
    assert names(plan.removed) == ["b.txt"]
    assert plan.closed == {str(folder.path / "a"): "the folder cannot be read: Permission denied"}


def test_what_is_too_large_is_refused_once(folder: Folder) -> None:
    folder.write("a.txt", "a" * 1001)
    plan = folder.sync()
    assert "1,001 bytes" in (plan.refused[0].reason or "")
    again = folder.plan()
    assert again.is_empty
    assert names(again.kept_out) == ["a.txt"]
    assert names(folder.plan(max_file_bytes=2000).changed) == ["a.txt"]


def test_a_damaged_sidecar_keeps_its_file_out_until_it_is_mended(folder: Folder) -> None:
    folder.write("a.txt", "a")
    folder.write("a.txt.meta.json", "{")
    assert "a.txt.meta.json is not JSON" in (folder.sync().refused[0].reason or "")
    assert names(folder.plan().kept_out) == ["a.txt"]
    folder.write("a.txt.meta.json", "{}")
    assert names(folder.plan().changed) == ["a.txt"]


def test_what_failed_is_tried_again_when_it_changes_or_when_asked(folder: Folder) -> None:
    path = folder.write("a.txt", "a")
    folder.sync()
    folder.ledger.states[str(path)] = replace(folder.ledger.states[str(path)], reason="damaged")
    assert names(folder.plan().kept_out) == ["a.txt"]
    assert names(folder.plan(retry=True).changed) == ["a.txt"]
    folder.write("a.txt", "b")
    assert names(folder.plan().changed) == ["a.txt"]


def test_an_unreadable_file_is_refused_and_read_as_soon_as_it_can_be(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("a.txt", "a")
    with monkeypatch.context() as patched:

        def refuse(path: str) -> str:
            raise PermissionError(13, "Permission denied")

        patched.setattr("pipelines.sync.file_hash", refuse)
        assert folder.sync().refused[0].reason == "it cannot be read: Permission denied"
        assert names(folder.plan().kept_out) == ["a.txt"]
    assert names(folder.plan().changed) == ["a.txt"]


def fill(folder: Folder, *, files: int, gone: int) -> None:
    paths = [folder.write(f"{number}.txt", str(number)) for number in range(files)]
    folder.sync()
    for path in paths[:gone]:
        path.unlink()


def test_a_mass_delete_is_refused(folder: Folder) -> None:
    fill(folder, files=20, gone=11)
    with pytest.raises(GuardError, match="11 of the 20") as refusal:
        folder.plan()
    assert "--allow-mass-delete" in refusal.value.hint
    assert len(folder.plan(allow_mass_delete=True).removed) == 11


@pytest.mark.parametrize(("files", "gone"), [(20, 10), (200, 20)])
def test_few_or_a_small_share_may_go(folder: Folder, files: int, gone: int) -> None:
    fill(folder, files=files, gone=gone)
    assert len(folder.plan().removed) == gone


def test_moved_files_are_not_gone(folder: Folder) -> None:
    for number in range(20):
        folder.write(f"x/{number}.txt", str(number))
    folder.sync()
    (folder.path / "x").rename(folder.path / "y")
    assert len(folder.plan().moved) == 20


def test_each_root_is_guarded_by_itself(folder: Folder) -> None:
    for number in range(200):
        folder.write(f"big/{number}.txt", f"big {number}")
    for number in range(11):
        folder.write(f"small/{number}.txt", f"small {number}")
    folder.sync()
    for path in (folder.path / "small").iterdir():
        path.unlink()
    with pytest.raises(GuardError, match="11 of the 11"):
        folder.plan("big", "small")
