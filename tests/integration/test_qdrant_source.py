"""Qdrant as a source: directories written by two real clients, and a server that a real client talks to."""

from __future__ import annotations

import base64
import datetime
import decimal
import http.server
import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from database import schema
from database.connection import Database
from database.errors import ConfigurationError, GuardError, InvalidInputError, SynapseError
from migration.conversion import checked_policies
from migration.engine import Migration, Options
from migration.source import Part, Record, Source
from migration.sources.qdrant import choose_vector, open_qdrant, take_vector
from migration.sources.qdrant_directory import QdrantDirectory
from migration.sources.qdrant_payload import HAYSTACK, LANGCHAIN, LLAMAINDEX, Layout, layout_of
from migration.sources.qdrant_points import Model, json_payload, point_id, read_pickle
from migration.sources.qdrant_server import REQUIREMENT, PointIds, QdrantServer

FIXTURES = Path(__file__).parents[1] / "fixtures" / "qdrant"
FIRST, SECOND = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"


def copied(folder: Path, version: str = "1.20.0") -> Path:
    shutil.copytree(FIXTURES / version / "db", folder / "db")
    return folder / "db"


def expected(version: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads((FIXTURES / version / "expected.json").read_text("ascii"))
    return found


def part_of(source: Source, name: str) -> Part:
    return next(part for part in source.parts() if part.name == name)


def records_of(source: Source, name: str) -> dict[str, Record]:
    return {record.id: record for record in source.records(part_of(source, name))}


def floats(text: str) -> bytes:
    return base64.b64decode(text)


def storage(db: Path, name: str = "plain") -> Path:
    return db / "collection" / name / "storage.sqlite"


def write_row(file: Path, key: str, content: bytes) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO points VALUES (?, ?)", (key, content))
    connection.close()


def key_of(point: Any, protocol: int = 4) -> str:
    return base64.b64encode(pickle.dumps(point, protocol=protocol)).decode()


def point_of(identity: Any, payload: dict[str, Any] | None = None, vector: Any = (1.0, 2.0)) -> bytes:
    models = pytest.importorskip("qdrant_client.http.models")
    return pickle.dumps(models.PointStruct.model_construct(id=identity, vector=list(vector), payload=payload or {}))


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same, also in the sign of zero, and NaN."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


# Directories


@pytest.mark.parametrize("version", ["1.1.7", "1.20.0"])
def test_plain_collections_are_as_the_client_that_wrote_them_reads_them(version: str) -> None:
    source = QdrantDirectory(FIXTURES / version / "db")
    for name in ("plain", "dot", "empty"):
        found = {each.id: each for each in source.records(part_of(source, name))}
        wanted = {point_id(each["id"]): each for each in expected(version)[name]}
        assert found.keys() == wanted.keys()
        for identity, record in found.items():
            payload = dict(record.meta) if record.content is None else {"text": record.content, **record.meta}
            assert same(payload, wanted[identity]["payload"])
            assert record.embedding is not None
            assert record.embedding.dtype == np.float32
            assert record.embedding.tobytes() == floats(wanted[identity]["vector"])
            assert record.losses == ()
    source.close()


def test_nothing_is_written(tmp_path: Path) -> None:
    db = copied(tmp_path)
    source = QdrantDirectory(db)
    before = source.fingerprint()
    for part in source.parts():
        if part.refusal is None:
            assert len(list(source.records(part))) == part.count
    assert source.fingerprint() == before
    source.close()
    (db / "meta.json").write_text((db / "meta.json").read_text() + " ")
    assert QdrantDirectory(db).fingerprint() != before


def test_reading_needs_neither_write_access_nor_the_client(tmp_path: Path) -> None:
    db = copied(tmp_path)
    code = (
        "import sys; sys.modules['qdrant_client'] = None\n"
        "from migration.sources.qdrant import open_qdrant\n"
        f"source = open_qdrant(path={str(db)!r}, vector='text')\n"
        "print(sum(len(list(source.records(part))) for part in source.parts() if not part.refusal))"
    )
    for each in (db, *db.rglob("*")):
        each.chmod(0o500 if each.is_dir() else 0o400)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    points = expected("1.20.0")
    assert int(done.stdout) == sum(len(each) for name, each in points.items() if name != "haystack_sparse")


def test_parts_say_what_a_collection_is() -> None:
    source = QdrantDirectory(FIXTURES / "1.20.0" / "db")
    assert [part.name for part in source.parts()] == sorted(expected("1.20.0"))
    plain = part_of(source, "plain")
    assert (plain.count, plain.dimension, plain.distance) == (10, 6, "cosine")
    assert plain.facts == {"source_distance": "Cosine", "normalised_by_qdrant": False}
    assert part_of(source, "dot").distance == "ip"
    assert (part_of(source, "empty").distance, part_of(source, "empty").count) == ("l2", 0)
    assert "Manhattan" in (part_of(source, "manhattan").refusal or "")
    assert part_of(source, "langchain").facts["aliases"] == ["production"]
    source.close()


def test_one_of_several_vectors_migrates_and_the_others_are_losses() -> None:
    source = QdrantDirectory(FIXTURES / "1.20.0" / "db", vector="image")
    part = part_of(source, "named")
    assert (part.dimension, part.distance) == (2, "ip")
    assert part.facts["left_out_vectors"] == ["text", "words", "sparse"]
    whole, only_text, only_image, none = source.records(part)
    wanted = expected("1.20.0")["named"]
    assert whole.embedding is not None
    assert whole.embedding.tobytes() == floats(wanted[0]["vector"]["image"])
    (loss,) = whole.losses
    assert (loss.kind, loss.field) == ("extra_vectors", "embedding")
    assert loss.original["text"].tobytes() == floats(wanted[0]["vector"]["text"])
    assert [each.tobytes() for each in loss.original["words"]] == [
        floats(each) for each in wanted[0]["vector"]["words"]
    ]
    assert loss.original["sparse"] == wanted[0]["vector"]["sparse"]
    assert only_text.embedding is None
    assert [each.kind for each in only_text.losses] == ["extra_vectors"]
    assert only_image.embedding is not None
    assert only_image.losses == ()
    assert none.embedding is None
    assert none.losses == ()
    source.close()


def test_a_vector_must_be_chosen_and_be_there() -> None:
    for vector, message in ((None, "has several vectors"), ("imgae", "has no vector 'imgae'")):
        source = QdrantDirectory(FIXTURES / "1.20.0" / "db", vector=vector)
        refusal = part_of(source, "named").refusal or ""
        assert message in refusal
        assert "'text' (4, Euclid), 'image' (2, Dot)" in refusal
        with pytest.raises(InvalidInputError, match=message):
            next(source.records(part_of(source, "named")))
        assert part_of(source, "plain").refusal is None  # a name does not concern a vector without one
        source.close()


def test_sparse_vectors_alone_are_kept_as_losses() -> None:
    source = QdrantDirectory(FIXTURES / "1.20.0" / "db")
    part = part_of(source, "sparse_only")
    (record,) = source.records(part)
    assert (part.dimension, part.refusal, record.embedding) == (None, None, None)
    assert record.losses[0].original == {"sparse": {"indices": [1, 9], "values": [0.25, 0.5]}}
    source.close()


def test_layouts_of_the_frameworks_are_recognised() -> None:
    source = QdrantDirectory(FIXTURES / "1.20.0" / "db")
    for name in ("haystack", "haystack_sparse"):
        assert part_of(source, name).facts[HAYSTACK] is True
        found = records_of(source, name)
        assert found["one"].content == "first"
        assert found["one"].meta == {"page": 1, "tags": ["a"]}
        assert found["one"].notes == (HAYSTACK,)
        assert found["blob"].content is None
        assert found["blob"].meta == {"blob": {"data": [0, 255], "meta": {"m": 1}, "mime_type": "image/png"}}
        assert found["taken"].meta == {"score": "of the metadata", "payload_score": 0.5}
    sparse = {"indices": [1, 2], "values": [0.1, 0.2]}
    assert records_of(source, "haystack")["two"].meta == {"sparse_embedding": sparse}
    assert records_of(source, "haystack_sparse")["two"].losses[0].original == {"text-sparse": sparse}
    pages = list(source.records(part_of(source, "langchain")))
    assert [page.content for page in pages] == ["page 0", "page 1", "none", "more"]
    assert [page.meta for page in pages] == [{"i": 0}, {"i": 1}, {}, {"a": 1, "payload_a": 2, "b": 3}]
    assert {page.notes for page in pages} == {(LANGCHAIN,)}
    (node,) = source.records(part_of(source, "llamaindex"))
    assert (node.content, node.notes) == (None, (LLAMAINDEX,))
    assert node.meta["_node_content"] == '{"text": "node"}'
    source.close()


def test_a_named_content_field_is_the_text_and_no_layout_is_looked_for() -> None:
    source = QdrantDirectory(FIXTURES / "1.20.0" / "db", content_field="page_content")
    first = next(source.records(part_of(source, "langchain")))
    assert (first.content, first.meta, first.notes) == ("page 0", {"metadata": {"i": 0}}, ())
    refusal = part_of(source, "plain").refusal or ""
    assert "have no 'page_content'" in refusal
    assert "text" in refusal
    assert part_of(source, "empty").refusal is None
    source.close()


def test_it_goes_on_after_any_position() -> None:
    source = QdrantDirectory(FIXTURES / "1.20.0" / "db")
    part = part_of(source, "plain")
    whole = [record.id for record in source.records(part)]
    assert len(set(whole)) == part.count
    for number, record in enumerate(source.records(part)):
        assert [each.id for each in source.records(part, after=record.position)] == whole[number + 1 :]
    source.close()


@pytest.mark.filterwarnings("ignore:Removed 3 outdated copies")  # the client's, when it removes them
def test_of_several_copies_of_a_point_the_last_counts(tmp_path: Path) -> None:
    db = copied(tmp_path)
    spellings = [FIRST, uuid.UUID(FIRST).hex, f"urn:uuid:{FIRST}"]
    for text, spelling in enumerate(spellings):
        write_row(storage(db, "dot"), key_of(spelling), point_of(spelling, {"text": str(text)}))
    write_row(storage(db, "dot"), key_of(1, protocol=5), point_of(1, {"text": "by Python 3.14"}))
    source = QdrantDirectory(db)
    part = part_of(source, "dot")
    assert (part.count, part.facts["outdated_copies"]) == (2, 3)
    found = [(record.id, record.meta["text"]) for record in source.records(part)]
    assert found == [(FIRST, "2"), ("1", "by Python 3.14")]
    source.close()
    client = pytest.importorskip("qdrant_client").QdrantClient(path=str(db))  # the client decides likewise
    read = {str(point.id): point.payload["text"] for point in client.scroll("dot")[0]}
    client.close()
    assert read == dict(found)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_hostile_point_is_refused_unread(tmp_path: Path) -> None:
    db, proof = copied(tmp_path), tmp_path / "proof"
    pickled = pickle.dumps({"id": Hostile(proof)})
    pickle.loads(pickled)
    assert proof.exists()  # it would have worked
    proof.unlink()
    write_row(storage(db), key_of(100), pickled)
    write_row(storage(db), base64.b64encode(pickled).decode(), point_of(101))
    source = QdrantDirectory(db)
    record = records_of(source, "plain")["100"]
    assert not proof.exists()
    (loss,) = record.losses
    assert loss.kind == "unreadable"
    assert "pathlib" in loss.original["reason"]
    assert loss.original["stored"] == pickled
    assert (record.content, record.meta, record.embedding) == (None, {}, None)
    source.close()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "os.system", "numpy.load", "qdrant_client.local.persistence.sqlite3"]
)
def test_a_pickle_may_ask_for_data_alone(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    with pytest.raises(ValueError, match=f"asks for {name}, which is not data"):
        read_pickle(f"c{module}\n{attribute}\n.".encode())


def test_a_pickle_cannot_change_the_class_of_what_it_holds() -> None:
    build = b"\x80\x04c" + b"qdrant_client.http.models.models\nPointStruct\n" + b"}\x8c\x08__dict__}sb."
    with pytest.raises(ValueError, match="is not read"):
        read_pickle(build)
    assert not isinstance(Model.__dict__["fields"], dict)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", "Ran out of input"),
        (b"\x80\x04\x95", "truncated"),
        (pickle.dumps(5), "holds no point"),
        (None, "holds no point"),
        ("text", "holds no point"),
    ],
)
def test_a_damaged_point_is_named_and_the_others_stay(tmp_path: Path, stored: Any, reason: str) -> None:
    db = copied(tmp_path)
    write_row(storage(db), key_of(100), stored)
    source = QdrantDirectory(db)
    found = records_of(source, "plain")
    assert len(found) == 11
    (loss,) = found["100"].losses
    assert loss.kind == "unreadable"
    assert reason in loss.original["reason"]
    source.close()


