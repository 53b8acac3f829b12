"""
Chroma directories written by real versions, read without chromadb and held against what those versions read back.

Where the two differ, the record is as it was written, and the difference has a name in `EXPLAINED`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.chroma_directory import COLLECTION, make_directory
from database.errors import InvalidInputError, SynapseError
from migration.source import Part, Record
from migration.sources.chroma_directory import ChromaDirectory
from migration.sources.chroma_sqlite import RECOVERED

PROJECT = Path(__file__).parents[2]
FIXTURES = PROJECT / "tests" / "fixtures" / "chroma"
VERSIONS = ("0.4.24", "0.5.23", "0.6.3", "1.0.20", "1.3.7", "1.5.9")

Differences = dict[str, dict[str, int]]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of all versions: `<version>/<case>`. Not to be changed."""
    folder = tmp_path_factory.mktemp("chroma")
    for version in VERSIONS:
        with tarfile.open(FIXTURES / version / "db.tar.xz") as archive:
            archive.extractall(folder / version, filter="data")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of one database, to be damaged."""
    return Path(shutil.copytree(written / "0.6.3" / "main", tmp_path / "copy"))


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[ChromaDirectory]:
    with closing(ChromaDirectory(path, **options)) as source:
        yield source


def expected(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((FIXTURES / version / "expected.json.gz").read_bytes()))
    return found["cases"]


def untyped(value: Any) -> Any:
    """The fixtures' JSON has `{"float": hexadecimal}` for a float."""
    if isinstance(value, dict):
        return float.fromhex(value["float"]) if set(value) == {"float"} else {k: untyped(v) for k, v in value.items()}
    return [untyped(each) for each in value] if isinstance(value, list) else value


def unpacked(vector: dict[str, str] | None) -> Any:
    if vector is None:
        return None
    with np.errstate(over="ignore"):
        return np.frombuffer(base64.b64decode(vector["base64"]), dtype=vector["type"]).astype("<f4")


