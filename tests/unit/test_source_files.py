"""Which files a sync finds, and which it passes over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from database.errors import InvalidInputError
from pipelines.source_files import Scan, scan

SUFFIXES = frozenset({".txt", ".md"})


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def found_below(folder: Path, *paths: Path) -> list[str]:
    found = scan(paths or [folder], suffixes=SUFFIXES)
    return sorted(os.path.relpath(source, folder) for source in found.files)


def scanned(folder: Path) -> Scan:
    return scan([folder], suffixes=SUFFIXES)


def test_finds_known_suffixes_at_any_depth(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b/c.MD", "b/d/e.txt")
    assert found_below(tmp_path) == ["a.txt", "b/c.MD", "b/d/e.txt"]


def test_unknown_suffixes_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.png", "c/d.png", "Makefile")
    assert scanned(tmp_path).skipped == {".png": 2, "": 1}


def test_passes_over_hidden_and_generated_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", ".b.txt", ".git/c.txt", "node_modules/d.txt", "__pycache__/e.txt", "env/lib/f.txt")
    make(tmp_path, "env/pyvenv.cfg")
    assert found_below(tmp_path) == ["a.txt"]


def test_a_hidden_folder_can_be_named(tmp_path: Path) -> None:
    make(tmp_path, ".notes/a.txt")
    assert found_below(tmp_path, tmp_path / ".notes") == [".notes/a.txt"]


def test_a_file_can_be_a_root_whatever_its_suffix(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.txt")
    assert found_below(tmp_path, tmp_path / "a.png") == ["a.png"]


def test_sidecars_belong_to_files(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "a.txt.meta.json", "b.md", "b.meta.json", "c.txt")
    sidecars = {Path(f.source).name: f.sidecar and Path(f.sidecar).name for f in scanned(tmp_path).files.values()}
    assert sidecars == {"a.txt": "a.txt.meta.json", "b.md": "b.meta.json", "c.txt": None}


def test_a_root_that_is_a_file_has_its_sidecar(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "a.txt.meta.json")
    (file,) = scan([tmp_path / "a.txt"], suffixes=SUFFIXES).files.values()
    assert file.sidecar == str(tmp_path / "a.txt.meta.json")
    assert file.relative == "a.txt"


def test_overlapping_roots_count_once(tmp_path: Path) -> None:
    make(tmp_path, "a/b.txt", "a/c/d.txt", "a-b/e.txt")
    found = scan([tmp_path / "a" / "c", tmp_path / "a", tmp_path / "a-b", tmp_path / "a" / "b.txt"], suffixes=SUFFIXES)
    assert found.roots == (str(tmp_path / "a"), str(tmp_path / "a-b"))
    assert len(found.files) == 3


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is none"):
        scan([tmp_path / "missing"], suffixes=SUFFIXES)


def test_a_device_is_no_root() -> None:
    with pytest.raises(InvalidInputError, match="device"):
        scan(["/dev/null"], suffixes=SUFFIXES)


def test_link_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "a/b.txt")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    assert found_below(tmp_path) == ["a/b.txt"]


def test_linked_folders_and_files_outside_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "root/a.txt", "outside/b.txt", "lone/c.txt")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "c.txt").symlink_to(tmp_path / "lone" / "c.txt")
    (tmp_path / "root" / "same.txt").symlink_to(tmp_path / "root" / "a.txt")
    assert found_below(tmp_path / "root") == ["a.txt", "c.txt", "link/b.txt"]


def test_a_broken_link_is_reported_and_nothing_else_lost(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to(tmp_path / "missing.txt")
    found = scanned(tmp_path)
    assert len(found.files) == 1
    assert list(found.closed) == [str(tmp_path / "b.txt")]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))).write_text("x")
    ((file, reason),) = scanned(tmp_path).refused
    assert file.source.endswith("caf\\xe9.txt")
    assert "UTF-8" in reason


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert found_below(tmp_path) == []
