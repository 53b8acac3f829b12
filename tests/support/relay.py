"""A relay before the server's socket that counts round trips, as a remote database would make one wait for."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
