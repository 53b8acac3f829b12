"""Reading the vectors of a Chroma segment."""

from __future__ import annotations

import os
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chroma_directory import _write_index, block
from database.errors import InvalidInputError
from migration.sources.chroma_segment import UNREADABLE, Layout, Segment

ROWS, DIMENSION = 2500, 8
FILES = ("header.bin", "data_level0.bin", "length.bin")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write_index(tmp_path, ROWS, DIMENSION, 3)
    return tmp_path


def opened(folder: Path, *, cosine: bool = True, dimension: int | None = DIMENSION) -> closing[Segment]:
    return closing(Segment(folder, dimension=dimension, cosine=cosine))


def edit(folder: Path, element: int, at: int, data: bytes) -> None:
    """Overwrite a part of an element; `at` counts from its end where it is negative."""
    layout = Layout.read(folder / "header.bin")
    with (folder / "data_level0.bin").open("r+b") as file:
        file.seek(layout.size * element + at % layout.size)
        file.write(data)


def test_each_label_has_its_vector_times_its_norm(folder: Path) -> None:
    numbers, vectors = zip(*(block(number, ROWS, DIMENSION, 3) for number in range(3)), strict=True)
    labels, given = np.concatenate(numbers), np.concatenate(vectors)
    with opened(folder) as segment:
        found = dict(segment.elements_of((b"%d" % label, int(label)) for label in labels))
        elements = np.array([found[b"%d" % label] for label in labels])
        np.testing.assert_allclose(segment.vectors(elements), given, rtol=1e-6)
        np.testing.assert_array_equal(elements, np.arange(ROWS))


@pytest.mark.parametrize("count", [0, 1, 7, ROWS])
def test_elements_may_be_asked_for_in_any_order(folder: Path, count: int) -> None:
    wanted = np.random.default_rng(1).permutation(ROWS)[:count]
    with opened(folder) as segment:
        np.testing.assert_array_equal(segment.vectors(wanted), segment.vectors(np.arange(ROWS))[wanted])


def test_elements_far_apart(tmp_path: Path) -> None:
    _write_index(tmp_path, 40, 20_000, 3)
    with opened(tmp_path, dimension=None) as segment:
        alone = [segment.vectors(np.array([element]))[0] for element in (39, 0, 20)]
        np.testing.assert_array_equal(segment.vectors(np.array([39, 0, 20])), alone)


def test_labels_that_are_deleted_or_not_there(folder: Path) -> None:
    edit(folder, 5, 2, b"\x01")
    with opened(folder) as segment:
        (label,) = struct.unpack("<Q", (folder / "data_level0.bin").read_bytes()[6 * segment.layout.size - 8 :][:8])
        asked = [(b"deleted", label), (b"zero", 0), (b"high", ROWS + 1), (b"negative", -1)]
        assert dict(segment.elements_of(asked)) == dict.fromkeys(
            (b"deleted", b"zero", b"high", b"negative"), UNREADABLE
        )


def test_of_two_elements_with_a_label_the_last_counts(folder: Path) -> None:
    edit(folder, 3, -8, struct.pack("<Q", 9_999))
    edit(folder, 8, -8, struct.pack("<Q", 9_999))
    with opened(folder) as segment:
        assert list(segment.elements_of([(b"a", 9_999)])) == [(b"a", 8)]


def test_an_index_for_another_distance_keeps_its_vectors(folder: Path) -> None:
    """Its `length.bin` holds whatever was in memory, which must not be multiplied with."""
    garbage = np.tile(np.array([-3.2163267e33, 4.5627679e-41], dtype="<f4"), ROWS // 2)
    (folder / "length.bin").write_bytes(garbage.tobytes())
    with opened(folder, cosine=True) as segment:
        assert segment.made_for_cosine is False
        np.testing.assert_allclose(np.linalg.norm(segment.vectors(np.arange(ROWS)), axis=1), 1, rtol=1e-5)


def test_an_index_for_the_cosine_is_known_by_its_files(folder: Path) -> None:
    with opened(folder, cosine=False) as segment:
        assert segment.made_for_cosine is True
        assert np.linalg.norm(segment.vectors(np.arange(10)), axis=1).max() > 1.5


@pytest.mark.parametrize("cosine", [True, False])
def test_zeros_tell_nothing(folder: Path, cosine: bool) -> None:
    layout = Layout.read(folder / "header.bin")
    for element in range(ROWS):
        edit(folder, element, layout.vector_at, bytes(4 * DIMENSION))
    with opened(folder, cosine=cosine) as segment:
        assert segment.made_for_cosine is None
        assert not segment.vectors(np.arange(ROWS)).any()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_or_missing_is_named(folder: Path, name: str) -> None:
    size = (folder / name).stat().st_size
    for shorter in (size - 1, size // 2, 0):
        os.truncate(folder / name, shorter)
        with pytest.raises(InvalidInputError, match=name), opened(folder):
            pass
    (folder / name).unlink()
    with pytest.raises(InvalidInputError, match=name), opened(folder):
        pass


def test_vectors_of_another_length_than_the_collections_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="vectors of length 8, but the collection holds vectors of length 9"):
        opened(folder, dimension=9)


def test_any_bit_of_the_header_that_changes_the_layout_is_noticed(folder: Path) -> None:
    header = bytearray((folder / "header.bin").read_bytes())
    for bit in [*range(96), *range(160, 416)]:  # all but the room for more elements, which does not matter
        changed = header.copy()
        changed[bit // 8] ^= 1 << bit % 8
        (folder / "header.bin").write_bytes(changed)
        layout = Layout.read(folder / "header.bin") if not _refused(folder) else None
        assert layout is None or layout.elements < ROWS, f"bit {bit}"


def _refused(folder: Path) -> bool:
    try:
        opened(folder).thing.close()
    except InvalidInputError:
        return True
    return False