def same(one: Any, other: Any) -> bool:
    """Also the type, and the bits of a float."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.tobytes() == other.tobytes()
    if isinstance(one, dict) and isinstance(other, dict):
        return repr(sorted(one.items())) == repr(sorted(other.items()))
    return type(one) is type(other) and bool(one == other)


def fields(row: dict[str, Any]) -> dict[str, Any]:
    """What the fixtures say of a record."""
    reads = {"document": lambda text: text, "metadata": lambda meta: untyped(meta or {}), "embedding": unpacked}
    return {name: read(row[name]) for name, read in reads.items() if name in row}


def differences(record: Record, shown: dict[str, Any]) -> Iterator[str]:
    """How a record differs from what its version showed; by name, if it is as it was written."""
    written = fields(shown.get("written", {}))
    theirs = fields(shown) or written  # if the version could show nothing
    ours = {"document": record.content, "metadata": record.meta, "embedding": record.embedding}
    for name, value in ours.items():
        if same(value, theirs[name]):
            continue
        if not same(value, written.get(name)):
            yield f"{name} unexplained: {record.id!r}"
        elif name != "embedding":
            yield f"{name} recovered" if RECOVERED in record.notes else f"{name} not shown"
        elif theirs[name] is None:
            yield "vector not shown"
        else:
            yield "vector rounded" if np.allclose(value, theirs[name], rtol=1e-6, atol=1e-6) else "vector overflown"


def compare(path: Path, shown: list[dict[str, Any]]) -> Differences:
    """Everything in a directory that is not as its version showed it, by collection."""
    found = {}
    with opened(path) as source:
        parts = {part.name: part for part in source.parts()}
        names = ["/".join(filter(None, (each.get("tenant"), each.get("database"), each["name"]))) for each in shown]
        assert sorted(parts) == sorted(names)
        for name, collection in zip(names, shown, strict=True):
            records = list(source.records(parts[name]))
            ids = {record.id for record in records}
            assert len(ids) == len(records) == parts[name].count
            theirs = {record["id"]: record for record in collection["records"]}
            counts = Counter("missing" for id in theirs if id not in ids)
            for record in records:
                counts.update(differences(record, theirs[record.id]) if record.id in theirs else ["only in the log"])
            if counts:
                found[name] = dict(counts)
    return found


LOST_BEFORE_1_0: dict[str, dict[str, int]] = {
    # a lone surrogate, integers that need more than 64 bits: SQLite refused them, and the record lost all its keys
    "awkward_documents": {"document recovered": 1},
    # likewise; besides NaN, which SQLite makes NULL, and a reserved key
    "awkward_metadata": {"document recovered": 4, "metadata recovered": 4, "metadata not shown": 2},
}
ROUNDED_FROM_1_0: dict[str, dict[str, int]] = {
    "awkward_metadata": {"metadata not shown": 1},  # a reserved key
    "configured": {"vector rounded": 5},
    "lives_cosine": {"vector rounded": 4},
    "llama_index": {"vector rounded": 4},
    "only_in_the_log": {"vector rounded": 112},
}
EXPLAINED: dict[tuple[str, str], Differences] = {
    # Vectors of a cosine collection are shown divided by their norm and multiplied again; the log has them as they came.
    # A record that was deleted and added again has no vector in 0.4, although it was given one.
    ("0.4.24", "main"): {
        **LOST_BEFORE_1_0,
        "awkward_metadata": {"document recovered": 6, "metadata recovered": 6, "metadata not shown": 2},
        "lives_cosine": {"vector rounded": 56, "vector not shown": 5},
        "lives_ip": {"vector not shown": 5},
        "lives_l2": {"vector not shown": 5},
        "only_in_the_log": {"vector rounded": 109, "vector not shown": 2},
    },
    ("0.5.23", "main"): {
        **LOST_BEFORE_1_0,
        "lives_cosine": {"vector rounded": 4},
        "only_in_the_log": {"vector rounded": 107},
    },
    ("0.6.3", "main"): {
        **LOST_BEFORE_1_0,
        "lives_cosine": {"vector rounded": 4},
        "only_in_the_log": {"vector rounded": 107},
    },
    # The norm of very long and very short vectors is no float32, and what is shown is not what was given.
    ("1.0.20", "main"): {**ROUNDED_FROM_1_0, "awkward_vectors": {"vector rounded": 2, "vector overflown": 6}},
    ("1.3.7", "main"): {**ROUNDED_FROM_1_0, "awkward_vectors": {"vector rounded": 2, "vector overflown": 6}},
    ("1.5.9", "main"): {**ROUNDED_FROM_1_0, "awkward_vectors": {"vector rounded": 2, "vector overflown": 2}},
    # The calls failed after the log had the records: NaN in a list is accepted and cannot be read again (#4516).
    ("1.5.9", "poisoned"): {"poisoned_5": {"only in the log": 4}},
}
"""What is not as the version showed it: everything else is, bit for bit."""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_record_is_there_as_its_version_held_it(written: Path, version: str) -> None:
    for case, shown in expected(version).items():
        found = compare(written / version / case, shown["collections"])
        assert found == EXPLAINED.get((version, case), {}), case


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_in_the_directory_changes(written: Path, version: str) -> None:
    def state() -> list[tuple[str, int, int, int, str]]:
        paths = sorted(path for path in (written / version).rglob("*"))
        stats = [(path, path.lstat()) for path in paths]
        return [
            (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns,
             hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
            for path, stat in stats
        ]  # fmt: skip

    before = state()
    for case in sorted((written / version).iterdir()):
        with opened(case) as source:
            for part in source.parts():
                assert sum(1 for _ in source.records(part)) == part.count
            assert source.fingerprint() == source.fingerprint()
    assert state() == before


def test_a_directory_that_cannot_be_written_is_read(written: Path, tmp_path: Path) -> None:
    for case in ("main", "wal", "journal"):
        copy = Path(shutil.copytree(written / "1.5.9" / case, tmp_path / case))
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with opened(copy) as source:
            assert all(len(list(source.records(part))) == part.count for part in source.parts())
        copy.chmod(0o755)


@pytest.mark.parametrize("version", VERSIONS)
def test_reading_goes_on_behind_any_record(written: Path, version: str) -> None:
    def told(records: list[Record]) -> list[Any]:
        return [(each.id, each.content, repr(each.meta), each.embedding is not None and each.embedding.tobytes(),
                 each.losses, each.notes) for each in records]  # fmt: skip

    with opened(written / version / ("poisoned" if version >= "1" else "main")) as source:
        for part in source.parts():
            whole = list(source.records(part))
            positions = json.loads(json.dumps([record.position for record in whole]))
            for number in {0, len(whole) // 2, len(whole) - 2, len(whole) - 1} & set(range(len(whole))):
                assert told(list(source.records(part, after=positions[number]))) == told(whole[number + 1 :])


def test_two_readings_at_once_do_not_disturb_each_other(written: Path) -> None:
    with opened(written / "1.5.9" / "main") as source:
        one, other = (part for part in source.parts() if part.name in ("lives_l2", "lives_cosine"))
        both = list(zip(source.records(one), source.records(other), source.records(one), strict=True))
        assert all(first.id == third.id for first, _, third in both)
        assert len(both) == one.count


def facts_of(written: Path, version: str, case: str = "main") -> dict[str, Part]:
    with opened(written / version / case) as source:
        return {part.name: part for part in source.parts()}


@pytest.mark.parametrize(
    ("version", "generation"),
    [
        ("0.4.24", "0.4.15"),
        ("0.5.23", "0.5.6"),
        ("0.6.3", "0.5.6"),
        ("1.0.20", "1.0.0"),
        ("1.3.7", "1.3.0"),
        ("1.5.9", "1.5.0"),
    ],
)
def test_collections_are_described(written: Path, version: str, generation: str) -> None:
    parts = facts_of(written, version)
    assert {name: part.distance for name, part in parts.items() if name.startswith("lives")} == {
        "lives_cosine": "cosine",
        "lives_ip": "ip",
        "lives_l2": "l2",
    }
    assert parts["second_tenant/second_database/plain"].facts["tenant"] == "second_tenant"
    assert [parts[name].facts["writer"] for name in ("llama_index", "haystack_documents", "langchain", "plain")] == [
        "llama-index",
        "chroma-haystack",
        "langchain",
        None,
    ]
    assert (parts["empty"].count, parts["empty"].dimension, parts["emptied"].count) == (0, None, 0)
    assert {part.facts["schema"] for part in parts.values()} == {f"{generation} or newer"}
    assert not any(part.refusal for part in parts.values())
    if version >= "1":
        assert parts["configured"].distance == "cosine"


def test_what_a_newer_version_has_opened_keeps_its_distance(written: Path) -> None:
    """Its configuration says l2 ever since 0.6, and 1.5.9 reports that; the index was made for the cosine."""
    part = facts_of(written, "1.5.9", "upgraded")["lives_cosine"]
    assert (part.distance, part.facts["distance_from"], part.refusal) == (
        "cosine",
        "the vector segment's metadata",
        None,
    )


def test_lists_keep_their_order(written: Path) -> None:
    with opened(written / "1.5.9" / "main") as source:
        part = next(each for each in source.parts() if each.name == "awkward_metadata")
        lists = [
            record.meta for record in source.records(part) if any(isinstance(v, list) for v in record.meta.values())
        ]
    assert {"numbers": [3, 1, 2, 1]} in lists
    assert {"words": ["a", "", "😀"]} in lists
    assert {"flags": [True, False, True]} in lists


def edit(folder: Path, *statements: str) -> None:
    """
    Change a database, as a bug or another program might.

    :param statements: Parameters are `:name_collection`, `:name_topic`, `:name_vector` and `:name_metadata`, ids of the
        collection of that name and its segments, and `:ones`, a vector.
    """
    with closing(sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None)) as connection:
        known: dict[str, Any] = {"ones": np.ones(8, dtype="<f4").tobytes()}
        for id, name, scope, segment in connection.execute(
            "SELECT c.id, c.name, lower(s.scope), s.id FROM collections AS c JOIN segments AS s ON s.collection = c.id"
            " WHERE c.database_id = '00000000-0000-0000-0000-000000000000'"
        ):
            topic = f"persistent://default/default/{id}"
            known |= {f"{name}_collection": id, f"{name}_topic": topic, f"{name}_{scope}": segment}
        for statement in statements:
            connection.execute(statement, known)


def records_of(folder: Path, name: str, **options: Any) -> dict[str, Record]:
    with opened(folder, **options) as source:
        part = next(each for each in source.parts() if each.name == name)
        return {record.id: record for record in source.records(part)}


def refusal_of(folder: Path, name: str, **options: Any) -> str | None:
    with opened(folder, **options) as source:
        part = next(each for each in source.parts() if each.name == name)
        if part.refusal is not None:
            with pytest.raises(InvalidInputError, match=name):
                next(source.records(part))
        return part.refusal


def test_vectors_that_a_purge_has_lost(folder: Path) -> None:
    """0.5.7 cleared the log up to a number that the index had not reached (#2922)."""
    whole = records_of(folder, "lives_l2")
    edit(folder, "UPDATE max_seq_id SET seq_id = x'00000000ffffffff' WHERE segment_id = :lives_l2_vector")
    still_in_the_log = records_of(folder, "lives_l2")
    edit(folder, "DELETE FROM embeddings_queue WHERE topic = :lives_l2_topic")
    purged = records_of(folder, "lives_l2")
    assert purged.keys() == still_in_the_log.keys() == whole.keys()
    lost = [id for id, record in purged.items() if record.embedding is None]
    assert 0 < len(lost) < len(whole)
    for id in lost:
        assert purged[id].content == whole[id].content
        assert still_in_the_log[id].notes == (RECOVERED,)
        assert same(still_in_the_log[id].embedding, whole[id].embedding)


def test_an_index_that_was_removed_to_be_rebuilt_comes_from_the_log(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written / "0.4.24" / "main", tmp_path / "copy"))
    for path in list(folder.rglob("index_metadata.pickle")):
        shutil.rmtree(path.parent)
    before, after = (records_of(each, "lives_l2") for each in (written / "0.4.24" / "main", folder))
    assert before.keys() == after.keys()
    assert all(same(before[id].embedding, record.embedding) for id, record in after.items())