def test_points_that_qdrant_cannot_have_are_unreadable(tmp_path: Path) -> None:
    db = copied(tmp_path)
    models = pytest.importorskip("qdrant_client.http.models")
    make = models.PointStruct.model_construct
    odd = [make(id="no uuid", vector=[1]), make(id=1.5, vector=[1]), make(id=3, vector="text"), make(id=4, payload=[1])]
    for number, point in enumerate(odd):
        write_row(storage(db), f"key {number}", pickle.dumps(point))
    source = QdrantDirectory(db)
    found = records_of(source, "plain")
    assert [found[f"key {number}"].losses[0].kind for number in range(4)] == ["unreadable"] * 4
    source.close()


def test_what_json_has_no_form_for_is_text_and_a_loss() -> None:
    payload, losses = json_payload({"fine": 1, "bytes": b"\xff", "deep": [{"a": b"\xfe"}], "array": np.float32([0.5])})
    assert payload == {"fine": 1, "bytes": "b'\\xff'", "deep": "[{'a': b'\\xfe'}]", "array": [0.5]}
    assert [(each.kind, each.field, each.original) for each in losses] == [
        ("unsupported_value", "meta.bytes", b"\xff"),
        ("unsupported_value", "meta.deep", [{"a": b"\xfe"}]),
    ]


