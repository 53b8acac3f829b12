"""
Chroma directories of any size, written without chromadb, as 1.5 would leave them after its last sync.

Schema and settings are those of the database in `tests/fixtures/chroma/1.5.9`, which a real chromadb has written; rows, index
files and pickle are written here. chromadb 1.5.9 opens the result and gives back every record; its index has no links and
its full-text table no rows, so it cannot search.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

TEMPLATE = Path(__file__).parents[1] / "tests" / "fixtures" / "chroma" / "1.5.9" / "db.tar.xz"
COLLECTION = "generated"

_LINKS = 32
_BLOCK = 1000
_CENTRES = 100
_WORDS = (
    "vector",
    "index",
    "table",
    "river",
    "garden",
    "engine",
    "letter",
    "music",
    "winter",
    "answer",
    "city",
    "paper",
)


def make_directory(path: Path, rows: int, dimension: int, seed: int) -> None:
    """
    Write a directory with one cosine collection, `COLLECTION`.

    :param path: The folder to make.
    :param rows: How many records, each with a document and four keys of metadata.
    :param dimension: Length of their vectors.
    :param seed: The same gives the same records.
    """
    path.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(TEMPLATE) as archive:
        archive.extract("main/chroma.sqlite3", folder, filter="data")
        shutil.move(Path(folder) / "main" / "chroma.sqlite3", path / "chroma.sqlite3")
    connection = sqlite3.connect(path / "chroma.sqlite3", isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    segments = _write_collection(connection, dimension, seed)
    _write_rows(connection, segments["METADATA"], rows, seed)
    for segment in segments.values():
        connection.execute("INSERT INTO max_seq_id (segment_id, seq_id) VALUES (?, ?)", (segment, rows))
    connection.execute("COMMIT")
    connection.execute("VACUUM")
    connection.close()
    (path / segments["VECTOR"]).mkdir()
    _write_index(path / segments["VECTOR"], rows, dimension, seed)
    with (path / segments["VECTOR"] / "index_metadata.pickle").open("wb") as file:
        _write_pickle(file, rows)


def _write_collection(connection: sqlite3.Connection, dimension: int, seed: int) -> dict[str, str]:
    """One collection in place of those of the template. Returns its segments, by scope."""
    (config, schema) = connection.execute(
        "SELECT config_json_str, schema_str FROM collections WHERE name = 'only_in_the_log'"
    ).fetchone()
    for table in ("collections", "collection_metadata", "segments", "segment_metadata", "max_seq_id", "embeddings"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    for table in ("embedding_metadata", "embedding_metadata_array", "embeddings_queue", "embedding_fulltext_search"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    ids = [str(uuid.UUID(int=seed << 64 | 0x4000 << 64 | number, version=4)) for number in range(3)]
    schema = json.loads(schema)
    schema["keys"] = {key: schema["keys"][key] for key in ("#document", "#embedding")}
    connection.execute(
        "INSERT INTO collections (id, name, dimension, database_id, config_json_str, schema_str) VALUES (?, ?, ?, ?, ?, ?)",
        (ids[0], COLLECTION, dimension, str(uuid.UUID(int=0)), config, json.dumps(schema)),
    )
    segments = {"VECTOR": "vector/hnsw-local-persisted", "METADATA": "metadata/sqlite"}
    for id, (scope, kind) in zip(ids[1:], segments.items(), strict=True):
        values = (id, f"urn:chroma:segment/{kind}", scope, ids[0])
        connection.execute("INSERT INTO segments (id, type, scope, collection) VALUES (?, ?, ?, ?)", values)
    return dict(zip(segments, ids[1:], strict=True))


def _write_rows(connection: sqlite3.Connection, segment: str, rows: int, seed: int) -> None:
    connection.executemany(
        "INSERT INTO embeddings (id, segment_id, embedding_id, seq_id) VALUES (?, ?, ?, ?)",
        ((number, segment, record_id(number), number) for number in range(1, rows + 1)),
    )
    connection.executemany(
        "INSERT INTO embedding_metadata (id, key, string_value, int_value, float_value, bool_value)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        _meta_rows(rows, seed),
    )


def _meta_rows(rows: int, seed: int) -> Iterator[tuple[object, ...]]:
    random = np.random.default_rng(seed)
    for start in range(1, rows + 1, _BLOCK):
        words = random.integers(len(_WORDS), size=(_BLOCK, 40)).tolist()
        for number in range(start, min(start + _BLOCK, rows + 1)):
            text = " ".join(_WORDS[word] for word in words[number - start])
            yield number, "chroma:document", text, None, None, None
            yield number, "source", f"file-{number % 1000}.pdf", None, None, None
            yield number, "page", None, number % 37, None, None
            yield number, "score", None, None, number / 7, None
            yield number, "public", None, None, None, number % 2


def record_id(number: int) -> str:
    """The id of the record with this number, from 1."""
    return f"document-{number:08d}"


def block(number: int, rows: int, dimension: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, from 1, and vectors of a block of the index, in its order, as several threads have filled it; in clusters."""
    random = np.random.default_rng([seed, number])
    count = min(_BLOCK, rows - number * _BLOCK)
    middle = np.random.default_rng(7).standard_normal((_CENTRES, dimension), dtype=np.float32)  # as benchmarks.corpora
    vectors = random.standard_normal((count, dimension), dtype=np.float32) * np.float32(0.7)
    vectors += middle[random.integers(_CENTRES, size=count)]
    return random.permutation(count) + number * _BLOCK + 1, vectors


