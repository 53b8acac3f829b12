"""
Peak memory of indexing 200 files against 2,000, in the program and in its converter process.

    python -m benchmarks.memory [--files N N]

Chunks are embedded by the real model; sizes are the same for every file, so that only their number differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time

import psutil

from benchmarks.measuring import MISSED, temporary_home
from config import PROJECT


def main() -> None:
    """Measure, print, and end with 5 where more files take more memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs=2, default=[200, 2000])
    parser.add_argument("--limit", type=float, default=1.1, help="the larger peak over the smaller")
    arguments = parser.parse_args()
    peaks = [peak(files) for files in arguments.files]
    for files, found in zip(arguments.files, peaks, strict=True):
        print(f"{files:>6} files: peak {found / 2**20:.0f} MiB")
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.2f} (at most {arguments.limit})")
    sys.exit(0 if ratio <= arguments.limit else MISSED)


def peak(files: int) -> int:
    """Bytes that the program and its converter process held at most, together, while they indexed."""
    with temporary_home() as home:
        folder = home.parent / "files"
        folder.mkdir()
        for number in range(files):
            (folder / f"{number}.txt").write_text(f"File number {number} speaks of the number {number}. " * 8)
        environment = {**os.environ, "SYNAPSE_HOME": str(home)}
        command = [sys.executable, str(PROJECT / "synapse.py"), "index", str(folder), "--json"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as program:
            watcher = Watcher(program.pid)
            watcher.start()
            program.wait()
        watcher.join()
    if program.returncode:
        raise SystemExit(f"index ended with {program.returncode}")
    return watcher.peak


class Watcher(threading.Thread):
    """Notes what a program and its Python processes hold, five times a second. The server's memory is its own."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._process = psutil.Process(process)

    def run(self) -> None:
        while True:
            try:
                if self._process.status() == psutil.STATUS_ZOMBIE:
                    return
                family = [self._process, *self._process.children()]
                held = sum(p.memory_info().rss for p in family if p.name().startswith("python"))
            except psutil.Error:
                if not self._process.is_running():
                    return
                continue
            self.peak = max(self.peak, held)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
