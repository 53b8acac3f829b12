"""kill -9 at random moments, and runs at the same time: the ledger and the table agree afterwards."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from database.connection import Database
from database.embedded import EmbeddedServer
from tests.conftest import PROJECT
from tests.support.indexing import assert_books_agree

KILLS = 20
PROGRAM = "import sys; from tests.support.sync_program import main; main(*sys.argv[1:])"


@pytest.fixture(scope="module")
def durable(short_folder: Path) -> Iterator[Database]:
    """A database that fsyncs, as a user's does."""
    server = EmbeddedServer(short_folder / "kill")
    server.start()
    database = Database(server.conninfo(), server=server).for_tenant("default")
    yield database
    database.close()
    server.stop()


class Sync:
    """A folder that changes, and programs that sync it."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.random = random.Random(1)

    def program(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, self.database.conninfo, str(self.folder)]
        return subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def change(self) -> None:
        """Some files are new, some change, some move, some go."""
        for _ in range(30):
            path = self.folder / f"{self.random.randrange(80)}.txt"
            what = self.random.random()
            if path.exists() and what < 0.2:
                path.unlink()
            elif path.exists() and what < 0.4:
                path.rename(self.folder / f"moved {path.stem.split()[-1]}.txt")
            else:
                lines = self.random.randrange(1, 12)
                path.write_text("".join(f"{self.random.randrange(10**6)} {path.name}\n" for _ in range(lines)))

    def assert_all_there(self) -> None:
        """What stands in the table is what stands in the files, line by line."""
        rows = self.database.read(
            "SELECT meta ->> 'source' AS source, content FROM documents_all_minilm_l6_v2 "
            "WHERE starts_with(meta ->> 'source', %s)",
            [f"{self.folder}/"],
        )
        found = sorted((row["source"], row["content"]) for row in rows)
        expected = [
            (str(path), line) for path in self.folder.iterdir() for line in path.read_text().splitlines(keepends=True)
        ]
        assert found == sorted(expected)
        assert_books_agree(self.database)


def sync_for(program: subprocess.Popen[str], seconds: float) -> None:
    assert program.stdin is not None
    program.stdin.write(f"{seconds}\n")
    program.stdin.flush()


def outcome(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path, durable: Database) -> None:
    sync = Sync(tmp_path, durable)
    outcomes: list[str] = []
    with sync.program() as program:
        while outcomes.count("killed") < KILLS:
            sync.change()
            sync_for(program, sync.random.uniform(0, 0.8))
            outcomes.append(outcome(program))
            assert_books_agree(durable)
        sync_for(program, 60)
        assert outcome(program) == "done"
    assert set(outcomes) <= {"killed", "done"}
    sync.assert_all_there()


@pytest.mark.slow
def test_several_at_once(tmp_path: Path, durable: Database) -> None:
    sync = Sync(tmp_path, durable)
    with sync.program() as first, sync.program() as second, sync.program() as third:
        for _ in range(5):
            sync.change()
            for program in (first, second, third):
                sync_for(program, 60)
            assert [outcome(program) for program in (first, second, third)] == ["done"] * 3
            sync.assert_all_there()
