"""A migration in a process of its own, which can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from database.connection import Database
from database.document_store import SynapseDocumentStore  # so that a forked process has it  # noqa: F401
from migration.conversion import checked_policies
from migration.engine import Migration, Options
from migration.progress import Progress
from tests.support.record_source import RecordSource, record, records

COUNT, BATCH = 200, 20
CHOSEN = {"nul": "keep", "missing_vector": "keep", "not_finite": "reject"}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def source() -> RecordSource:
    """Records, some of which are changed and one of which is rejected."""
    contents = records(COUNT)
    contents[30] = record(30, content="a\x00b")
    contents[31] = record(31, meta={"x": float("inf")})
    contents[190] = record(190, embedding=None)
    return RecordSource({"papers": contents})


def migrate(conninfo: str, folder: str, kill_at: int | None = None) -> None:
    """
    Migrate, and write the receipt without what differs between runs.

    :param kill_at: Die as kill -9 does when so many batches have been written.
    """
    batches = 0

    def report(progress: Progress) -> None:
        nonlocal batches
        batches += progress.step == "loading" and bool(progress.part)
        if batches == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    owner = Database(conninfo)
    options = Options(policies=checked_policies(CHOSEN), batch=BATCH, queries=5)
    receipt = Migration(source(), owner, options, receipts=Path(folder), on_progress=report).run().to_dict()
    receipt.pop("run")
    Path(folder, "receipt.json").write_text(json.dumps(receipt))


def started(conninfo: str, folder: Path, kill_at: int | None = None) -> Any:
    """The migration as a process that has been started."""
    process = _processes.Process(target=migrate, args=(conninfo, str(folder), kill_at))
    process.start()
    return process
