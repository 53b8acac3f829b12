"""PgBouncer in transaction mode, in front of a server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.tcp_server import free_port


def program(name: str) -> str:
    """A program that a system package brings; where it is required, its absence is a failure."""
    found = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None:
        if os.environ.get("SYNAPSE_REQUIRE_SYSTEM"):
            pytest.fail(f"{name} is required but not installed")
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def pooled(conninfo: str, folder: Path, *, server_connections: int) -> Iterator[str]:
    """
    A PgBouncer that hands each transaction to whichever server connection is free.

    :param conninfo: The server, as one role with its password, whichever database.
    :param folder: For its files; any user must be able to enter it.
    :param server_connections: How many it keeps to a database.
    :returns: The connection string through it.
    """
    behind = conninfo_to_dict(conninfo)
    folder.mkdir()
    port = free_port()
    users, settings = folder / "users.txt", folder / "pgbouncer.ini"
    quoted = str(behind["password"]).replace('"', '""')
    users.write_text(f'"{behind["user"]}" "{quoted}"\n')
    settings.write_text(
        f"[databases]\n* = host={behind['host']} port={behind['port']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\n"
        f"default_pool_size = {server_connections}\nmax_client_conn = 300\nlogfile = {folder / 'log'}\n"
    )
    command = [program("pgbouncer"), str(settings)]
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        for path in (folder, users, settings):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        command += ["-u", "nobody"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    through = make_conninfo(conninfo, host="127.0.0.1", port=port)
    try:
        _wait_for(through)
        yield through
    finally:
        process.terminate()
        process.wait()


def _wait_for(conninfo: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(conninfo).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
