"""`index` and `documents` as a user runs them: real files, the real model, exit codes, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from database.embedded import EmbeddedServer
from tests.conftest import PROJECT


@pytest.fixture(scope="module")
def home(short_folder: Path) -> Iterator[Path]:
    """A home whose server stays up between the commands."""
    server = EmbeddedServer(short_folder / "doors")
    server.start()
    yield short_folder / "doors"
    server.stop()


class Door:
    """`python synapse.py`, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "SYNAPSE_HOME": str(home)}

    def start(self, *arguments: str | Path, python: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, *python, str(PROJECT / "synapse.py"), *map(str, arguments)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, **pipes)

    def run(self, *arguments: str | Path, exits: int = 0) -> str:
        with self.start(*arguments) as program:
            output, errors = program.communicate(timeout=200)
        assert program.returncode == exits, output + errors
        return output

    def json(self, *arguments: str | Path, exits: int = 0) -> dict[str, Any]:
        return json.loads(self.run(*arguments, "--json", exits=exits))  # type: ignore[no-any-return]


@pytest.fixture
def door(home: Path) -> Door:
    return Door(home)


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key in ("added", "updated", "moved", "unchanged", "removed")}


def test_a_folder_from_first_index_to_removal(door: Door, tmp_path: Path) -> None:
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "pool.md").write_text("# Pools\n\n## Size\n\nA pool holds sixteen connections.\n")
    (tmp_path / "2024" / "pool.md.meta.json").write_text('{"team": "database"}')
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 not really")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    options = ("index", tmp_path, "--pattern", "{year}/…", "--meta", "draft=false")

    plan = door.json(*options, "--dry-run")
    assert (plan["added"], plan["embeddings"] >= 2, plan["skipped"]) == (2, True, {".png": 1})
    assert door.json("documents", "list")["sources"] == []

    first = door.json(*options, exits=3)
    assert set(first) == {"added", "updated", "moved", "unchanged", "removed", "failed", "chunks", "seconds"}
    assert numbers(first) == {"added": 1, "updated": 0, "moved": 0, "unchanged": 0, "removed": 0}
    assert [failure["source"] for failure in first["failed"]] == [str(tmp_path / "broken.pdf")]

    (source,) = [row for row in door.json("documents", "list")["sources"] if row["reason"] is None]
    shown = door.json("documents", "show", source["source"])
    meta = shown["chunks"][-1]["meta"]
    assert (meta["team"], meta["year"], meta["draft"], meta["title"]) == ("database", 2024, False, "Pools")
    for chunk in shown["chunks"]:
        start, end = chunk["meta"]["span"]
        assert chunk["content"] == shown["text"][start:end]

    (tmp_path / "broken.pdf").unlink()
    second = door.run(*options)
    assert "1 unchanged, 1 removed" in second
    assert "1 .png" in second

    passing = door.json("documents", "list", "--filter", "year == 2024")["sources"]
    assert [row["source"] for row in passing] == [source["source"]]
    assert door.json("documents", "list", "--filter", "year == 2023")["sources"] == []
    fields = {row["field"]: row for row in door.json("documents", "fields")["fields"]}
    assert (fields["year"]["types"], fields["year"]["examples"]) == (["number"], [2024])

    refused = door.json("documents", "delete", tmp_path, exits=4)
    assert "--yes" in refused["error"]["hint"]
    assert door.json("documents", "delete", tmp_path, "--yes")["removed"] == [source["source"]]
    assert door.json("documents", "list")["sources"] == []


@pytest.mark.slow
def test_an_unchanged_folder_loads_neither_haystack_nor_torch(door: Door, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ledgers and tables agree.")
    door.run("index", tmp_path)
    with door.start("index", tmp_path, "--json", python=("-X", "importtime")) as program:
        output, imports = program.communicate(timeout=100)
    assert json.loads(output)["unchanged"] == 1
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in imports.splitlines() if "|" in line}
    assert "psycopg" in loaded
    assert not loaded & {"haystack", "torch", "transformers", "sentence_transformers"}


@pytest.mark.slow
def test_a_mass_delete_is_refused(door: Door, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.txt").write_text(f"File number {number}.")
    door.run("index", tmp_path)
    for number in range(11):
        (tmp_path / f"{number}.txt").unlink()
    assert "--allow-mass-delete" in door.json("index", tmp_path, exits=4)["error"]["hint"]
    assert "--allow-mass-delete" in door.json("index", tmp_path, "--dry-run")["refused"]
    assert door.json("index", tmp_path, "--allow-mass-delete")["removed"] == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("index", "/no/such/folder"), "there is none"),
        (("index", ".", "--meta", "year"), "key=value"),
        (("index", ".", "--pattern", "docs"), "path pattern"),
        (("index", ".", "--watch"), "--json"),
        (("documents", "show", "nothing"), "documents list"),
        (("documents", "delete"), "--filter"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(door: Door, arguments: tuple[str, ...], message: str) -> None:
    error = door.json(*arguments, exits=2)["error"]
    assert message in error["message"] + error["hint"]


@pytest.mark.slow
def test_an_interrupted_index_continues(door: Door, tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.txt").write_text(f"File number {number} speaks of the number {number}. " * 4)
    with door.start("index", tmp_path) as program:
        time.sleep(3)
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=100)
    assert program.returncode == 130, output + errors
    assert "Run it again to continue" in errors
    assert "Traceback" not in errors
    result = door.json("index", tmp_path)
    assert result["added"] + result["unchanged"] == 300


@pytest.mark.slow
def test_a_watched_folder_follows_its_files(door: Door, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The first file.")
    with door.start("index", tmp_path, "--watch") as program:
        try:
            assert program.stdout is not None
            assert "1 added" in program.stdout.readline()
            (tmp_path / "b.txt").write_text("The second file.")
            assert "1 added, 1 unchanged" in program.stdout.readline()
        finally:
            program.send_signal(signal.SIGINT)
            program.communicate(timeout=60)
    assert program.returncode == 0
