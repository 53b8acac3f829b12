"""A program that syncs a folder, to be killed: the real driver and ledger, with a quick converter and embedder."""

from __future__ import annotations

import os
import signal
import sys
import time

from config import Settings
from database.connection import Database
from database.ledger import Ledger
from database.models import active_model
from pipelines.indexing_driver import IndexingDriver
from pipelines.sync import SyncRules, plan_sync
from tests.support.indexing import HashEmbedder, LineConverter

RULES = SyncRules(fingerprint="v1", suffixes=frozenset({".txt"}), max_file_bytes=1_000_000, allow_mass_delete=True)


def sync(conninfo: str, folder: str) -> None:
    """Bring the index in line with a folder, once."""
    database = Database(conninfo).for_tenant("default")
    ledger = Ledger(database, model=active_model(database))
    settings = Settings(embedding_batch_size=8)
    with IndexingDriver(settings, ledger=ledger, embedder=HashEmbedder(), converter=LineConverter()) as driver:
        driver.apply(plan_sync([folder], ledger, rules=RULES))
    database.close()


def main(conninfo: str, folder: str) -> None:
    """
    For each line of standard input, with a number of seconds, sync in a process of its own and kill it after that time.

    Prints `killed`, or `done` if it was done before. The process is a fork, as importing takes longer than syncing.
    """
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            sync(conninfo, folder)
            os._exit(0)
        deadline = time.monotonic() + float(line)
        while (finished := os.waitpid(process, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.002)
        status = os.waitstatus_to_exitcode(finished[1])
        print({0: "done", -signal.SIGKILL: "killed"}.get(status, f"failed with {status}"), flush=True)
