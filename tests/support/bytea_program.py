"""A program that migrates a bytea column, to be killed."""

from __future__ import annotations

import os
import signal
import sys
import time

from database.connection import Database
from migration.bytea import migrate
from migration.bytea_index import Index
from migration.bytea_options import Options


def main(conninfo: str, table: str) -> None:
    """
    For each line of standard input, with a number of seconds, migrate in a process of its own and kill it after that time.

    Prints `killed`, or `done` if it was done before. The process is a fork, as importing takes longer than migrating.
    """
    options = Options(table=table, column="embedding", batch=100, pause=0.005, index=Index(m=4, ef_construction=8))
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            closed = migrate(Database(conninfo), options).receipt.closed
            os._exit(0 if closed else 1)
        deadline = time.monotonic() + float(line)
        done, status = 0, 0
        while not done and time.monotonic() < deadline:
            done, status = os.waitpid(process, os.WNOHANG)
            time.sleep(0.002)
        if not done:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        print("killed" if not done else "done" if status == 0 else f"failed {status}", flush=True)
