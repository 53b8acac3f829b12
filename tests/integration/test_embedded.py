"""The embedded server: many processes, deaths, awkward folders."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from database.embedded import EmbeddedServer
from database.errors import ConfigurationError
from tests.conftest import PROJECT

USER_OF_THE_SERVER = """
import sys
from pathlib import Path
from database.connection import database_for
database = database_for(None, home=sys.argv[1]).for_tenant("default")
print(database.read("SELECT count(*) AS n FROM sources")[0]["n"], flush=True)
sys.stdin.read()
print(database.read("SELECT count(*) AS n FROM sources")[0]["n"], flush=True)
"""


@pytest.fixture
def home(short_folder: Path) -> Iterator[Path]:
    """A home folder of its own, with nothing in it."""
    folder = short_folder / os.urandom(4).hex()
    yield folder
    for process in _servers_of(folder):
        process.kill()


def start_user(home: Path) -> subprocess.Popen[str]:
    """A process that uses the server until its standard input is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", USER_OF_THE_SERVER, str(home)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_sixteen_at_once_and_one_is_killed(home: Path) -> None:
    users = [start_user(home) for _ in range(16)]
    assert [read_line(user) for user in users] == ["0"] * 16
    users[0].send_signal(signal.SIGKILL)
    users[0].wait()

    for user in users[1:-1]:
        assert finish(user) == "0"
    assert _servers_of(home), "the server must run as long as one process uses it"
    assert finish(users[-1]) == "0"
    assert not _servers_of(home), "the last one stops the server"


def test_start_after_the_only_user_was_killed(home: Path) -> None:
    user = start_user(home)
    assert read_line(user) == "0"
    user.kill()
    user.wait()

    user = start_user(home)
    assert read_line(user) == "0"
    assert finish(user) == "0"
    assert not _servers_of(home)


def test_start_after_everything_was_killed(home: Path) -> None:
    user = start_user(home)
    assert read_line(user) == "0"
    for process in [user, *_servers_of(home)]:
        process.kill()
    user.wait()

    user = start_user(home)
    assert read_line(user) == "0"
    assert finish(user) == "0"


def test_killed_while_it_makes_the_database(home: Path) -> None:
    for delay in (0.3, 0.6, 0.9):
        user = start_user(home)
        time.sleep(delay)
        user.kill()
        user.wait()
    user = start_user(home)
    assert read_line(user) == "0"
    assert finish(user) == "0"


def test_killed_between_steps_of_the_first_start(home: Path) -> None:
    """What a kill can leave: a server without the database, a schema without the role's login."""
    server = EmbeddedServer(home)
    server.start()
    with psycopg.connect(server.conninfo(owner=True), autocommit=True) as connection:
        connection.execute("ALTER ROLE synapse_app NOLOGIN")
    server.start()
    psycopg.connect(server.conninfo()).close()

    with psycopg.connect(server.conninfo(owner=True, dbname="postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE synapse")
    server.start()
    psycopg.connect(server.conninfo()).close()
    assert server.stop()


def test_a_user_brings_a_dead_server_back(home: Path) -> None:
    user = start_user(home)
    assert read_line(user) == "0"
    for process in _servers_of(home):
        process.kill()
    assert finish(user) == "0"


def test_pid_file_of_a_stranger(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    content = (server.data / "postmaster.pid").read_text().split("\n")
    server.stop()
    content[0] = str(os.getpid())
    (server.data / "postmaster.pid").write_text("\n".join(content))

    assert server.start()
    assert server.stop()


def test_permissions_of_existing_folders_are_left_alone(home: Path) -> None:
    home.mkdir(mode=0o755)
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedServer(closed / "home")
    server.start()
    server.stop()
    if not server.data.is_relative_to(home):  # as root, where the server's own user cannot enter the folder
        shutil.rmtree(server.data.parent)
    assert closed.stat().st_mode & 0o777 == 0o700
    assert home.stat().st_mode & 0o777 == 0o755


def test_a_path_too_long_for_a_socket(home: Path) -> None:
    server = EmbeddedServer(home / ("long" * 25))
    server.start()
    assert server.stop()


def test_home_that_is_a_file(home: Path) -> None:
    home.write_text("not a folder")
    with pytest.raises(ConfigurationError, match="needs to write to"):
        EmbeddedServer(home).start()


def read_line(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def finish(user: subprocess.Popen[str]) -> str:
    output, _ = user.communicate(timeout=60)
    assert user.returncode == 0
    return output.strip()


def _servers_of(home: Path) -> list[psutil.Process]:
    """Living postmasters whose data lies below the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "-D" in command and command[command.index("-D") + 1].startswith(str(home)):
            found.append(process)
    return found
