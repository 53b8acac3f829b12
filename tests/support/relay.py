"""Relays before a server: one that counts round trips, as a remote database would make one wait for, and one that can be cut."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Relay:
    """Passes bytes on. A round trip begins when the client sends after the server has spoken."""

    def __init__(self, folder: Path, target: str) -> None:
        self.round_trips = 0
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / Path(target).name))
        self._listener.listen()
        self._server_spoke = True
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            for source, target, from_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=(source, target, from_client), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with suppress(OSError):  # the other end closed it
            while data := source.recv(65536):
                if from_client and self._server_spoke:
                    self.round_trips += 1
                self._server_spoke = not from_client
                target.sendall(data)
        target.close()


@contextmanager
def relayed(conninfo: str) -> Iterator[tuple[str, Relay]]:
    """A connection string that leads through a relay, and the relay."""
    known = conninfo_to_dict(conninfo)
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        target = Path(str(known["host"])) / f".s.PGSQL.{known['port']}"
        with Relay(Path(folder), str(target)) as relay:
            yield make_conninfo(conninfo, host=folder), relay


class TcpRelay:
    """
    A network that can be cut, between clients of TCP and a server of this machine.

    :param target: The server's port.
    """

    host = "127.0.0.1"

    def __init__(self, target: int) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._wires: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((self.host, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """Let nothing through any more: connections stay open, new ones are taken, and nobody hears an answer."""
        self._flowing.clear()

    def break_connections(self) -> None:
        """End all connections; new ones are taken."""
        with self._lock:
            wires, self._wires = self._wires, set()
        for wire in wires:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let everything through again, also what was held up."""
        self._flowing.set()

    def close(self) -> None:
        """Take no connection any more, and end those that are there."""
        self._listener.close()
        self.mend()
        self.break_connections()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._flowing.wait()
        try:
            server = socket.create_connection((self.host, self._target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._wires |= {client, server}
        threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()
        self._pass_on(client, server)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                target.sendall(data)
        for wire in (source, target):
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