def test_a_call_that_failed_half_way_loses_nothing(folder: Path) -> None:
    """Up to 0.6, a value that SQLite refused ended the call: its other records are in the log alone."""
    before = records_of(folder, "plain")
    edit(folder, "DELETE FROM embeddings WHERE segment_id = :plain_metadata AND embedding_id IN ('p7', 'p9')")
    after = records_of(folder, "plain")
    assert before.keys() == after.keys()
    for id, record in after.items():
        assert record.content == before[id].content
        assert same(record.meta, before[id].meta)
        assert same(record.embedding, before[id].embedding)
        assert record.notes == ((RECOVERED,) if id in ("p7", "p9") else ())


def test_what_the_tables_have_not_applied_yet_is_applied(folder: Path) -> None:
    entry = "INSERT INTO embeddings_queue (topic, operation, id, vector, encoding, metadata) VALUES (:plain_topic, "
    edit(
        folder,
        entry + """1, 'p1', NULL, NULL, '{"n": null, "extra": true}')""",
        entry + """1, 'nobody', NULL, NULL, '{"n": 1}')""",
        entry + "3, 'p2', NULL, NULL, NULL)",
        entry + """2, 'p3', :ones, 'FLOAT32', '{"chroma:document": "new"}')""",
        entry + """0, 'added', :ones, 'FLOAT32', '{"x": NaN}')""",
        entry + "2, 'odd', x'000000', 'FLOAT32', 'no JSON')",
    )
    records = records_of(folder, "plain")
    assert records["p1"].meta == {"extra": True, "half": 0.5, "name": "file 1"}
    assert records.keys().isdisjoint({"nobody", "p2"})
    assert records["p3"].content == "new"
    assert all(same(records[id].embedding, np.ones(8, dtype="<f4")) for id in ("p3", "added"))
    assert repr(records["added"].meta) == "{'x': nan}"
    assert [(loss.kind, loss.field) for loss in records["odd"].losses] == [
        ("unreadable", "meta"),
        ("unreadable", "embedding"),
    ]
    assert {id for id, record in records.items() if record.notes} == {"p1", "p3", "added", "odd"}