def test_what_is_no_json_is_written_as_the_client_writes_it() -> None:
    pydantic_core = pytest.importorskip("pydantic_core")
    zone = datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))
    noon = datetime.datetime(2020, 1, 2, 12, 0, 0, 5)
    given = [noon, noon.replace(tzinfo=datetime.UTC), noon.replace(tzinfo=zone), noon.date(), noon.time()]
    given += [decimal.Decimal("1.50"), decimal.Decimal("1E+5"), uuid.UUID(int=3), "ä".encode(), (1, (2,))]
    payload, losses = json_payload({"given": given})
    assert payload == {"given": [pydantic_core.to_jsonable_python(each) for each in given]}
    assert losses == ()


def test_keys_that_are_equal_as_text_lose_nothing() -> None:
    payload, losses = json_payload({"1": "text", 1: "number", "nested": {"2": 0, 2: 1}})
    assert payload["1"] == "text"
    assert [(each.field, each.original) for each in losses] == [
        ("meta.1", {"key": "1", "value": "number"}),
        ("meta.nested", {"2": 0, 2: 1}),
    ]


def test_a_killed_writers_journal_is_rolled_back_in_a_copy(tmp_path: Path) -> None:
    db = copied(tmp_path)
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 1'); connection.execute('BEGIN')\n"
        "connection.executemany('INSERT INTO points VALUES (?, ?)', [(str(i), b'x' * 2000) for i in range(200)])\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(storage(db))], check=False)
    assert Path(f"{storage(db)}-journal").stat().st_size > 0
    source = QdrantDirectory(db)
    before = source.fingerprint()
    assert part_of(source, "plain").count == 10
    assert len(records_of(source, "plain")) == 10
    assert source.fingerprint() == before
    source.close()


