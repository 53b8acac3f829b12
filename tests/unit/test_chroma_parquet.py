"""A directory of chromadb 0.3: what its Parquet files hold, against what 0.3.29 itself read from them."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from database.errors import ConfigurationError, InvalidInputError
from migration.conversion import KINDS
from migration.source import Part, Record
from migration.sources.chroma_directory import ChromaDirectory
from migration.sources.chroma_parquet import ChromaParquet
from tests.support.chroma_databases import ExpectedCollection, expected, unpacked

VERSION = "0.3.29"
EXPECTED = expected(VERSION)
EMBEDDINGS, COLLECTIONS = "chroma-embeddings.parquet", "chroma-collections.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return unpacked(VERSION, tmp_path)


def part_of(source: ChromaParquet, name: str) -> Part:
    return next(part for part in source.parts() if part.name == name)


def records_of(folder: Path, name: str) -> list[Record]:
    source = ChromaParquet(folder)
    return list(source.records(part_of(source, name)))


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], **options: Any) -> None:
    """Write a file anew, with other rows."""
    table = parquet.read_table(path)
    parquet.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), path, **options)


def same(found: Any, wanted: Any) -> bool:
    """Equal in value and type, also NaN and the sign of zero."""
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def test_inventory(folder: Path) -> None:
    source = ChromaDirectory(folder)
    assert source.version == "0.3"
    parts = {part.name: part for part in source.parts()}
    assert list(parts) == sorted(parts), "in a fixed order"
    for collection in EXPECTED:
        part = parts.pop(collection.name)
        assert (part.id, part.count, part.refusal) == (collection.id, len(collection.records), None)
        assert part.distance == (collection.metadata or {}).get("hnsw:space", "l2")
        assert part.dimension == (8 if collection.records else None)
    assert parts == {}


def test_who_wrote_it(folder: Path) -> None:
    writers = {part.name: part.facts["writer"] for part in ChromaParquet(folder).parts()}
    assert writers["llama_index"] == "llama-index"
    assert writers["haystack_documents"] == "chroma-haystack"
    assert writers["langchain"] == "langchain"
    assert writers["plain"] is None


@pytest.mark.parametrize("collection", EXPECTED, ids=lambda each: each.name)
def test_every_record_is_as_that_version_held_it(collection: ExpectedCollection, folder: Path) -> None:
    records = records_of(folder, collection.name)
    assert sorted(record.id for record in records) == sorted(collection.records)
    for record in records:
        wanted = collection.records[record.id]
        assert record.content == wanted.document
        assert same(record.meta, wanted.metadata or {})
        assert wanted.embedding is not None
        assert record.embedding is not None
        assert record.embedding.dtype == np.float32
        with np.errstate(over="ignore"):
            assert record.embedding.tobytes() == wanted.embedding.astype(np.float32).tobytes()
        assert record.losses == ()
        assert record.notes == (("rounded_to_float32",) if wanted.embedding.dtype == np.float64 else ())


def test_awkward_values_are_among_them(folder: Path) -> None:
    documents = {record.content for record in records_of(folder, "awkward_documents")}
    assert {None, "", "a\0b"} <= documents
    metas = [record.meta for record in records_of(folder, "awkward_metadata")]
    assert {"n": 10**30} in metas
    assert {"text": "lone \ud800 surrogate"} in metas
    assert any(math.isnan(meta["x"]) for meta in metas if isinstance(meta.get("x"), float))
    vectors = [record.embedding for record in records_of(folder, "awkward_vectors") if record.embedding is not None]
    assert {len(vector) for vector in vectors} == {7, 8, 9}
    assert any(np.isnan(vector).any() for vector in vectors)


@pytest.mark.parametrize("size", [7, 100, 100_000])
def test_goes_on_after_any_record_whatever_the_row_groups(folder: Path, size: int) -> None:
    rewrite(folder / EMBEDDINGS, lambda rows: sorted(rows, key=lambda row: row["id"]), row_group_size=size)
    source = ChromaParquet(folder)
    part = part_of(source, "lives_l2")
    whole = [(record.position, record.id) for record in source.records(part)]
    assert len(whole) == part.count == 137
    for place in (0, 1, 60, 135, 136):
        rest = [(record.position, record.id) for record in source.records(part, after=whole[place][0])]
        assert rest == whole[place + 1 :]


def test_of_an_id_that_comes_again_the_last_row_is_taken(folder: Path) -> None:
    def twice(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mine = next(row for row in rows if row["id"] == "p1")
        same = next(row for row in rows if row["id"] == "p2")
        return [*rows, {**mine, "document": "second"}, same, {**mine, "document": "third"}]

    first = {record.id: record for record in records_of(folder, "plain")}
    rewrite(folder / EMBEDDINGS, twice, row_group_size=50)
    source = ChromaParquet(folder)
    part = part_of(source, "plain")
    records = list(source.records(part))
    assert part.count == len(records) == len({record.id for record in records}) == 40

    found = {record.id: record for record in records}
    assert found["p1"].content == "third"
    (loss,) = found["p1"].losses
    assert loss.kind in KINDS
    assert [each["content"] for each in loss.original] == [first["p1"].content, "second"]
    assert np.array_equal(loss.original[0]["embedding"], first["p1"].embedding)
    assert (found["p2"].losses, found["p2"].notes) == ((), ("repeated_in_source",)), "nothing is lost with an equal row"
    (last,) = source.records(part, after=records[-2].position)
    assert [len(loss.original) for loss in last.losses] == [2], "also where the rows before it are not read again"
    assert part_of(source, "lives_l2").count == 137, "the same id elsewhere is another"


def test_too_many_repeated_ids_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration.sources.chroma_parquet._MOST_REPEATED", 3)
    rewrite(folder / EMBEDDINGS, lambda rows: rows + rows)
    source = ChromaParquet(folder)
    part = part_of(source, "plain")
    assert part.refusal == "40 rows have an id that comes again; at most 3 were expected"
    with pytest.raises(InvalidInputError, match="come"):
        next(source.records(part))


def test_rows_of_no_collection_are_named(folder: Path) -> None:
    rewrite(folder / COLLECTIONS, lambda rows: [row for row in rows if row["name"] != "plain"])
    orphans = [part for part in ChromaParquet(folder).parts() if part.refusal]
    (plain,) = [collection for collection in EXPECTED if collection.name == "plain"]
    assert [(part.id, part.count) for part in orphans] == [(plain.id, 40)]
    assert "does not have" in str(orphans[0].refusal)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [('{"hnsw:space": "hamming"}', "its distance is unknown: 'hamming'"), ("{", "its metadata cannot be read")],
)
def test_a_collection_that_is_not_understood_is_refused(folder: Path, metadata: str, reason: str) -> None:
    rewrite(folder / COLLECTIONS, lambda rows: [{**row, "metadata": metadata} for row in rows])
    assert all(reason in str(part.refusal) for part in ChromaParquet(folder).parts())


def test_what_a_row_lacks_is_its_loss(folder: Path) -> None:
    odd = {"p0": {"metadata": "{"}, "p1": {"metadata": "[1]"}, "p2": {"embedding": None}, "p3": {"metadata": None}}
    rewrite(folder / EMBEDDINGS, lambda rows: [{**row, **odd.get(row["id"], {})} for row in rows])
    found = {record.id: record for record in records_of(folder, "plain")}
    assert [(loss.kind, loss.original) for loss in found["p0"].losses] == [("unreadable", "{")]
    assert [(loss.kind, loss.original) for loss in found["p1"].losses] == [("unreadable", "[1]")]
    assert found["p2"].embedding is None
    assert (found["p3"].meta, found["p3"].losses) == ({}, ())
    beside = found["p4"].embedding
    assert beside is not None
    assert np.isfinite(beside).all()


def test_a_row_without_id_is_refused(folder: Path) -> None:
    rewrite(folder / EMBEDDINGS, lambda rows: [{**row, "id": None if row["id"] == "p0" else row["id"]} for row in rows])
    assert part_of(ChromaParquet(folder), "plain").refusal == "1 of its rows have no id"


def test_the_fingerprint_is_of_the_files_alone(folder: Path) -> None:
    source = ChromaParquet(folder)
    before = source.fingerprint()
    for part in source.parts():
        list(source.records(part))
    assert source.fingerprint() == before
    shutil.rmtree(folder / "index", ignore_errors=True)
    assert source.fingerprint() == before
    rewrite(folder / COLLECTIONS, lambda rows: rows[:-1])
    assert source.fingerprint() != before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    vectors = parquet.ParquetFile(path).metadata.row_group(0).column(2)
    content = bytearray(path.read_bytes())
    content[vectors.data_page_offset : vectors.data_page_offset + 2000] = bytes(2000)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "damaged, or no Parquet file"),
        (overwrite, "damaged, or no Parquet file"),
        (lambda path: path.write_bytes(b""), "damaged, or no Parquet file"),
        (lambda path: path.unlink(), f"has no {EMBEDDINGS}"),
        (lambda path: parquet.write_table(pa.table({"a": [1]}), path), "the columns collection_uuid, .* are missing"),
    ],
)
def test_damage_is_an_error(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder / EMBEDDINGS)
    with pytest.raises(InvalidInputError, match=message):
        read_all(folder)


def read_all(folder: Path) -> None:
    source = ChromaParquet(folder)
    for part in source.parts():
        list(source.records(part))


def test_nothing_found_is_an_error(folder: Path) -> None:
    for name in (COLLECTIONS, EMBEDDINGS):
        rewrite(folder / name, lambda rows: [])
    with pytest.raises(InvalidInputError, match="without a collection"):
        ChromaParquet(folder)


def test_without_pyarrow_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r'pip install "pyarrow'):
        ChromaParquet(folder)
