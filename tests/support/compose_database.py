"""docker-compose.yml's database on this machine's PostgreSQL, started as Docker and its image's entrypoint do it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from database.embedded import OWNER
from tests.tcp_server import TcpServer, package_psql

INIT = "/docker-entrypoint-initdb.d/"


class ComposeDatabase(TcpServer):
    """
    A service that runs PostgreSQL's image.

    :param home: Its folder; any user must be able to enter it.
    :param project: Folder of docker-compose.yml; what the service mounts is there.
    :param service: The service, interpolated.
    """

    def __init__(self, home: Path, *, project: Path, service: Mapping[str, Any]) -> None:
        super().__init__(home)
        self._project, self._service = project, service
        (published,) = service["ports"]
        self.port = int(published.split(":")[1])
        self._settings |= dict(argument.removeprefix("--").split("=", 1) for argument in service["command"][1:])
        self._settings |= {"port": str(self.port), "fsync": "on"}

    def up(self) -> list[str]:
        """
        The first start: a server on its socket alone, what is mounted for it, then a server that listens; healthy, or else.

        :returns: What the scripts and the last health check said.
        """
        self._settings["listen_addresses"] = ""
        self.start()
        variables = self._service["environment"]
        with psycopg.connect(self.conninfo(owner=True, dbname="postgres"), autocommit=True) as connection:
            connection.execute(SQL("ALTER ROLE postgres PASSWORD {}").format(variables["POSTGRES_PASSWORD"]))
            connection.execute(SQL("DROP DATABASE {}").format(Identifier(variables["POSTGRES_DB"])))
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(variables["POSTGRES_DB"])))
        assert self.health().returncode != 0, "the server of the first start counts as healthy"
        said = [self._run_script(path) for path in self._mounted(INIT)]
        self.stop()

        self._settings["listen_addresses"] = self.host
        super(TcpServer, self).start()
        check = self._service["healthcheck"]
        for _ in range(check["retries"]):
            if (done := self.health()).returncode == 0:
                return [*said, done.stdout]
            time.sleep(float(check["interval"].removesuffix("s")))
        raise AssertionError(f"unhealthy: {done.stderr}")

    def health(self) -> subprocess.CompletedProcess[str]:
        """The health check, once."""
        _, program = self._service["healthcheck"]["test"]
        (script,) = self._mounted(program)
        return subprocess.run(
            [script, OWNER, str(self.port)], env=self._environment(), capture_output=True, text=True, check=False
        )

    def _mounted(self, place: str) -> list[Path]:
        """What is mounted at a place or in a folder, in the order of the names there."""
        volumes = sorted(volume.split(":")[1::-1] for volume in self._service["volumes"])
        return [self._project / source for target, source in volumes if target.startswith(place)]

    def _run_script(self, path: Path) -> str:
        dbname = self._service["environment"]["POSTGRES_DB"]
        if path.suffix == ".sql":
            conninfo = make_conninfo(self.conninfo(owner=True), dbname=dbname)
            command: list[Path | str] = [
                package_psql(),
                "-v",
                "ON_ERROR_STOP=1",
                "--no-psqlrc",
                "-d",
                conninfo,
                "-f",
                path,
            ]
        else:
            command = [path]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _environment(self) -> dict[str, str]:
        variables = self._service["environment"]
        return variables | self.socket_environment(variables["POSTGRES_DB"])