def test_rows_in_a_write_ahead_log_are_read(tmp_path: Path) -> None:
    db = copied(tmp_path)
    code = (
        "import os, sqlite3, sys, base64\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA journal_mode = WAL')\n"
        "connection.execute('INSERT INTO points VALUES (?, ?)', (sys.argv[2], base64.b64decode(sys.argv[3])))\n"
        "os._exit(9)"
    )
    content = base64.b64encode(point_of(100, {"text": "in the log"})).decode()
    subprocess.run([sys.executable, "-c", code, str(storage(db)), key_of(100), content], check=False)
    assert Path(f"{storage(db)}-wal").exists()
    source = QdrantDirectory(db)
    before = source.fingerprint()
    assert records_of(source, "plain")["100"].meta == {"text": "in the log"}
    assert source.fingerprint() == before
    source.close()


def test_a_directory_that_a_client_has_open_is_guarded(tmp_path: Path) -> None:
    qdrant_client = pytest.importorskip("qdrant_client")
    db = copied(tmp_path)
    client = qdrant_client.QdrantClient(path=str(db))
    with pytest.raises(GuardError, match="is open in a Qdrant client"):
        QdrantDirectory(db)
    client.close()
    source = QdrantDirectory(db)
    with pytest.raises(RuntimeError, match="already accessed"):
        qdrant_client.QdrantClient(path=str(db))
    source.close()
    qdrant_client.QdrantClient(path=str(db)).close()


