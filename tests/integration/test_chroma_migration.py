"""Databases of real Chroma versions through the engine: what PostgreSQL then holds is what that version showed, or has a name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg.sql import SQL, Identifier

from database.connection import Database
from database.migration_runs import list_runs, roll_back
from migration.conversion import KINDS, checked_policies
from migration.engine import Migration, Options
from migration.record_hash import canonical
from migration.source import Part
from migration.sources.chroma_directory import ChromaDirectory
from tests.support.chroma_databases import VERSIONS, ExpectedCollection, ExpectedRecord, expected, unpacked

KEEP = checked_policies(dict.fromkeys(KINDS, "keep"))


@pytest.fixture
def home(owner: Database, database: Database) -> Iterator[Database]:
    yield owner
    for run in list_runs(owner):
        roll_back(owner, run)


QUICK = ("0.3.29", "1.5.9")


@pytest.mark.parametrize(
    "version", [version if version in QUICK else pytest.param(version, marks=pytest.mark.slow) for version in VERSIONS]
)
def test_what_a_version_showed_is_what_arrives(home: Database, tmp_path: Path, version: str) -> None:
    folder = unpacked(version, tmp_path)
    before = contents(folder)
    shown = {one.id: one for one in expected(version)}
    compared = 0
    with closing(ChromaDirectory(folder)) as source:
        parts = [part for part in source.parts() if part.count]
        for number, part in enumerate(parts):
            options = Options(
                parts=(part.id,),
                table=f"documents_chroma_{number}",
                model=f"tests/of-{part.dimension}",
                policies=KEEP,
                accept_rank_change=True,
                queries=3,
            )
            receipt = Migration(source, home, options, receipts=tmp_path / part.id).run()
            assert receipt.open() == []
            (books,) = receipt.parts
            assert books.records == books.copied + books.changed == part.count
            compared += compare(home, part, books.target, shown[part.id], tmp_path / part.id / "rejects.jsonl")
    assert compared > 100
    assert contents(folder) == before


def compare(home: Database, part: Part, table: str, collection: ExpectedCollection, rejects: Path) -> int:
    """Every record against its row; those with a named change are looked at elsewhere. Returns how many are equal."""
    changed = {json.loads(line)["id"] for line in rejects.read_text().splitlines()}
    rows = {
        row["id"]: row
        for row in home.read(SQL("SELECT id, content, meta, embedding FROM {}").format(Identifier(table)))
    }
    same = 0
    for record in collection.records.values():
        if record.id not in changed:
            assert unlike(record, rows[record.id]) == [], (part.name, record.id)
            same += 1
    assert len(rows) == part.count
    return same


def unlike(record: ExpectedRecord, row: dict[str, Any]) -> list[str]:
    """Fields that are neither as the version showed them nor as they were written, where it shows something else."""
    found = {"document": row["content"], "metadata": row["meta"], "embedding": row["embedding"].to_numpy()}
    fields = []
    for name, value in found.items():
        wanted = [getattr(record, name), *([record.written[name]] if name in record.written else [])]
        if not any(equal(value, one) for one in wanted):
            fields.append(name)
    return fields


def equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, np.ndarray):
        return wanted is not None and found.tobytes() == np.asarray(wanted).astype(np.float32).tobytes()
    if isinstance(found, dict):
        return canonical(found) == canonical(wanted or {})
    return bool(found == wanted)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
