"""Fixtures of the tests that need more than the embedded server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tcp_server import TcpServer


@pytest.fixture(scope="session")
def tcp_server(short_folder: Path) -> Iterator[TcpServer]:
    """A server with TCP and passwords, and nothing of ours in its database."""
    server = TcpServer(short_folder / "tcp")
    server.start()
    yield server
    server.stop()
