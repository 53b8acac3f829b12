"""A real `chroma run`, from an environment that `tests/fixtures/chroma/make.py --environments` has made."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tcp_server import free_port

START_SECONDS = 60


@dataclass
class ChromaProcess:
    """A server that runs, at an address."""

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def program(version: str) -> Path:
    """The `chroma` of a version; where system tests are required, its absence is a failure."""
    folder = os.environ.get("SYNAPSE_CHROMA_ENVS")
    found = Path(folder or "") / version / "bin" / "chroma"
    if not folder or not found.exists():
        reason = f"no chromadb {version}: make.py --environments FOLDER {version}, then SYNAPSE_CHROMA_ENVS=FOLDER"
        if os.environ.get("SYNAPSE_REQUIRE_SYSTEM"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def served(version: str, folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[ChromaProcess]:
    """
    Serve a folder, which the server writes to.

    :param version: Of chromadb.
    :param settings: Environment variables for the server.
    """
    port = free_port()
    command = [program(version), "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"ANONYMIZED_TELEMETRY": "False"} | dict(settings or {})
    log = folder.with_name(f"{folder.name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder.parent)
    server = ChromaProcess(f"http://127.0.0.1:{port}", process)
    try:
        wait_for(server, log)
        yield server
    finally:
        server.kill()


def wait_for(server: ChromaProcess, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        for interface in ("v2", "v1"):
            try:
                urllib.request.urlopen(f"{server.url}/api/{interface}/heartbeat", timeout=5).close()
                return
            except urllib.error.HTTPError:
                continue
            except OSError:
                break
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"chroma run did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
