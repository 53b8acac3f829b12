"""kill -9 at every batch's edge and at random moments: what is run again ends in the same receipt."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from database.connection import Database
from database.migration_runs import list_runs, roll_back
from database.models import EmbeddingModel, add_model, drop_model, switch_model
from tests.support.migrating import BATCH, COUNT, started

RANDOM_MOMENTS = 30


@pytest.fixture
def home(owner: Database, database: Database) -> Iterator[Database]:
    add_model(owner, EmbeddingModel.named("tests/tiny", dimension=8))
    switch_model(owner, "tiny")
    yield owner
    undo(owner)
    switch_model(owner, "all-minilm-l6-v2")
    drop_model(owner, "tiny")


def undo(owner: Database) -> None:
    for run in list_runs(owner):
        roll_back(owner, run)


def finished(owner: Database, folder: Path) -> tuple[dict[str, object], bytes]:
    """The receipt of a run that nobody kills, and the rejects file."""
    folder.mkdir(exist_ok=True)
    process = started(owner.conninfo, folder)
    process.join(60)
    assert process.exitcode == 0
    receipt = json.loads((folder / "receipt.json").read_text())
    return receipt, (folder / "rejects.jsonl").read_bytes()


def killed(owner: Database, folder: Path, *, batch: int | None = None, after: float | None = None) -> bool:
    folder.mkdir(exist_ok=True)
    process = started(owner.conninfo, folder, batch)
    if after is not None:
        time.sleep(after)
        process.kill()
    process.join(60)
    return bool(process.exitcode == -signal.SIGKILL)


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_ends_in_the_same_receipt(home: Database, tmp_path: Path) -> None:
    receipt, rejects = finished(home, tmp_path / "whole")
    assert receipt["closed"]
    undo(home)
    begun = time.monotonic()
    finished(home, tmp_path / "warm")
    seconds = time.monotonic() - begun
    undo(home)
    for batch in range(1, COUNT // BATCH + 1):
        folder = tmp_path / f"batch {batch}"
        assert killed(home, folder, batch=batch)
        assert finished(home, folder) == (receipt, rejects)
        undo(home)
    random.seed(4)
    died = 0
    for number in range(RANDOM_MOMENTS):
        folder = tmp_path / f"random {number}"
        died += killed(home, folder, after=random.uniform(0, seconds))
        assert finished(home, folder) == (receipt, rejects)
        undo(home)
    assert died > RANDOM_MOMENTS / 2