def test_values_of_a_kind_that_chroma_does_not_write(folder: Path) -> None:
    into, row = (
        "INSERT INTO embedding_metadata (id, key, string_value) SELECT id, ",
        " FROM embeddings WHERE embedding_id = 'p0' AND segment_id = :plain_metadata",
    )
    edit(folder, into + "'blob', x'ff00'" + row, into + "'latin', CAST(x'e9' AS TEXT)" + row)
    record = records_of(folder, "plain")["p0"]
    assert record.meta["blob"] == "ff00"
    assert [(loss.kind, loss.field) for loss in record.losses] == [("unsupported_value", "meta.blob")]
    assert record.meta["latin"] == "\udce9"


def test_a_distance_that_contradicts_itself_is_refused_unless_given(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written / "1.5.9" / "main", tmp_path / "copy"))
    edit(folder, "UPDATE collection_metadata SET str_value = 'ip' WHERE key = 'hnsw:space' AND str_value = 'cosine'")
    refusal = refusal_of(folder, "lives_cosine")
    assert refusal is not None
    assert "cosine in schema_str" in refusal
    assert "ip in the metadata hnsw:space" in refusal
    right = records_of(written / "1.5.9" / "main", "lives_cosine")
    given = records_of(folder, "lives_cosine", distances={"lives_cosine": "ip"})
    assert all(same(record.embedding, right[id].embedding) for id, record in given.items())
    with pytest.raises(InvalidInputError, match="which is not there"):
        ChromaDirectory(folder, distances={"nowhere": "l2"})


