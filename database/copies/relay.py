"""
How PostgreSQL's programs reach a server that we are connected to.

The embedded server's package was built without TLS, which most managed servers want. Where our own connection is encrypted, the
programs therefore connect to a socket in a folder that is ours alone, and a relay in this process encrypts what they say.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_AUTHENTICATION, _ERROR = b"R", b"E"
_BOUND_OFFER = b"SCRAM-SHA-256-PLUS\0"
_PORT = 5432
_CHUNK = 256 * 1024


@contextmanager
def reachable(connection: psycopg.Connection[Any]) -> Iterator[dict[str, str]]:
    """
    The variables by which a program of PostgreSQL reaches the server, as the user and in the database of a connection.

    :param connection: Of ours, to the server.
    """
    info = connection.info
    environment = {"PGUSER": info.user, "PGDATABASE": info.dbname, "PGAPPNAME": "synapse copy", "PGSSLMODE": "disable"}
    if info.password:
        environment["PGPASSWORD"] = info.password
    if not connection.pgconn.ssl_in_use:
        host = info.hostaddr if info.hostaddr and not info.host.startswith("/") else info.host
        yield environment | {"PGHOST": host, "PGPORT": str(info.port)}
        return
    with _Relay(info.hostaddr or info.host, info.port, name=info.host, context=_context(info.dsn)) as folder:
        yield environment | {"PGHOST": str(folder), "PGPORT": str(_PORT)}


def _context(dsn: str) -> ssl.SSLContext:
    """As strict as libpq was, by `sslmode` and its certificates."""
    known = conninfo_to_dict(dsn)
    mode, root = str(known.get("sslmode", "prefer")), str(known.get("sslrootcert", ""))
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if root != "system":
        given = Path(root) if root else Path.home() / ".postgresql" / "root.crt"
        if given.is_file():
            context = ssl.create_default_context(cafile=str(given))
            mode = "verify-ca" if mode == "require" else mode
    context.check_hostname = mode == "verify-full"
    if mode not in ("verify-ca", "verify-full"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if known.get("sslcert"):
        context.load_cert_chain(str(known["sslcert"]), str(known.get("sslkey") or "") or None)
    return context


class _Relay:
    """
    A socket in a folder of its own that takes plain connections, and passes them on encrypted.

    :param host: The server's address.
    :param name: The server's name, which its certificate is for.
    """

    def __init__(self, host: str, port: int, *, name: str, context: ssl.SSLContext) -> None:
        self._host, self._port, self._name, self._context = host, port, name, context
        self._folder = tempfile.TemporaryDirectory(prefix="synapse-", ignore_cleanup_errors=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="synapse-relay")

    def __enter__(self) -> Path:
        folder = Path(self._folder.name)
        self._thread.start()
        listening = asyncio.start_unix_server(self._serve, str(folder / f".s.PGSQL.{_PORT}"))
        asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        return folder

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()
        self._folder.cleanup()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end; a server that cannot be reached shows as a connection that was closed."""
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            answers, server = await asyncio.open_connection(self._host, self._port)
            server.write(_SSL_REQUEST)  # with it and one letter back PostgreSQL begins TLS
            if await answers.readexactly(1) == b"S":
                await server.start_tls(self._context, server_hostname=self._name)
                await asyncio.gather(_pass_on(reader, server), _pass_answers_on(answers, writer))
            server.close()
        writer.close()


async def _pass_answers_on(answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """
    What the server says, without the offer to bind the password to its certificate.

    libpq breaks off where it gets that offer on a connection that is plain to it. The password itself never travels.
    """
    kind = b""
    while kind not in (_AUTHENTICATION, _ERROR):
        kind, length = struct.unpack("!ci", await answers.readexactly(5))
        body = (await answers.readexactly(length - 4)).replace(_BOUND_OFFER, b"")
        writer.write(struct.pack("!ci", kind, len(body) + 4) + body)
    await _pass_on(answers, writer)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.close()
