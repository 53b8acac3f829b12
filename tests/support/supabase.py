"""A server with Supabase's roles and databases as Supabase makes them, and requests as its API sends them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from tests.tcp_server import TcpServer

FOLDER = Path(__file__).parent
OWNER, OWNER_PASSWORD = "supabase_postgres", "owner's pa$$word"
AUTHENTICATOR_PASSWORD = "authenticator"

TYPES = {
    "query_embedding": "vector",
    "query_text": "text",
    "match_count": "integer",
    "match_threshold": "double precision",
    "filter": "jsonb",
    "full_text_weight": "double precision",
    "semantic_weight": "double precision",
    "rrf_k": "integer",
}


def start(home: Path) -> TcpServer:
    """Start a server with Supabase's roles."""
    server = TcpServer(home)
    server.start()
    with psycopg.connect(server.tcp(), autocommit=True) as connection:
        connection.execute((FOLDER / "supabase_roles.sql").read_bytes())
        for role, password in ((OWNER, OWNER_PASSWORD), ("authenticator", AUTHENTICATOR_PASSWORD)):
            connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), Literal(password)))
    return server


def create_project(server: TcpServer) -> str:
    """
    Make a database as Supabase does.

    :returns: Its name.
    """
    name = f"project_{os.urandom(4).hex()}"
    with psycopg.connect(server.tcp(), autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        connection.execute(SQL("GRANT ALL ON DATABASE {} TO {}").format(Identifier(name), Identifier(OWNER)))
    with psycopg.connect(server.tcp(dbname=name), autocommit=True) as connection:
        connection.execute((FOLDER / "supabase_database.sql").read_bytes())
    return name


def owner_conninfo(server: TcpServer, name: str) -> str:
    """The connection string that Supabase shows for a project."""
    return server.tcp(user=OWNER, password=OWNER_PASSWORD, dbname=name)


class Api:
    """
    Requests of a user as PostgREST sends them: as `authenticator`, who takes the role of the request's token.

    :param role: Role of the token.
    :param user: Its user.
    """

    def __init__(self, server: TcpServer, name: str, *, role: str, user: UUID | None = None) -> None:
        self.conninfo = server.tcp(user="authenticator", password=AUTHENTICATOR_PASSWORD, dbname=name)
        self.claims = json.dumps({"role": role} | ({"sub": str(user)} if user else {}))
        self.role = role

    @contextmanager
    def request(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """The transaction of one request."""
        with psycopg.connect(self.conninfo, row_factory=dict_row) as connection:
            connection.execute(
                "SELECT set_config('search_path', '\"public\", \"extensions\"', true), set_config('role', %s, true),"
                " set_config('request.jwt.claims', %s, true)",
                (self.role, self.claims),
            )
            yield connection

    def call(self, function: str, parameters: dict[str, Any]) -> tuple[Composed, tuple[str]]:
        """A call with the parameters of a request's body, each cast from JSON to its type, as statement and value."""
        arguments = SQL(", ").join(SQL("{0} := body.{0}").format(Identifier(name)) for name in parameters)
        types = SQL(", ").join(SQL("{} {}").format(Identifier(name), SQL(TYPES[name])) for name in parameters)
        statement = SQL("SELECT called.* FROM json_to_record(%s::json) AS body ({}), {}({}) AS called").format(
            types, Identifier(function), arguments
        )
        return statement, (json.dumps(parameters),)

    def rpc(self, function: str, **parameters: Any) -> list[dict[str, Any]]:
        """What a call returns."""
        with self.request() as connection:
            return connection.execute(*self.call(function, parameters)).fetchall()