def test_collections_that_cannot_be_read_are_parts_with_a_refusal(tmp_path: Path) -> None:
    db = copied(tmp_path)
    (db / "collection" / "stray").mkdir()
    storage(db, "dot").write_bytes(b"no database" * 1000)
    storage(db, "langchain").unlink()
    (db / "collection" / "plain" / "storage.dbm.dat").write_bytes(b"old points")
    meta = json.loads((db / "meta.json").read_text())
    meta["collections"]["../collection/empty"] = meta["collections"]["empty"]
    (db / "meta.json").write_text(json.dumps(meta))
    source = QdrantDirectory(db)
    for name, refusal in (
        ("stray", "meta.json does not know it"),
        ("dot", "cannot be read: file is not a database"),
        ("langchain", "storage.sqlite is missing"),
        ("plain", "storage.dbm.dat, the format of qdrant-client before 1.1.7"),
        ("../collection/empty", "leads out of the directory"),
    ):
        assert refusal in (part_of(source, name).refusal or ""), name
    assert len(records_of(source, "haystack")) == 4
    source.close()


def test_a_file_that_is_damaged_further_on_is_an_error(tmp_path: Path) -> None:
    db = copied(tmp_path)
    for number in range(40):
        write_row(storage(db), key_of(1000 + number), point_of(1000 + number, {"text": "x" * 9000}))
    source = QdrantDirectory(db)
    part = part_of(source, "plain")
    content = bytearray(storage(db).read_bytes())
    content[8 * 4096 :] = b"\xff" * (len(content) - 8 * 4096)
    storage(db).write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"storage\.sqlite is damaged"):
        list(source.records(part))
    source.close()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no meta.json"),
        ({"raft_state.json": "{}"}, "storage of a Qdrant server"),
        ({"meta.json": "{"}, "is damaged"),
        ({"meta.json": "[]"}, "lists no collections"),
    ],
)
def test_what_is_no_such_directory_is_an_error(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        open_qdrant(path=str(tmp_path))
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(files)


# What directories and servers share


def test_integers_and_uuids_never_meet_as_text() -> None:
    assert point_id(1) == "1"
    assert point_id(2**64 - 1) == "18446744073709551615"
    for spelling in (FIRST, FIRST.upper(), uuid.UUID(FIRST), uuid.UUID(FIRST).hex, f"{{{FIRST}}}", f"urn:uuid:{FIRST}"):
        assert point_id(spelling) == FIRST
    for wrong in (True, 1.0, None, "1", b"1"):
        with pytest.raises(ValueError, match=r"is no id|badly formed"):
            point_id(wrong)


def test_a_guess_of_the_text_needs_one_usual_key() -> None:
    def guess(*payloads: dict[str, Any]) -> str | None:
        return layout_of([(str(number), payload) for number, payload in enumerate(payloads)])[0].content_field

    assert guess() is None
    assert guess({"title": "x"}) is None
    assert guess({"text": "x", "title": "y"}, {"text": ""}) == "text"
    assert guess({"text": "x", "content": "y"}) is None
    assert guess(*[{"text": "x"}] * 19, {"text": 5}) == "text"
    assert guess(*[{"text": "x"}] * 18, {"text": 5}, {}) is None
    assert Layout("text").unpack("1", {"text": 5, "a": 1}).meta == {"text": 5, "a": 1}


def test_a_payload_like_haystacks_is_only_one_if_the_id_proves_it() -> None:
    payload = {"id": "one", "content": "x", "meta": {}}
    proven = str(uuid.uuid5(uuid.UUID("3896d314-1e95-4a3a-b45a-945f9f0b541d"), "one"))
    assert Layout().unpack(proven, payload).id == "one"
    assert Layout().unpack(FIRST, payload).id == FIRST
    assert Layout().unpack(FIRST, payload).meta == payload
    for broken in ({"id": "one"}, {**payload, "meta": 5}, {**payload, "content": 5}, {**payload, "id": "\ud800"}):
        assert Layout().unpack(proven, broken).meta == broken


def test_vectors_are_taken_exactly() -> None:
    for datatype in (np.float16, np.uint8):
        stored = np.arange(200).astype(datatype)
        embedding, losses = take_vector(stored.tolist(), "")
        assert embedding is not None
        assert (embedding == stored).all()
        assert losses == ()
    embedding, _ = take_vector([1e39, -1e39, 0.1, 1e-46], "")
    assert embedding is not None
    assert embedding.tolist() == [np.inf, -np.inf, np.float32(0.1), 0.0]
    embedding, _ = take_vector([None, 1.5], "")
    assert embedding is not None
    assert np.isnan(embedding).tolist() == [True, False]
    assert take_vector(None, "") == take_vector({}, "a") == (None, ())
    for wrong in ([[1.0], [2.0]], ["a"], "text"):
        embedding, losses = take_vector({"a": wrong}, "a")
        assert embedding is None
        assert [(each.kind, each.original) for each in losses] == [("unreadable", wrong)]


def test_a_vector_without_a_name_beside_named_ones_must_be_chosen_by_its_absence() -> None:
    dense = {"size": 3, "distance": "Dot"}
    assert choose_vector({"vectors": dense, "sparse_vectors": {"s": {}}}, "any").name == ""
    assert choose_vector({"vectors": {"a": dense}}, None).name == "a"
    assert choose_vector({"vectors": {"a": dense}}, "b").refusal is not None
    assert choose_vector({"vectors": {"a": {**dense, "datatype": "uint8"}}}, "a").facts == {
        "vector": "a",
        "source_distance": "Dot",
        "datatype": "uint8",
    }
    assert choose_vector({"vectors": None}, None).name is None


# Servers


@pytest.fixture
def qdrant() -> Iterator[Any]:
    pytest.importorskip("qdrant_client")
    from tests.support.qdrant_server import qdrant_server

    with qdrant_server("the-secret-key") as running:
        yield running


def connected(qdrant: Any) -> Any:
    from qdrant_client import QdrantClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return QdrantClient(url=qdrant.url, api_key="the-secret-key", check_compatibility=False)


def fill(server: Any, count: int = 1200) -> Any:
    """A collection with integers and UUIDs as ids, written over HTTP by a real client."""
    from qdrant_client import models

    client = connected(server)
    client.create_collection(
        "a collection", vectors_config=models.VectorParams(size=3, distance=models.Distance.COSINE)
    )
    generator = np.random.default_rng(3)
    client.upsert(
        "a collection",
        [
            models.PointStruct(
                id=number if number % 2 else str(uuid.UUID(bytes=generator.bytes(16))),
                vector=generator.standard_normal(3).tolist(),
                payload={
                    "text": f"text {number}\0\N{PARTY POPPER}",
                    "n": 2**63,
                    "third": number / 3,
                    "nested": {"a": [None]},
                },
            )
            for number in range(count)
        ],
    )
    return client


def test_a_server_gives_what_its_client_reads(qdrant: Any) -> None:
    client = fill(qdrant)
    source = open_qdrant(url=qdrant.url, api_key="the-secret-key")
    part = part_of(source, "a collection")
    assert (source.version, part.count, part.dimension, part.distance) == ("1.15.1", 1200, 3, "cosine")
    assert part.facts["normalised_by_qdrant"] is True
    found = list(source.records(part))
    points, _ = client.scroll("a collection", limit=2000, with_vectors=True)
    assert [record.id for record in found] == [str(point.id) for point in points]
    assert [record.position for record in found] == [point.id for point in points]
    for record, point in zip(found, points, strict=True):
        assert same({"text": record.content, **record.meta}, point.payload)
        assert record.embedding is not None
        assert record.embedding.tobytes() == np.float32(point.vector).tobytes()
    for number in (0, 599, 600, 1198, 1199):
        after = [record.id for record in source.records(part, after=found[number].position)]
        assert after == [record.id for record in found[number + 1 :]]
    source.close()


def test_named_vectors_of_a_server(qdrant: Any) -> None:
    from qdrant_client import models

    client = connected(qdrant)
    client.create_collection(
        "named",
        vectors_config={
            "a": models.VectorParams(size=2, distance=models.Distance.DOT),
            "b": models.VectorParams(size=2, distance=models.Distance.EUCLID),
        },
        sparse_vectors_config={"s": models.SparseVectorParams()},
    )
    sparse = models.SparseVector(indices=[4, 2], values=[0.5, 0.1])
    client.upsert("named", [models.PointStruct(id=1, vector={"a": [1, 2], "b": [3, 4], "s": sparse}, payload=None)])
    refused = QdrantServer(qdrant.url, api_key="the-secret-key")
    assert "'a' (2, Dot), 'b' (2, Euclid)" in (part_of(refused, "named").refusal or "")
    source = QdrantServer(qdrant.url, api_key="the-secret-key", vector="b")
    part = part_of(source, "named")
    (record,) = source.records(part)
    assert part.distance == "l2"
    assert record.embedding is not None
    assert record.embedding.tolist() == [3, 4]
    assert record.losses[0].original["a"].tolist() == [1, 2]
    assert record.losses[0].original["s"]["indices"] == [2, 4]
    assert np.float32(record.losses[0].original["s"]["values"]).tolist() == np.float32([0.1, 0.5]).tolist()


def test_what_is_written_meanwhile_neither_doubles_nor_hides_a_record(qdrant: Any) -> None:
    from qdrant_client import models

    fill(qdrant)
    source = QdrantServer(qdrant.url, api_key="the-secret-key")
    part = part_of(source, "a collection")
    before = source.fingerprint()
    assert source.fingerprint() == before
    records = source.records(part)
    seen = [next(records).id]
    new = [models.PointStruct(id=number, vector=[1, 2, 3], payload={}) for number in range(0, 1200, 2)]
    qdrant.local.upsert("a collection", new)
    seen += [record.id for record in records]
    assert len(seen) == len(set(seen)) == 1200
    assert not {str(point.id) for point in new} & set(seen)
    assert source.fingerprint() != before


def test_a_point_that_is_gone_is_an_error(qdrant: Any) -> None:
    fill(qdrant)
    source = QdrantServer(qdrant.url, api_key="the-secret-key")
    records = source.records(part_of(source, "a collection"))
    next(records)
    qdrant.local.delete("a collection", [1199])
    with pytest.raises(SynapseError, match="no longer has 1 of its points, the first is 1199"):
        list(records)


def test_a_list_that_does_not_match_the_count_is_an_error(qdrant: Any) -> None:
    fill(qdrant, count=4)

    def write_between(request: str) -> None:
        if request.endswith("/points/count"):
            qdrant.local.delete("a collection", [1])

    qdrant.before = write_between
    source = QdrantServer(qdrant.url, api_key="the-secret-key")
    with pytest.raises(SynapseError, match="lists 4 points and counts 3"):
        source.parts()


def test_a_component_that_is_not_finite_arrives_as_nan(qdrant: Any) -> None:
    fill(qdrant, count=4)
    qdrant.not_finite = {3}
    source = QdrantServer(qdrant.url, api_key="the-secret-key")
    found = records_of(source, "a collection")
    three, one = found["3"].embedding, found["1"].embedding
    assert three is not None
    assert one is not None
    assert np.isnan(three).tolist() == [True, False, False]
    assert np.isfinite(one).all()


def test_a_server_that_dies_midway_is_an_error_and_reading_goes_on_after_it(qdrant: Any) -> None:
    from tests.support.qdrant_server import Hangup

    fill(qdrant)
    source = QdrantServer(qdrant.url, api_key="the-secret-key")
    part = part_of(source, "a collection")
    whole = [record.id for record in source.records(part)]
    left = 2

    def die(request: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Hangup

    qdrant.before = die
    seen: list[Record] = []
    with pytest.raises(SynapseError, match="does not answer") as caught:
        seen.extend(source.records(part))  # keeps what came before the error
    assert "a new run goes on" in caught.value.hint
    assert len(seen) == 1000
    qdrant.before = lambda request: None
    rest = [record.id for record in source.records(part, after=seen[-1].position)]
    assert [record.id for record in seen] + rest == whole


def test_keys_are_asked_for_and_never_shown(qdrant: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"asks for an API key \(HTTP 401\)"):
        QdrantServer(qdrant.url)
    with pytest.raises(InvalidInputError, match="refuses the API key") as caught:
        QdrantServer(qdrant.url, api_key="another-secret")
    assert "another-secret" not in f"{caught.value}{caught.value.__cause__}"
    with pytest.raises(ConfigurationError, match="no HTTP header") as caught_key:
        QdrantServer(qdrant.url, api_key="the-secret-\N{EM DASH}key\n")
    assert "secret" not in str(caught_key.value)
    source = QdrantServer(qdrant.url.replace("http://", "http://user:password@"), api_key="the-secret-key")
    assert source.location == qdrant.url
    assert "secret" not in f"{vars(source)['location']}{source.kind}{source}"


def test_a_collection_that_is_not_there_is_an_error(qdrant: Any) -> None:
    source = QdrantServer(qdrant.url, api_key="the-secret-key")
    assert source.parts() == []
    with pytest.raises(InvalidInputError, match="has no collection 'gone'"):
        next(source.records(Part(id="gone", name="gone", count=0, dimension=None)))


def test_a_server_that_is_down_or_another_is_an_error() -> None:
    pytest.importorskip("qdrant_client")
    with pytest.raises(SynapseError, match=r"http://127.0.0.1:9 does not answer: .*refused"):
        QdrantServer("http://127.0.0.1:9")
    with pytest.raises(InvalidInputError, match="is no address"):
        QdrantServer("ftp://127.0.0.1:9")

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.handle_request).start()
        with pytest.raises(InvalidInputError, match="not as a Qdrant server does"):
            QdrantServer(f"http://127.0.0.1:{stranger.server_port}")


def test_without_the_client_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ConfigurationError) as caught:
        open_qdrant(url="http://localhost:6333")
    assert caught.value.hint == f"pip install {REQUIREMENT}"