def test_an_index_that_was_not_made_for_the_stated_distance_is_refused(folder: Path) -> None:
    """Without this, unit vectors would be taken for the ones that were given."""
    edit(
        folder,
        "DELETE FROM segment_metadata WHERE segment_id = :lives_cosine_vector",
        "DELETE FROM collection_metadata WHERE collection_id = :lives_cosine_collection",
    )
    refusal = refusal_of(folder, "lives_cosine")
    assert refusal is not None
    assert refusal.startswith("its index was made for the cosine, but its distance is l2")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM segments WHERE id = :lives_l2_vector", "found none"),
        ("DELETE FROM segments WHERE id = :lives_l2_metadata", "found none"),
        ("UPDATE segments SET type = 'urn:chroma:segment/vector/spann' WHERE id = :lives_l2_vector", "vector/spann"),
        ("UPDATE segments SET type = 'blockfile' WHERE id = :lives_l2_metadata", "found blockfile"),
        ("UPDATE collections SET config_json_str = '[' WHERE id = :lives_l2_collection", "cannot be read"),
        ("UPDATE collections SET dimension = 7 WHERE id = :lives_l2_collection", "vectors of length 8, but"),
        ("UPDATE segments SET id = '../../etc' WHERE id = :lives_l2_vector", "not the name of a segment's folder"),
        ("UPDATE collection_metadata SET str_value = 'hamming' WHERE collection_id = :lives_l2_collection", "hamming"),
    ],
)
def test_a_collection_that_cannot_be_read_is_refused_and_the_others_are_not(
    folder: Path, statement: str, found: str
) -> None:
    edit(folder, statement)
    refusal = refusal_of(folder, "lives_l2")
    assert refusal is not None
    assert found in refusal
    assert refusal_of(folder, "only_in_the_log") is None
    assert len(records_of(folder, "only_in_the_log")) == 137


