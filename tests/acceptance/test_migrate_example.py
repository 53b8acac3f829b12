"""The example of a source of one's own, as the page on sources shows it: run as a program, and held to what a source promises."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from database import schema
from examples.migrate_jsonl import JsonLines
from tests.acceptance.program import PROJECT, Program


@pytest.fixture
def migrating(empty_conninfo: str, tmp_path: Path) -> Program:
    """A program with a database of its own, in which nobody has migrated anything."""
    schema.upgrade(empty_conninfo)
    return Program(home=tmp_path / "home", environment={"DATABASE_URL": empty_conninfo})


def run(program: Program, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.migrate_jsonl", *map(str, arguments)]
    environment = program.full_environment()
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_it_migrates_its_own_file_once_and_closes_the_books(migrating: Program) -> None:
    for _ in range(2):
        done = run(migrating)
        assert done.returncode == 0, done.stderr
        assert "The books are closed." in done.stdout
    with psycopg.connect(migrating.environment["DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT id, meta FROM documents_tickets ORDER BY id").fetchall()
    assert [id_ for id_, _ in rows] == ["ticket/101", "ticket/102", "ticket/103"]
    assert rows[2][1] == {"team": "visitors", "year": 2024}


def test_what_cannot_be_read_is_in_the_rejects_file(migrating: Program, tmp_path: Path) -> None:
    path = written(tmp_path / "notes.jsonl", {"id": "n1", "text": "note", "vector": [0.0] * 383 + [1.0]}, '{"id": "n2')
    done = run(migrating, path)
    assert done.returncode == 0, done.stderr
    rejects = (migrating.home / "receipts" / "notes" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in rejects] == ["unreadable", "rejected"]
    assert base64.b64decode(json.loads(rejects[0])["original"]["bytes"]) == b'{"id": "n2\n'
    with psycopg.connect(migrating.environment["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT id FROM documents_notes").fetchall() == [("n1",)]


def test_it_keeps_what_a_source_promises(tmp_path: Path) -> None:
    path = written(tmp_path / "notes.jsonl", {"id": 1, "text": "a", "vector": [1, 2]}, "", "[]", {"id": 2, "k": [1]})
    source = JsonLines(path)
    (part,) = source.parts()
    records = list(source.records(part))
    assert (part.count, part.dimension, part.refusal) == (4, 2, None)
    assert [record.losses != () for record in records] == [False, True, True, False]
    assert (records[3].content, records[3].meta, records[3].embedding) == (None, {"k": [1]}, None)
    for number, record in enumerate(records):
        assert [each.id for each in source.records(part, after=record.position)] == [
            r.id for r in records[number + 1 :]
        ]
    before = source.fingerprint()
    assert source.fingerprint() == before
    written(path, {"id": 1}, {"id": 1})
    assert source.fingerprint() != before
    assert "repeats 1 ids" in (source.parts()[0].refusal or "")


def test_the_page_shows_the_example_as_it_is() -> None:
    program = (PROJECT / "examples" / "migrate_jsonl.py").read_text(encoding="utf-8")
    page = (PROJECT / "docs" / "adding-a-source.md").read_text(encoding="utf-8")
    shown = page.split("```python\n")[1].split("\n```")[0]
    assert shown == program[program.index("from __future__") : program.index("\n\n\nif __name__")]
