"""The reads that wait for a server's answer, so that those of a server that has fallen silent can be given up."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import psycopg

Address: TypeAlias = tuple[str, int]
AnyConnection: TypeAlias = "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]"


class RunningReads:
    """Reads by the connection that they run on. Safe to share between threads and event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[AnyConnection, float] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._since)

    @contextmanager
    def noted(self, connection: AnyConnection) -> Iterator[None]:
        """Note a read for as long as it runs."""
        began = time.monotonic()
        with self._lock:
            self._since[connection] = began
        try:
            yield
        finally:
            with self._lock:  # nobody cuts it any more
                self._since.pop(connection, None)

    def overdue(self, seconds: float) -> set[Address]:
        """Host and port of the servers that a read has waited for this long."""
        until = time.monotonic() - seconds
        with self._lock:
            return {
                address
                for connection, since in self._since.items()
                if since < until and (address := _address(connection))
            }

    def cut(self, address: Address) -> int:
        """
        End the connections of all reads that wait for a server; whoever waits finds that it closed them.

        A server whose network is cut closes nothing, and TCP itself gives up after minutes.

        :param address: Host and port.
        :returns: How many there were.
        """
        cut = 0
        with self._lock:
            for connection in self._since:
                if _address(connection) == address:
                    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                        wire.shutdown(socket.SHUT_RDWR)
                        cut += 1
        return cut


def _address(connection: AnyConnection) -> Address | None:
    try:
        return connection.info.host, connection.info.port
    except psycopg.Error:  # it was cut meanwhile
        return None