def test_links_are_followed(written: Path, tmp_path: Path) -> None:
    real = Path(shutil.copytree(written / "1.5.9" / "main", tmp_path / "real"))
    for path in [each for each in real.iterdir() if each.is_dir()]:
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    (tmp_path / "link").symlink_to(real)
    with opened(tmp_path / "link") as one, opened(written / "1.5.9" / "main") as other:
        assert one.fingerprint() == other.fingerprint()
        assert len(list(one.records(one.parts()[0]))) == one.parts()[0].count


def test_a_file_of_another_kind_is_not_waited_for(folder: Path) -> None:
    pickled = next(folder.rglob("index_metadata.pickle")).parent
    for name in ("link_lists.bin", "data_level0.bin", "header.bin", "index_metadata.pickle"):  # each is read before
        (pickled / name).unlink()
        os.mkfifo(pickled / name)
        with opened(folder) as source:
            refusals = [part.refusal for part in source.parts() if part.refusal]
        assert len(refusals) == (name != "link_lists.bin")  # of which nothing is needed
        assert all(f"{name} cannot be read: a regular file was expected" in refusal for refusal in refusals)


def test_other_files_in_the_folder_do_not_matter(folder: Path) -> None:
    with opened(folder) as source:
        before = source.fingerprint()
        (folder / "notes.txt").write_text("mine")
        (folder / ("a" * 36)).symlink_to(folder / ("a" * 36))
        assert source.fingerprint() == before
        for part in source.parts():
            assert sum(1 for _ in source.records(part)) == part.count
        with (folder / "chroma.sqlite3").open("ab") as file:
            file.write(b"\0")
        assert source.fingerprint() != before


@pytest.mark.parametrize(
    "name", ["chroma.sqlite3", "chroma.sqlite3-journal", "{segment}/data_level0.bin", "{segment}/new.bin"]
)
def test_a_directory_that_is_written_meanwhile_is_noticed(folder: Path, name: str) -> None:
    pickled = next(folder.rglob("index_metadata.pickle")).parent.name
    path = folder / name.format(segment=pickled)
    with opened(folder) as source:
        records = source.records(source.parts()[0])
        next(records)
        path.touch()
        if name.endswith("new.bin"):  # none of Chroma's
            list(records)
        else:
            with pytest.raises(InvalidInputError, match="has changed while it was read"):
                list(records)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "found an empty folder"),
        (["notes.txt"], "found notes.txt"),
        (["below/chroma.sqlite3"], "There is one in .*below"),
        (["chroma-embeddings.parquet", "chroma.sqlite3"], "holds both"),
    ],
)
def test_what_is_no_chroma_directory_is_said(folder: Path, tmp_path: Path, files: list[str], found: str) -> None:
    for name in files:
        path = tmp_path / "other" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "chroma.sqlite3", path)
    (tmp_path / "other").mkdir(exist_ok=True)
    with pytest.raises(InvalidInputError, match=found):
        ChromaDirectory(tmp_path / "other")


def test_paths_that_are_no_folders(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"found a file. Give {folder}"):
        ChromaDirectory(folder / "chroma.sqlite3")
    with pytest.raises(InvalidInputError, match="found nothing"):
        ChromaDirectory(folder / "nowhere")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE collections SET name = x'00' WHERE id = :plain_collection",
        "UPDATE collections SET dimension = 'eight' WHERE id = :plain_collection",
        "UPDATE segments SET type = x'00' WHERE id = :plain_vector",
        "UPDATE embeddings SET embedding_id = x'00' WHERE embedding_id = 'p0'",
        "UPDATE embedding_metadata SET key = x'00' WHERE key = 'half'",
        "UPDATE embeddings_queue SET id = x'00' WHERE id = 'p0'",
        "UPDATE migrations SET version = 'one' WHERE dir = 'sysdb' AND version = 1",
    ],
)
def test_names_that_are_no_text_are_refused(folder: Path, statement: str) -> None:
    edit(folder, statement)
    with pytest.raises(InvalidInputError, match="that chromadb does not write there"):
        ChromaDirectory(folder)


