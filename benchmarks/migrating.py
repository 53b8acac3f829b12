"""
A Chroma directory by `migrate_from_chroma.py`, with its receipt: rate, memory, time of each step; beside a plain script.

    python -m benchmarks.migrating [--rows 1000000] [--plain-rows 100000] [--python .venv-chroma/bin/python] [--json FILE]

`make bench-migration` makes the environment of the plain script first. The directories are generated in Chroma 1.5's format; the
servers are the embedded one with its usual settings, a new one for each migration, started before the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chroma_directory import COLLECTION, make_directory
from benchmarks.machine import description
from benchmarks.measuring import say, temporary_home
from benchmarks.stores import benchmark_server
from config import PROJECT

DIMENSION = 384


def main() -> int:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--plain-rows", type=int, default=100_000)
    parser.add_argument("--python", type=Path, help="the plain script's environment; without it, no comparison")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {**description(), "dimension": DIMENSION}
    with temporary_home() as folder:
        if options.python:
            source = _made(folder / "small", options.plain_rows)
            result["ours_small"] = _ours(source, folder / "first")
            result["plain_small"] = _plain(source, options.python)
            result["ratio"] = round(result["plain_small"]["seconds"] / result["ours_small"]["seconds"], 1)
            shutil.rmtree(source)
        if options.rows:
            result["ours"] = _ours(_made(folder / "large", options.rows), folder / "second")
    say(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _made(path: Path, rows: int) -> Path:
    say(f"Writing a Chroma directory of {rows:,} x {DIMENSION} …")
    make_directory(path, rows, DIMENSION, seed=1)
    return path


def _ours(source: Path, home: Path) -> dict[str, Any]:
    """The migration as a user runs it, with the peak of its memory, and of that with the process of the model check."""
    command = [
        sys.executable,
        str(PROJECT / "migrate_from_chroma.py"),
        str(source),
        "--receipt",
        str(home / "receipt"),
        "--json",
    ]
    home.mkdir()
    with benchmark_server() as server, (home / "receipt.json").open("w+") as output:
        urls = {"DATABASE_URL": server.conninfo(), "DATABASE_OWNER_URL": server.conninfo(owner=True)}
        environment = {**os.environ, **urls, "SYNAPSE_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1"}
        began, peak, own = time.perf_counter(), 0, 0
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.DEVNULL)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            own = max(own, _peak(process.pid))
            peak = max(peak, own + sum(_peak(child.pid) for child in _python_children(watched)))
            time.sleep(0.5)
        seconds = time.perf_counter() - began
        output.seek(0)
        receipt = json.loads(output.read())
    if "run" not in receipt:
        raise SystemExit(str(receipt))
    took, part = receipt["run"]["seconds"], receipt["parts"][0]
    return {
        "rows": part["records"],
        "closed": receipt["closed"],
        "seconds": round(seconds, 1),
        "steps": took,
        "loading_rows_per_second": round(part["records"] / took["loading"]),
        "checking_and_loading_rows_per_second": round(part["records"] / (took["checking"] + took["loading"])),
        "indexing_seconds": round(took["loading and indexing"] - took["loading"], 1),
        "memory_mib": round(own / 2**20),
        "memory_with_model_check_mib": round(peak / 2**20),
        "search": part["checks"].get("search"),
    }


def _peak(pid: int) -> int:
    """The most memory that a process has held so far, in bytes; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration):
        return 0


def _python_children(process: psutil.Process) -> list[psutil.Process]:
    """What the program starts for itself; the database's server is none of its memory."""
    try:
        return [child for child in process.children(recursive=True) if "python" in child.name()]
    except psutil.Error:
        return []


def _plain(source: Path, python: Path) -> dict[str, Any]:
    copied = source.with_name("copy")  # chromadb changes what it opens
    shutil.copytree(source, copied)
    with benchmark_server() as server:
        script = PROJECT / "benchmarks" / "plain_chroma_script.py"
        command = [str(python), str(script), str(copied), COLLECTION, server.conninfo(owner=True), str(DIMENSION)]
        environment = {**os.environ, "HAYSTACK_TELEMETRY_ENABLED": "False", "ANONYMIZED_TELEMETRY": "False"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"rows": found["rows"], "seconds": round(found["seconds"], 1)}


if __name__ == "__main__":
    sys.exit(main())
