"""Databases that real versions of chromadb wrote, and what the same version read back; `tests/fixtures/chroma/make.py`."""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures" / "chroma"
VERSIONS = ("0.3.29", "0.4.24", "0.5.23", "0.6.3", "1.0.20", "1.3.7", "1.5.9")


@dataclass(frozen=True)
class ExpectedRecord:
    """
    A record as its version's API showed it.

    :param embedding: float32, or float64 where 0.3 holds doubles that are no float32; `None` if the API gave none.
    :param written: What was written, of `document`, `metadata` and `embedding`, where that is something else.
    """

    id: str
    document: str | None
    metadata: dict[str, Any] | None
    embedding: np.ndarray | None
    written: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExpectedCollection:
    """
    A collection as its version's API showed it.

    :param tenant: And `database`: `None` for the default ones.
    :param configuration: As the API gives it from 1.0.
    :param records: By id. Where the API could not read the collection they have nothing but `written`.
    :param error: Why the API could not read it.
    """

    tenant: str | None
    database: str | None
    name: str
    id: str
    metadata: dict[str, Any] | None
    configuration: dict[str, Any] | None
    count: int | None
    records: dict[str, ExpectedRecord]
    error: str | None


def cases(version: str) -> list[str]:
    """The folders of this version's archive: `main` and others; `make.py` says what they are."""
    return list(_read(version)["cases"])


def unpacked(version: str, folder: Path, case: str = "main") -> Path:
    """A copy of a database of this version, in a folder below the given one."""
    target = folder / f"chroma-{version}-{case}"
    with tarfile.open(FIXTURES / version / "db.tar.xz") as archive:
        members = [member for member in archive if member.name.split("/")[0] == case]
        archive.extractall(target, members=members, filter="data")
    return target / case


def expected(version: str, case: str = "main") -> list[ExpectedCollection]:
    """What this version's API showed of it, sorted by tenant and name."""
    return [_collection(each) for each in _read(version)["cases"][case]["collections"]]


def attempts(version: str) -> list[dict[str, str]]:
    """What was tried with awkward values: `{case, collection, what, outcome}`."""
    return _read(version)["attempts"]


@cache
def _read(version: str) -> Any:
    return json.loads(gzip.decompress((FIXTURES / version / "expected.json.gz").read_bytes()))


def _collection(each: dict[str, Any]) -> ExpectedCollection:
    return ExpectedCollection(
        tenant=each.get("tenant"),
        database=each.get("database"),
        name=each["name"],
        id=each["id"],
        metadata=_untyped(each["metadata"]),
        configuration=_untyped(each.get("configuration")),
        count=each.get("count"),
        records={record["id"]: _record(record) for record in each["records"]},
        error=each.get("error"),
    )


def _record(record: dict[str, Any]) -> ExpectedRecord:
    written = {name: _field(name, value) for name, value in record.get("written", {}).items()}
    shown = {name: _field(name, record.get(name)) for name in ("document", "metadata", "embedding")}
    return ExpectedRecord(record["id"], **shown, written=written)


def _field(name: str, value: Any) -> Any:
    if name == "metadata":
        return _untyped(value)
    if name == "embedding" and value is not None:
        return np.frombuffer(base64.b64decode(value["base64"]), dtype=value["type"])
    return value


def _untyped(value: Any) -> Any:
    if isinstance(value, list):
        return [_untyped(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"float"}:
        return float.fromhex(value["float"])
    return {key: _untyped(item) for key, item in value.items()}
