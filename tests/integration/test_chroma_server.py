"""Real Chroma servers of several versions, against what the same versions read from the databases that they serve."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from database.connection import Database
from database.errors import InvalidInputError, SynapseError
from database.migration_runs import list_runs, roll_back
from migration.conversion import KINDS, checked_policies
from migration.engine import Migration, Options
from migration.source import Part, Record
from migration.sources import chroma_server
from migration.sources.chroma_server import ChromaServer
from tests.support.chroma_databases import ExpectedCollection, ExpectedRecord, expected, unpacked
from tests.support.chroma_server import ChromaProcess, served
from tests.tcp_server import free_port

pytestmark = pytest.mark.system

VERSIONS = ("0.5.23", "1.0.20", "1.5.9")
LISTS_DATABASES = ("1.0.20", "1.5.9")
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def chroma(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaProcess]:
    """A server of this version, with the database of its fixture; no test writes to it but in `writable`."""
    folder = unpacked(version, tmp_path_factory.mktemp("served"))
    with served(version, folder) as running:
        yield running


@pytest.fixture
def source(chroma: ChromaProcess) -> Iterator[ChromaServer]:
    opened = ChromaServer(chroma.url)
    yield opened
    opened.close()


@pytest.fixture
def writable(chroma: ChromaProcess) -> Iterator[Any]:
    """A collection of 30 records."""
    client = client_of(chroma)
    collection = client.create_collection("writable", embedding_function=None, metadata={"hnsw:space": "ip"})
    ids = [f"w{n}" for n in range(30)]
    collection.add(ids=ids, embeddings=np.eye(30, dtype=np.float32), documents=ids)
    yield collection
    client.delete_collection("writable")


def client_of(chroma: ChromaProcess) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.HttpClient(chroma.url, settings=Settings(anonymized_telemetry=False))


def part_of(source: ChromaServer, name: str) -> Part:
    return next(part for part in source.parts() if part.name == name)


def over_http(value: Any) -> Any:
    """What is left of a value: NaN of what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return math.nan
    if isinstance(value, list):
        return [over_http(item) for item in value]
    return {key: over_http(item) for key, item in value.items()} if isinstance(value, dict) else value


def assert_as_expected(record: Record, wanted: ExpectedRecord) -> None:
    assert record.content == wanted.document
    assert json.dumps(record.meta, sort_keys=True) == json.dumps(over_http(wanted.metadata or {}), sort_keys=True)
    assert record.embedding is not None
    assert wanted.embedding is not None
    assert record.embedding.dtype == np.float32
    finite = np.isfinite(wanted.embedding)
    assert record.embedding[finite].tobytes() == wanted.embedding[finite].astype(np.float32).tobytes()
    assert np.isnan(record.embedding[~finite]).all()
    assert record.losses == ()


def expected_of(version: str, tenant: str | None = None) -> dict[str, ExpectedCollection]:
    return {each.id: each for each in expected(version) if each.tenant == tenant}


def test_inventory(source: ChromaServer, version: str) -> None:
    assert source.version == (version if version < "1" else "1.0.0"), "what servers say from 1.0"
    collections = expected_of(version)
    parts = {part.id: part for part in source.parts()}
    assert parts.keys() == collections.keys()
    assert [part.name for part in source.parts()] == sorted(part.name for part in parts.values())
    for id, part in parts.items():
        assert (part.name, part.count, part.refusal) == (collections[id].name, len(collections[id].records), None)
        assert part.dimension == (8 if collections[id].records else None)
        space = "cosine" if part.name == "configured" else (collections[id].metadata or {}).get("hnsw:space", "l2")
        assert part.distance == space
        assert (part.facts["tenant"], part.facts["database"]) == ("default_tenant", "default_database")
        all_databases = part.facts["read"] == "all databases of the tenant"
        assert all_databases == (version in LISTS_DATABASES)
    assert part_of(source, "llama_index").facts["writer"] == "llama-index"
    assert part_of(source, "haystack_documents").facts["writer"] == "chroma-haystack"


