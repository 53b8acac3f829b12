"""
Seconds from saving a file below a watched folder until a search finds it, conversion and embedding included.

    python -m benchmarks.watch_delay [--files 10]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring import MISSED, temporary_home
from config import PROJECT, Settings
from database.ledger import Ledger
from pipelines.api import open_ledger

WANTED = 2.0
PATIENCE = 120.0


def main() -> None:
    """Measure, print, and end with 5 where a file took longer than two seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10)
    arguments = parser.parse_args()
    with temporary_home() as home:
        folder = home.parent / "files"
        folder.mkdir()
        environment = {**os.environ, "SYNAPSE_HOME": str(home)}
        command = [sys.executable, str(PROJECT / "synapse.py"), "index", str(folder), "--watch"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as program:
            ledger = open_ledger(Settings(home=home))
            found = [seconds_until_found(folder / f"{number}.md", ledger) for number in range(arguments.files + 1)]
            program.terminate()
        ledger.database.close()
        if ledger.database.server is not None:
            ledger.database.server.stop()
    first, *rest = found
    print(f"first file, which loads the model   {first:6.2f} s")
    print(f"{len(rest)} more                             p50 {statistics.median(rest):.2f} s, worst {max(rest):.2f} s")
    sys.exit(0 if max(rest) <= WANTED else MISSED)


def seconds_until_found(path: Path, ledger: Ledger) -> float:
    """Save a file, and look for its chunk until it is there."""
    path.write_text(f"# File {path.stem}\n\nThis is what file number {path.stem} says about the watched folder.\n")
    began = time.perf_counter()
    while not ledger.chunks(str(path)):
        if time.perf_counter() - began > PATIENCE:
            raise SystemExit(f"{path} was not found within {PATIENCE:g} s")
        time.sleep(0.02)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