def test_an_index_of_the_database_that_leads_elsewhere_is_noticed(folder: Path) -> None:
    """SQLite itself would give the metadata of other records, or none."""
    edit(
        folder,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, '(id, key)', '(key, id)') WHERE name = 'embedding_metadata'",
    )
    edit(folder, "REINDEX embedding_metadata")
    edit(
        folder,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, '(key, id)', '(id, key)') WHERE name = 'embedding_metadata'",
    )
    with pytest.raises(InvalidInputError, match="an index of embedding_metadata is wrong"):
        ChromaDirectory(folder)


def test_databases_that_hold_nothing_or_something_else(folder: Path) -> None:
    edit(folder, "DELETE FROM collections")
    with pytest.raises(InvalidInputError, match="without a collection"):
        ChromaDirectory(folder)
    edit(folder, "DROP TABLE embeddings")
    with pytest.raises(InvalidInputError, match="the tables embeddings are missing"):
        ChromaDirectory(folder)
    (folder / "chroma.sqlite3").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="no SQLite database"):
        ChromaDirectory(folder)


def test_the_format_of_0_3_is_recognised(tmp_path: Path) -> None:
    with tarfile.open(FIXTURES / "0.3.29" / "db.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with opened(tmp_path / "main") as source:
        assert {"plain", "lives_cosine"} <= {part.name for part in source.parts()}


def test_a_full_disk_is_noticed_before_a_copy_is_made(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InvalidInputError, match="1,000"):
        ChromaDirectory(written / "1.5.9" / "wal")


def ends_well(folder: Path) -> bool:
    """Read all that there is; whether that went without an error of ours. No other may come."""
    try:
        with opened(folder) as source:
            for part in source.parts():
                if part.refusal is None:
                    assert sum(1 for _ in source.records(part)) == part.count
    except SynapseError as exc:
        return not exc.message
    return True


@pytest.mark.parametrize(("case", "tries"), [("main", 40), ("wal", 60), ("journal", 60)])
def test_whatever_is_damaged_it_ends_with_an_error_or_without(
    written: Path, tmp_path: Path, case: str, tries: int
) -> None:
    whole, numbers = written / "1.3.7" / case, random.Random(case)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    pickled = [path for path in files if (whole / path).with_name("index_metadata.pickle").exists()]
    good = 0
    for number in range(tries):
        copy = Path(shutil.copytree(whole, tmp_path / str(number)))
        path = copy / numbers.choice([*(path for path in files if path.parent == Path()), *pickled])
        damage(path, numbers)
        good += ends_well(copy)
        shutil.rmtree(copy)
    assert good < tries


def damage(path: Path, numbers: random.Random) -> None:
    """Cut a file off, or flip bits, mostly near its beginning."""
    data = bytearray(path.read_bytes())
    if numbers.random() < 0.3:
        data = data[: numbers.randrange(len(data) + 1)]
    elif data:
        for _ in range(numbers.choice([1, 8, 200])):
            data[min(int(numbers.expovariate(1 / 3000)), len(data) - 1)] ^= 1 << numbers.randrange(8)
    path.write_bytes(data)


MEASURE = """
import resource, sys
from pathlib import Path
from migration.sources.chroma_directory import ChromaDirectory
source = ChromaDirectory(Path(sys.argv[1]))
(part,) = source.parts()
assert sum(1 for _ in source.records(part)) == part.count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_collection(tmp_path: Path) -> None:
    peaks = []
    for rows in (2_000, 30_000):
        make_directory(tmp_path / str(rows), rows, 128, seed=1)
        command = [sys.executable, "-c", MEASURE, str(tmp_path / str(rows))]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 25_000  # KiB; the directory has 25 MB


def test_a_generated_directory_holds_what_was_generated(tmp_path: Path) -> None:
    make_directory(tmp_path / "made", 2500, 12, seed=5)
    records = records_of(tmp_path / "made", COLLECTION)
    assert list(records) == sorted(records)
    assert len(records) == 2500
    assert records["document-00000008"].meta == {"page": 8, "public": False, "score": 8 / 7, "source": "file-8.pdf"}
    assert not any(record.losses or record.notes or record.embedding is None for record in records.values())
