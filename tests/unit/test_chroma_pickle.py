"""Reading a Chroma segment's pickle without unpickling."""

from __future__ import annotations

import os
import pickle
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import pytest

from database.errors import InvalidInputError
from migration.sources.chroma_pickle import SegmentPickle

MODULE = "chromadb.segment.impl.vector.local_persistent_hnsw"


class PersistentData:
    """As chromadb 0.4 to 0.6 pickle it."""

    def __init__(self, labels: dict[str, int], *, max_seq_id: int | None) -> None:
        self.dimensionality = 8
        self.total_elements_added = len(labels)
        if max_seq_id is not None:
            self.max_seq_id = max_seq_id
        self.id_to_label = labels
        self.label_to_id = {label: id for id, label in labels.items()}
        self.id_to_seq_id = dict.fromkeys(labels, 1)


PersistentData.__module__, PersistentData.__qualname__ = MODULE, "PersistentData"


@pytest.fixture
def picklable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class under chromadb's name for it."""
    for depth in range(1, 6):
        name = ".".join(MODULE.split(".")[:depth])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[MODULE], "PersistentData", PersistentData, raising=False)


def read(path: Path, data: bytes) -> tuple[dict[str, int], SegmentPickle]:
    path.write_bytes(data)
    with SegmentPickle(path) as found:
        return {id.decode("utf-8", "surrogatepass"): label for id, label in found.labels()}, found


def serde(labels: dict[str, int], *, max_seq_id: bytes = b"N") -> bytes:
    """As chromadb writes it from 1.0 on."""
    texts = {id: b"X" + len(id.encode()).to_bytes(4, "little") + id.encode() for id in labels}
    numbers = {id: b"J" + label.to_bytes(4, "little") for id, label in labels.items()}
    fields = {
        "dimensionality": b"J\x08\0\0\0",
        "total_elements_added": b"J\x05\0\0\0",
        "max_seq_id": max_seq_id,
        "id_to_label": b"}(" + b"".join(texts[id] + numbers[id] for id in labels) + b"u",
        "label_to_id": b"}(" + b"".join(numbers[id] + texts[id] for id in labels) + b"u",
    }
    named = (b"X" + len(name).to_bytes(4, "little") + name.encode() + value for name, value in fields.items())
    return b"\x80\x03}(" + b"".join(named) + b"u."


@pytest.mark.usefixtures("picklable")
@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 70_000])
def test_the_object_of_older_versions(tmp_path: Path, count: int, protocol: int) -> None:
    labels = {f"id {number} 😀": number + 1 for number in range(count)}
    found, opened = read(tmp_path / "pickle", pickle.dumps(PersistentData(labels, max_seq_id=590), protocol))
    assert found == labels
    assert opened.max_seq_id == 590
    assert opened.fields["dimensionality"] == 8


@pytest.mark.usefixtures("picklable")
def test_without_the_number_that_is_in_a_table_from_0_5_6_on(tmp_path: Path) -> None:
    _, opened = read(tmp_path / "pickle", pickle.dumps(PersistentData({"a": 1}, max_seq_id=None)))
    assert opened.max_seq_id is None


@pytest.mark.usefixtures("picklable")
def test_ids_of_any_length_and_ids_that_are_the_name_of_a_field(tmp_path: Path) -> None:
    """Python pickles a text that stood before as a reference to it."""
    ids = ["", "x" * 255, "é" * 128, "y" * 300, "z" * 200_000, "dimensionality", "max_seq_id", "\0", "PersistentData"]
    labels = {sys.intern(id): number for number, id in enumerate(ids, 1)}
    assert read(tmp_path / "pickle", pickle.dumps(PersistentData(labels, max_seq_id=1)))[0] == labels


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_the_dictionary_of_newer_versions(tmp_path: Path, count: int) -> None:
    labels = {f"id {number} 😀": number + 1 for number in range(count)}
    found, opened = read(tmp_path / "pickle", serde(labels, max_seq_id=b"\x8a\x05\x01\0\0\0\x01"))
    assert found == labels
    assert opened.max_seq_id == 2**32 + 1


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    for value in (
        Hostile(),
        {"dimensionality": Hostile()},
        {"id_to_label": Hostile()},
        {"id_to_label": {"a": Hostile()}},
    ):
        with pytest.raises(InvalidInputError, match="not what chromadb writes"):
            read(tmp_path / "pickle", pickle.dumps(value, 4))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"other": 1},
        {"id_to_label": []},
        {"id_to_label": {"a": "b"}},
        {"id_to_label": {1: 2}},
        {"max_seq_id": []},
    ],
    ids=repr,
)
def test_anything_else_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"index_metadata\.pickle is not what chromadb writes"):
        read(tmp_path / "index_metadata.pickle", pickle.dumps(value, 4))


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = serde({f"id {number}": number for number in range(20)})
    for size in range(len(whole)):
        with pytest.raises(InvalidInputError, match="pickle"):
            read(tmp_path / "pickle", whole[:size])
        with pytest.raises(InvalidInputError, match="pickle"):
            read(tmp_path / "pickle", whole[: size // 2] + b".")


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x70"])
def test_a_length_that_lies_takes_no_memory(tmp_path: Path, size: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(InvalidInputError):
        read(tmp_path / "pickle", serde({"a": 1}).replace(b"X\x01\0\0\0a", b"X" + size + b"a"))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(serde({f"a rather long id {number:060d}": number for number in range(60_000)}))
    tracemalloc.start()
    with SegmentPickle(tmp_path / "pickle") as opened:
        assert sum(1 for _ in opened.labels()) == 60_000
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