def test_every_record_is_as_that_version_holds_it(source: ChromaServer, version: str) -> None:
    collections = expected_of(version)
    for part in source.parts():
        records = list(source.records(part))
        wanted = collections[part.id].records
        assert [record.id for record in records] == sorted(wanted)
        for record in records:
            assert_as_expected(record, wanted[record.id])


def test_the_books_of_a_migration_close(
    source: ChromaServer, owner: Database, database: Database, tmp_path: Path
) -> None:
    parts = tuple(part_of(source, name).id for name in ("lives_cosine", "awkward_ids", "awkward_vectors"))
    keep = checked_policies(dict.fromkeys(KINDS, "keep"))
    options = Options(parts=parts, model="tests/eight", policies=keep, accept_rank_change=True, queries=3)
    try:
        receipt = Migration(source, owner, options, receipts=tmp_path).run()
        assert receipt.open() == []
        lives, ids, vectors = sorted(receipt.parts, key=lambda books: -books.records)
        assert (lives.copied, lives.changed) == (137, 0)
        assert ids.changes["long_id"].records == 2
        assert vectors.changed > 0
    finally:
        for run in list_runs(owner):
            roll_back(owner, run)


def test_another_tenant(chroma: ChromaProcess, version: str) -> None:
    for database in ("second_database", None) if version in LISTS_DATABASES else ("second_database",):
        source = ChromaServer(chroma.url, tenant="second_tenant", database=database)
        (part,) = source.parts()
        assert part.name == "second_tenant/second_database/plain", "not to be mistaken for the other plain"
        (wanted,) = expected_of(version, "second_tenant").values()
        assert {record.id for record in source.records(part)} == wanted.records.keys()
        source.close()


@pytest.mark.parametrize("where", [{"tenant": "nobody"}, {"database": "nothing"}])
def test_a_place_that_is_not_there(chroma: ChromaProcess, where: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match=r"has no tenant .* Check --tenant"):
        ChromaServer(chroma.url, **where)


def test_goes_on_after_any_record(source: ChromaServer, chroma: ChromaProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_server, "_RECORDS_AT_ONCE", 10)
    part = part_of(source, "lives_cosine")
    whole = [(record.position, record.id) for record in source.records(part)]
    assert len(whole) == part.count == 137
    later = ChromaServer(chroma.url)
    for place in (0, 9, 10, 100, 136):
        assert [(each.position, each.id) for each in later.records(part, after=whole[place][0])] == whole[place + 1 :]
    later.close()


def test_reading_changes_no_fingerprint(chroma: ChromaProcess) -> None:
    first, second = ChromaServer(chroma.url), ChromaServer(chroma.url)
    before = first.fingerprint()
    for part in first.parts():
        list(first.records(part))
    assert first.fingerprint() == second.fingerprint() == before
    first.close()
    second.close()


def test_what_others_write_meanwhile(source: ChromaServer, writable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_server, "_RECORDS_AT_ONCE", 10)
    before = source.fingerprint()
    part = part_of(source, "writable")
    records = source.records(part)
    seen = [next(records).id]
    writable.add(ids=["a new one"], embeddings=np.ones((1, 30), dtype=np.float32))
    seen += [record.id for record in records]
    assert sorted(seen) == sorted(f"w{n}" for n in range(30)), "neither missed nor doubled"
    assert source.fingerprint() != before

    records = source.records(part)
    next(records)
    writable.delete(ids=["w7", "w8"])
    with pytest.raises(SynapseError, match=r"no longer has 2 of its records, the first is 'w7'.*writing to it"):
        list(records)


def test_equal_counts_do_not_hide_another_id(source: ChromaServer, writable: Any) -> None:
    before = source.fingerprint()
    writable.delete(ids=["w1"])
    writable.add(ids=["w30"], embeddings=np.ones((1, 30), dtype=np.float32))
    assert source.fingerprint() != before


def test_a_server_that_dies_midway(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_server, "_RECORDS_AT_ONCE", 10)
    with served(version, unpacked(version, tmp_path)) as running:
        source = ChromaServer(running.url)
        records = source.records(part_of(source, "plain"))
        next(records)
        running.kill()
        with pytest.raises(SynapseError, match=f"{running.url} does not answer"):
            list(records)
        source.close()


