"""The service as a process of its own, on a database with tenants, users and keys."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from haystack import Document

from config import PROJECT, VARIABLES, Settings
from database.accounts import Accounts, Identity
from database.connection import Database
from database.embedded import EmbeddedServer
from database.tenancy import DEFAULT_TENANT, create_tenant
from pipelines.api import index_documents
from tests.tcp_server import free_port

START_SECONDS = 90.0


@dataclass
class Ground:
    """
    A database server of its own, and who may use it.

    :param home: Its folder; any user must be able to enter it.
    :param settings: Of PostgreSQL.
    """

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = EmbeddedServer(self.home, settings=dict(self.settings))
        self.server.start()
        self.database = Database(self.server.conninfo())
        self.owner = Database(self.server.conninfo(owner=True))
        self.accounts = Accounts(self.database)

    def close(self) -> None:
        """Stop it."""
        self.database.close()
        self.owner.close()
        self.server.stop()

    def tenant(self, name: str, documents: Sequence[Document] = ()) -> Settings:
        """Make a tenant with documents; the settings are those under which a program works for it."""
        if name != DEFAULT_TENANT:
            create_tenant(self.owner, name)
        settings = replace(self.program_settings(), tenant=name)
        if documents:
            index_documents(documents, settings=settings)
        return settings

    def program_settings(self) -> Settings:
        """As a program has them that was given the application's connection string."""
        return Settings(home=self.home, database_url=self.server.conninfo())

    def user(self, tenant: str, name: str) -> tuple[Identity, str]:
        """A user and a key of theirs."""
        identity = self.accounts.create_user(tenant, name)
        text, _ = self.accounts.create_key(tenant, name, label="tests")
        return identity, text

    def stop_database(self) -> None:
        """Take it away from under everybody, as a crash does."""
        with self.server._locked():
            self.server._run("pg_ctl", "stop", "-D", self.server.data, "-m", "immediate", "-w", check=False)

    def start_database(self) -> None:
        """Bring it back."""
        with self.server._locked():
            self.server._ensure_running()

    def busy(self) -> list[str]:
        """What the service's connections are doing at this moment, idle ones left out."""
        rows = self.owner.read(
            "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND usename <> 'postgres' AND state <> 'idle'"
        )
        return [f"{row['state']}: {row['query']}" for row in rows]


@dataclass
class ServiceProcess:
    """
    `python synapse.py serve`, and what it says.

    :param environment: Its settings, as variables.
    :param log: Where its log goes; is added to when it is started again.
    """

    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    url: str = ""

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        unset = dict.fromkeys(VARIABLES.values(), "")  # keeps a developer's .env out
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        variables = {**unset, **kept, "HF_HUB_OFFLINE": "1", **self.environment}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(PROJECT / "synapse.py"), "serve", "--port", str(port)],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
            )
        self.wait_until_ready()

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """
        Wait for `/ready` to say so.

        :raises AssertionError: If it does not within that time, or the process ended; with what it said.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process is not None and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/ready", timeout=10).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"the service was expected to be ready; it said {self.said()[-3000:]}")

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def records(self) -> list[dict[str, Any]]:
        """Its log, record by record; lines for whoever started it are left out."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def unexplained(self) -> list[dict[str, Any]]:
        """Requests that failed by the service's doing, without a record that says why; `/ready` says it in its answer."""
        records = [one for one in self.records() if one.get("route") != "/ready"]
        explained = {one.get("request_id") for one in records if one["level"] in ("warning", "error")}
        return [one for one in records if one.get("status", 0) >= 500 and one["request_id"] not in explained]

    def memory_mb(self) -> float:
        """What it holds of the machine's memory, shared libraries included."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """The most that it held since it started, or since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin to count anew what `peak_mb` tells."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._pid, number)

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit code."""
        assert self.process is not None, "it was not started"
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it, gently at first."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    @property
    def _pid(self) -> int:
        assert self.process is not None, "it was not started"
        return self.process.pid

    def _status(self, name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0


@contextmanager
def service(ground: Ground, log: Path, **environment: str) -> Iterator[ServiceProcess]:
    """
    The service on a ground, with these settings besides.

    :param log: Where its output goes.
    :param environment: Settings, as variables.
    """
    given = {"SYNAPSE_HOME": str(ground.home), "DATABASE_URL": ground.server.conninfo(), **environment}
    running = ServiceProcess(given, log)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def client_of(running: ServiceProcess, *, connections: int = 200) -> httpx.AsyncClient:
    """An HTTP client with room for a crowd."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=running.url, timeout=120, limits=limits)


def settled(ground: Ground, *, seconds: float = 10.0) -> list[str]:
    """What connections are still doing when they had time to come to an end."""
    end = time.monotonic() + seconds
    while (busy := ground.busy()) and time.monotonic() < end:
        time.sleep(0.1)
    return busy