def _write_index(folder: Path, rows: int, dimension: int, seed: int) -> None:
    """
    The four files of an HNSW index.

    An element has 4 bytes for the number of its links and its marks, the links, the vector, and 8 bytes for the label.
    """
    vector_at = 4 + 4 * _LINKS
    label_at = vector_at + 4 * dimension
    size = label_at + 8
    element = np.dtype(
        {
            "names": ["vector", "label"],
            "formats": [("<f4", (dimension,)), "<u8"],
            "offsets": [vector_at, label_at],
            "itemsize": size,
        }
    )
    header = struct.pack(
        "<i6Qii3QdQ", 1, 0, rows, rows, size, label_at, vector_at, 0, 0, _LINKS // 2, _LINKS, _LINKS // 2, 0.36, 100
    )
    (folder / "header.bin").write_bytes(header)
    (folder / "link_lists.bin").write_bytes(bytes(4 * rows))
    with (folder / "data_level0.bin").open("wb") as data, (folder / "length.bin").open("wb") as lengths:
        for number in range(-(-rows // _BLOCK)):
            labels, vectors = block(number, rows, dimension, seed)
            norms = np.linalg.norm(vectors, axis=1).astype("<f4")
            elements = np.zeros(len(labels), dtype=element)
            elements["label"], elements["vector"] = labels, vectors / norms[:, None]
            data.write(elements.tobytes())
            lengths.write(norms.tobytes())


def _write_pickle(file: BinaryIO, rows: int) -> None:
    """As serde_pickle writes it: protocol 3, without a memo."""
    ids = [record_id(number).encode() for number in range(1, rows + 1)]
    texts = [b"X" + len(id).to_bytes(4, "little") + id for id in ids]
    labels = [b"J" + number.to_bytes(4, "little") for number in range(1, rows + 1)]
    fields = {
        "dimensionality": b"N",
        "total_elements_added": b"J" + rows.to_bytes(4, "little"),
        "max_seq_id": b"N",
        "id_to_label": b"}(" + b"".join(map(bytes.__add__, texts, labels)) + b"u",
        "label_to_id": b"}(" + b"".join(map(bytes.__add__, labels, texts)) + b"u",
        "id_to_seq_id": b"}",
    }
    file.write(b"\x80\x03}(")
    for name, value in fields.items():
        file.write(b"X" + len(name).to_bytes(4, "little") + name.encode() + value)
    file.write(b"u.")
