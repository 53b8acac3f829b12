"""Hashing files that are only read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from database.errors import InvalidInputError
from migration.sources.files import files_below, fingerprint, open_regular, read_whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "below" / "b").write_bytes(b"two")
    return tmp_path


def test_files_are_listed_at_every_depth_in_one_order(folder: Path) -> None:
    (folder / "below" / "a").touch()
    assert files_below(folder) == ["a", "below/a", "below/b"]


def test_a_fingerprint_is_the_same_for_the_same_files(folder: Path) -> None:
    assert len(fingerprint(folder)) == 64
    assert fingerprint(folder) == fingerprint(folder, ["below/b", "a"])


@pytest.mark.parametrize("change", ["content", "name", "more", "boundary"])
def test_a_fingerprint_tells_any_change(folder: Path, change: str) -> None:
    before = fingerprint(folder)
    if change == "content":
        (folder / "a").write_bytes(b"onE")
    elif change == "name":
        (folder / "a").rename(folder / "c")
    elif change == "more":
        (folder / "empty").touch()
    else:  # the same bytes, but for where one file ends
        (folder / "a").write_bytes(b"on")
        (folder / "below" / "b").write_bytes(b"etwo")
    assert fingerprint(folder) != before


def test_a_name_that_is_no_text_is_hashed_too(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff")).touch()
    assert len(fingerprint(folder)) == 64


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nowhere cannot be listed"):
        fingerprint(tmp_path / "nowhere")


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "broken").symlink_to(folder / "nowhere")
    for name in ("pipe", "broken", "below", "missing"):
        with pytest.raises(InvalidInputError, match=name):
            open_regular(folder / name)
    with pytest.raises(InvalidInputError, match="broken"):
        fingerprint(folder)


def test_no_more_is_read_than_asked_for(folder: Path) -> None:
    assert read_whole(folder / "a", at_most=2) == b"on"