def test_what_a_server_cannot_read_is_refused(tmp_path: Path) -> None:
    """Of a database that 0.6.3 wrote, 1.5.9 cannot read collections with NaN in the log."""
    with served("1.5.9", unpacked("1.5.9", tmp_path, "upgraded")) as running:
        source = ChromaServer(running.url)
        parts = {part.name: part for part in source.parts()}
        unreadable = {each.name for each in expected("1.5.9", "upgraded") if each.error}
        assert unreadable == {f"poisoned_{n}" for n in range(5)}
        for name in unreadable:
            assert "cannot read it" in str(parts[name].refusal)
            assert "folder" in str(parts[name].refusal)
        with pytest.raises(InvalidInputError, match="cannot read it"):
            next(source.records(parts["poisoned_0"]))
        assert len(list(source.records(parts["poisoned_5"]))) == 6
        assert source.fingerprint() == source.fingerprint()
        source.close()


def test_a_vector_that_the_server_has_lost(version: str, tmp_path: Path) -> None:
    """As after the purge of 0.5.7: the record is there, and its vector is not; see chroma-core/chroma#2922."""
    folder = unpacked(version, tmp_path)
    with sqlite3.connect(folder / "chroma.sqlite3") as connection:
        assert connection.execute("DELETE FROM embeddings_queue WHERE id = 'p3'").rowcount == 1
    (wanted,) = [each.records for each in expected_of(version).values() if each.name == "plain"]
    with served(version, folder) as running:
        source = ChromaServer(running.url)
        part = part_of(source, "plain")
        records = {record.id: record for record in source.records(part)}
        source.close()
    assert part.count == len(records) == 40
    lost = records.pop("p3")
    assert (lost.embedding, lost.content, lost.meta) == (None, wanted["p3"].document, wanted["p3"].metadata)
    assert {loss.kind for loss in lost.losses} <= {"unreadable"}
    for id, record in records.items():
        assert_as_expected(record, wanted[id])


@pytest.mark.parametrize("header", ["Authorization", "X-Chroma-Token"])
def test_a_token(header: str, tmp_path: Path) -> None:
    settings = {
        "CHROMA_SERVER_AUTHN_PROVIDER": "chromadb.auth.token_authn.TokenAuthenticationServerProvider",
        "CHROMA_SERVER_AUTHN_CREDENTIALS": TOKEN,
        "CHROMA_AUTH_TOKEN_TRANSPORT_HEADER": header,
    }
    with served("0.5.23", unpacked("0.5.23", tmp_path), settings) as running:
        source = ChromaServer(running.url, token=TOKEN)
        assert part_of(source, "plain").count == 40
        assert TOKEN not in repr(source) + source.location
        source.close()
        for token, found in (("wrong-" + TOKEN, "refuses the token"), (None, "asks for a token")):
            with pytest.raises(InvalidInputError, match=found) as raised:
                ChromaServer(running.url, token=token)
            assert TOKEN not in str(raised.value)


def test_an_older_server_is_named(tmp_path: Path) -> None:
    with (
        served("0.4.24", unpacked("0.4.24", tmp_path)) as running,
        pytest.raises(InvalidInputError, match=r"is of version 0\.4\.24: expected 0\.5\.23 or newer\. .*folder"),
    ):
        ChromaServer(running.url)


def test_nobody_listens() -> None:
    with pytest.raises(SynapseError, match=r"does not answer: .*refused"):
        ChromaServer(f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>hello</html>"), (200, b"[]"), (404, b"nothing")])
def test_a_server_that_is_another(status: int, body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(InvalidInputError, match="answers, but not as a Chroma server does"):
            ChromaServer(f"http://127.0.0.1:{other.server_port}")
        other.shutdown()


def test_an_empty_server(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    with served("1.5.9", folder) as running:
        source = ChromaServer(running.url)
        with pytest.raises(InvalidInputError, match=r"has no collection in default_tenant/default_database"):
            source.parts()
        source.close()
