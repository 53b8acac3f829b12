"""
The time that `index` takes, as a process of its own, for 2,000 files that did not change.

    python -m benchmarks.sync_unchanged [--files N] [--runs N]

The embedded server is started by each run, unless something else keeps it up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measuring import MISSED, temporary_home
from config import PROJECT, Settings
from pipelines.api import open_ledger, sync_rules
from pipelines.sync import plan_sync


def main() -> None:
    """Measure, print, and end with 5 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds")
    arguments = parser.parse_args()

    with temporary_home() as home:
        folder = home.parent / "files"
        make(folder, files=arguments.files)
        note_as_indexed(folder, home)
        times = [timed_run(folder, home, files=arguments.files) for _ in range(arguments.runs)]
    print(f"{arguments.files} unchanged files: best {min(times):.2f} s, worst {max(times):.2f} s of {len(times)} runs")
    sys.exit(0 if min(times) <= arguments.limit else MISSED)


def make(folder: Path, *, files: int) -> None:
    """Files in 20 folders, changed a minute ago."""
    before = time.time() - 60
    for number in range(files):
        path = folder / f"{number % 20}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"File number {number}.\n" * 40)
        os.utime(path, (before, before))


def note_as_indexed(folder: Path, home: Path) -> None:
    """What the ledger holds after an indexing; embedding them would take minutes and change nothing here."""
    settings = Settings(home=home)
    ledger = open_ledger(settings)
    states = [planned.state for planned in plan_sync([folder], ledger, rules=sync_rules(settings)).added]
    ledger.quarantine([replace(state, reason="benchmark") for state in states])
    with ledger.database.connection() as connection:
        connection.execute("UPDATE sources SET reason = NULL, chunks = 1")
    ledger.database.close()
    stop(ledger.database.server)


def stop(server: Any) -> None:
    """Leave the embedded server, which ends with its last user."""
    if server is not None:
        server.stop()


def timed_run(folder: Path, home: Path, *, files: int) -> float:
    """Seconds of one `index`, from start to exit."""
    command = [sys.executable, str(PROJECT / "synapse.py"), "index", str(folder), "--json"]
    environment = {**os.environ, "SYNAPSE_HOME": str(home)}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    elapsed = time.perf_counter() - started
    if json.loads(done.stdout)["unchanged"] != files:
        raise SystemExit(f"{files} unchanged files were expected, but: {done.stdout}")
    return elapsed


if __name__ == "__main__":
    main()
