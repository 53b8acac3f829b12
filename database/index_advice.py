"""What a machine should give an index build, and which kind of index its memory holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from database.errors import DatabaseError
from database.index_build import SPARE, graph_bytes, is_local, machine_memory
from database.index_definition import M
from database.reindex import search_index
from database.sql import statements

if TYPE_CHECKING:
    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))

RELOADABLE = ("maintenance_work_mem", "max_parallel_maintenance_workers")
"""What holds from the next connection on; the rest needs a restart."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """
    What is advised for a table's index; sizes in bytes.

    :param kind: The index that is there, for people.
    :param index_bytes: Of it.
    :param half_bytes: What one in half precision would take, about.
    :param build_memory: That the graph takes while it is built, for the largest partition.
    :param local: Whether the server's machine is this one; what is said of the machine holds only then.
    :param machine_memory: That the machine can still give.
    :param advised_kind: `full`, `half` or `ivfflat`.
    :param reason: Why.
    :param settings: For the server, by name.
    :param statements: That set them.
    :param docker: The same for a container.
    """

    table: str
    rows: int
    dimension: int
    vector_type: str
    kind: str
    index_bytes: int
    half_bytes: int
    build_memory: int
    local: bool
    machine_memory: int
    cores: int
    shared_buffers: int
    advised_kind: str
    reason: str
    settings: dict[str, str]
    statements: list[str]
    docker: str


def advise(owner: Database, table_name: str) -> Advice:
    """
    Look at a table, its index and the machine.

    :param owner: The database, connected as the owner of the table, as the tenant whose table it is.
    :raises SchemaError: If there is no such table.
    """
    with owner.unpooled() as connection:
        facts, index, parts = search_index(connection, table_name)
        table = Identifier(facts["schema"], facts["name"])
        rows = (connection.execute(SQL(_SQL["rows"]).format(table=table)).fetchone() or {})["rows"]
        server = connection.execute(_SQL["server_facts"]).fetchone() or {}
        local = is_local(connection)
    dimension, vector_type = facts["dimension"], facts["vector_type"]
    full, half = (index_bytes(rows, dimension=dimension, vector_type=kind) for kind in (vector_type, "halfvec"))
    needed = graph_bytes(
        rows=rows // max(parts, 1), dimension=dimension, vector_type=vector_type, definition=f"m = {M}"
    )
    memory = machine_memory() if local else 0
    size = index.size if index else 0
    kind, reason = _kind(full, half, buffers=server["shared_buffers"], memory=memory, vector_type=vector_type)
    settings = _settings(server, needed=needed, memory=memory, local=local)
    return Advice(
        table=table_name,
        rows=rows,
        dimension=dimension,
        vector_type=vector_type,
        kind="none" if index is None else f"{index.method}{' in half precision' if index.cast else ''}",
        index_bytes=size,
        half_bytes=half,
        build_memory=needed,
        local=local,
        machine_memory=memory,
        cores=os.cpu_count() or 1,
        shared_buffers=server["shared_buffers"],
        advised_kind=kind,
        reason=reason,
        settings=settings,
        statements=[
            *(f"ALTER SYSTEM SET {name} = '{value}';" for name, value in settings.items()),
            "SELECT pg_reload_conf();",
        ],
        docker=_docker(settings, needed),
    )


def index_bytes(rows: int, *, dimension: int, vector_type: str, m: int = M) -> int:
    """
    What an HNSW index takes on the disk, about.

    Of an element, the vector with 90 bytes about it, and 6 bytes for each of 2 m connections on the lowest layer and m on the
    layers above. Elements do not cross pages of 8 kB.
    """
    element = dimension * (4 if vector_type == "vector" else 2) + 90 + 6 * (2 * m + 2)
    on_a_page = max((8192 - 40) // element, 1)
    return -(-rows // on_a_page) * 8192 + 8192


def apply_settings(owner: Database, settings: Mapping[str, str]) -> list[str]:
    """
    Set what needs no restart, for this database: it outdoes the server's own files and command line.

    :returns: The statements that were run.
    :raises DatabaseError: If the owner of the schema does not own the database.
    """
    done = []
    with owner.unpooled() as connection:
        for name in RELOADABLE:
            statement = SQL("ALTER DATABASE {} SET {} = {}").format(
                Identifier(connection.info.dbname), Identifier(name), Literal(settings[name])
            )
            try:
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege as exc:
                raise DatabaseError(
                    f"The owner of {owner.name} was expected, who may set {name} for it, but this role is not.",
                    hint="Run the statements that `database tune` prints as the owner or a superuser.",
                ) from exc
            done.append(statement.as_string(connection))
    return done


def _kind(full: int, half: int, *, buffers: int, memory: int, vector_type: str) -> tuple[str, str]:
    """Searches read an index at random: one that does not stay in memory is read from the disk."""
    if vector_type == "halfvec":
        return "full", "the embeddings are in half precision already"
    room = max(buffers, memory // 2)
    if full <= room:
        return "full", "it fits into memory as it is"
    if half <= room:
        return "half", "in half precision it fits into memory, and loses nothing that the order again would not mend"
    return (
        "ivfflat",
        "not even half precision fits into memory: IVFFlat reads its lists in a row; partitions or more memory help",
    )


def _settings(server: Mapping[str, int], *, needed: int, memory: int, local: bool) -> dict[str, str]:
    """What the server has already is never made less."""
    granted = min(needed, max(memory // 2, SPARE)) if local else needed
    workers = max((os.cpu_count() or 1) - 1, 1) if local else 0
    return {
        "maintenance_work_mem": f"{max(granted, server['maintenance_work_mem']) >> 20}MB",
        "max_parallel_maintenance_workers": str(max(workers, server["maintenance_workers"])),
    }


def _docker(settings: Mapping[str, str], needed: int) -> str:
    """Workers share the graph in /dev/shm, of which a container has 64 MB unless told otherwise."""
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return f"docker run --shm-size={max((needed + 2 * SPARE) >> 20, 256)}m pgvector/pgvector:pg18 {options}"