def test_a_frozen_list_of_ids_is_in_qdrants_order_and_can_be_gone_on_in() -> None:
    ids = PointIds([1, 2**64 - 1, FIRST, SECOND])
    assert list(ids) == ids[:] == [1, 2**64 - 1, FIRST, SECOND]
    assert [ids.behind(each) for each in (0, 1, 5, 2**64 - 1, FIRST, SECOND)] == [0, 1, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        ids[4]


# With the engine


@pytest.mark.slow
def test_the_engine_closes_the_books_on_a_directory_and_a_server(
    empty_conninfo: str, tmp_path: Path, qdrant: Any
) -> None:
    schema.upgrade(empty_conninfo)
    fill(qdrant)
    directory = QdrantDirectory(FIXTURES / "1.20.0" / "db", vector="text")
    remote = QdrantServer(qdrant.url, api_key="the-secret-key")
    decided = dict.fromkeys(("nul", "surrogate", "not_finite", "number", "missing_vector", "zero_vector"), "keep")
    policies = checked_policies({**decided, "extra_vectors": "keep"})
    owner = Database(empty_conninfo)
    try:
        for source, parts, dimension in (
            (directory, ("haystack", "langchain", "llamaindex"), 2),
            (directory, ("plain",), 6),
            (directory, ("named",), 4),
            (remote, ("a collection",), 3),
        ):
            options = Options(
                parts=parts, model=f"tests/of-{dimension}", policies=policies, queries=3, accept_rank_change=True
            )
            receipt = Migration(source, owner, options, receipts=tmp_path / parts[0]).run()
            assert receipt.closed, receipt.open()
            assert receipt.rejected == 0
            assert [part.records for part in receipt.parts] == [part_of(source, part).count for part in parts]
            assert "secret" not in json.dumps(receipt.to_dict(), default=str)
        rows = owner.read("SELECT id, content, meta->'tags' AS tags FROM documents_haystack ORDER BY id")
        assert [(row["id"], row["content"]) for row in rows][:2] == [("blob", None), ("one", "first")]
        assert rows[1]["tags"] == ["a"]
    finally:
        owner.close()
        directory.close()
        remote.close()
