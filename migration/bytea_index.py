"""The index over the new column: built while the table is written, and built anew where a build was killed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg.sql import SQL, Composed, Identifier

from database.errors import GuardError, InvalidInputError
from database.index_build import graph_bytes, machine_memory
from migration.bytea_table import STATEMENTS, ByteaTable
from migration.progress import OnProgress, Progress
from migration.source import Distance

if TYPE_CHECKING:
    from psycopg import Connection

Method = Literal["hnsw", "ivfflat"]

LIMITS = {"vector": 2000, "halfvec": 4000}
"""Dimensions that pgvector's indexes take."""

OPERATORS = {"cosine": ("<=>", "cosine_ops"), "l2": ("<->", "l2_ops"), "ip": ("<#>", "ip_ops")}
"""By distance: the operator, and the second half of the name of its class."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """
    What index is wanted.

    :param method: `hnsw` or `ivfflat`.
    :param distance: What it is searched by.
    :param halfvec: Whether it holds the numbers in 16 bits; the column keeps all 32.
    :param m: Connections per element of an HNSW graph, 2 to 100.
    :param ef_construction: Candidates while it is built, at least 2 m.
    :param lists: Clusters of an IVFFlat index; `None` takes rows / 1000, and above a million rows their square root.
    :param name: By default made of table, column and method.
    """

    method: Method = "hnsw"
    distance: Distance = "cosine"
    halfvec: bool = False
    m: int = 16
    ef_construction: int = 64
    lists: int | None = None
    name: str | None = None

    @property
    def vector_type(self) -> str:
        """The type of what is compared."""
        return "halfvec" if self.halfvec else "vector"

    @property
    def operator(self) -> str:
        """The operator that searches order by."""
        return OPERATORS[self.distance][0]

    def name_for(self, table: ByteaTable) -> str:
        """The index's name."""
        return self.name or table.made(self.method)

    def expression(
        self, table: ByteaTable, dimension: int, *, quote: Callable[..., Identifier] = Identifier
    ) -> Composed:
        """
        What is indexed, and what searches must order by.

        :param quote: As for `ByteaTable.names`.
        """
        column = quote(table.target)
        if not self.halfvec:
            return SQL("{}").format(column)
        return SQL("({}::{}.halfvec({}))").format(column, quote(table.vector_schema), SQL(str(dimension)))

    def check(self, dimension: int) -> None:
        """
        See whether pgvector can build it.

        :raises InvalidInputError: If it cannot.
        """
        if dimension > LIMITS[self.vector_type]:
            fits = dimension <= LIMITS["halfvec"]
            raise InvalidInputError(
                f"An index over {self.vector_type} takes at most {LIMITS[self.vector_type]:,} dimensions, but the bytes hold "
                f"{dimension:,}.",
                hint="Give --halfvec to index 16 bits of each number, the column keeping all 32, or --index none."
                if fits
                else "Give --index none.",
            )
        if not 2 <= self.m <= 100 or not max(4, 2 * self.m) <= self.ef_construction <= 1000:
            raise InvalidInputError(
                "m must be between 2 and 100 and ef_construction between 2 m and 1,000, "
                f"but are {self.m} and {self.ef_construction}."
            )

    def storage(self, rows: int) -> str:
        """Its storage parameters."""
        if self.method == "hnsw":
            return f"m = {self.m}, ef_construction = {self.ef_construction}"
        return f"lists = {self._lists(rows)}"

    def effort(self, rows: int) -> tuple[str, int]:
        """The setting of a search and a value for it: 200 candidates, or as many clusters as the square root of all."""
        if self.method == "hnsw":
            return "hnsw.ef_search", 200
        lists = self._lists(rows)
        return "ivfflat.probes", min(lists, max(10, math.isqrt(lists)))

    def _lists(self, rows: int) -> int:
        return self.lists or max(1, rows // 1000 if rows <= 1_000_000 else math.isqrt(rows))


def wanted_definition(index: Index) -> str:
    """What is asked for, to tell whether a later run asks for the same."""
    size = f"m={index.m},ef_construction={index.ef_construction}" if index.method == "hnsw" else f"lists={index.lists}"
    return f"{index.method}({size}) {index.vector_type}_{OPERATORS[index.distance][1]}"


def build(
    connection: Connection[Any],
    watcher: Connection[Any],
    table: ByteaTable,
    index: Index,
    *,
    dimension: int,
    rows: int,
    known: str | None,
    memory: int | None,
    on_progress: OnProgress,
) -> float:
    """
    Build the index, unless it is there and whole.

    :param connection: In autocommit mode.
    :param watcher: Another, to see how far the build is.
    :param rows: Rows of the table.
    :param known: What a run before this one had asked for.
    :param memory: Bytes for the build; by default what it needs and has on this machine's own server, else the server's setting.
    :returns: Seconds that it took; 0 if it was there.
    :raises GuardError: If another index has its name, or a run before had asked for another.
    """
    name = Identifier(table.schema, index.name_for(table))
    state = {"index": name.as_string(), "table": table.oid, "column": table.target}
    found = connection.execute(STATEMENTS["index_state"], state).fetchone()
    while found and found["building"]:
        on_progress(Progress(step=f"waiting for process {found['building']} that builds {name.as_string()}"))
        time.sleep(_POLL_SECONDS)
        found = connection.execute(STATEMENTS["index_state"], state).fetchone()
    if found and not found["ours"]:
        raise GuardError(
            f"The index was to be named {name.as_string()}, but another has that name: {found['definition']}.",
            hint="Give another with --index-name.",
        )
    asked = wanted_definition(index)
    if found and found["valid"]:
        if known not in (None, asked):
            raise GuardError(
                f"The index {name.as_string()} was asked to be {asked}, but was built as {known}.",
                hint=f"DROP INDEX CONCURRENTLY {name.as_string()}, then run it again.",
            )
        return 0.0
    if found:
        connection.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))
    _give_resources(connection, index, rows=rows, dimension=dimension, memory=memory)
    named = {"name": table.name, "target_name": table.target, "definition": asked}
    connection.execute(table.compose("note_index"), named)
    operators = f"{index.vector_type}_{OPERATORS[index.distance][1]}"
    statement = table.compose(
        "create_index",
        index_name=Identifier(index.name_for(table)),
        method=SQL(index.method),
        expression=index.expression(table, dimension),
        operators=Identifier(operators),
        storage=SQL(index.storage(rows)),
    )
    started = time.monotonic()
    _watched(connection, watcher, statement, step=f"building {index.name_for(table)}", on_progress=on_progress)
    return time.monotonic() - started


def index_is_valid(connection: Connection[Any], table: ByteaTable, index: Index) -> bool:
    """Whether the index is there and whole."""
    name = Identifier(table.schema, index.name_for(table)).as_string()
    found = connection.execute(
        STATEMENTS["index_state"], {"index": name, "table": table.oid, "column": table.target}
    ).fetchone()
    return bool(found and found["valid"])


def _give_resources(
    connection: Connection[Any], index: Index, *, rows: int, dimension: int, memory: int | None
) -> None:
    """On this machine's own server the memory that the graph needs, up to half of what is free, and all cores but one."""
    if memory is None and (connection.info.host or "").startswith("/") and index.method == "hnsw":
        needed = graph_bytes(rows=rows, dimension=dimension, vector_type=index.vector_type, definition=f"m={index.m}")
        memory = max(min(needed, machine_memory() // 2), 64 * 2**20)
        workers = str(max((os.cpu_count() or 1) - 1, 1))
        connection.execute("SELECT set_config('max_parallel_maintenance_workers', %s, false)", [workers])
    if memory is not None:
        connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", [f"{memory // 1024}kB"])


def _watched(
    connection: Connection[Any], watcher: Connection[Any], statement: Composed, *, step: str, on_progress: OnProgress
) -> None:
    """Run a statement, saying how far it is; an interruption cancels it."""
    work: Callable[[], object] = lambda: connection.execute(statement)  # noqa: E731
    with ThreadPoolExecutor(1) as thread:
        building = thread.submit(work)
        try:
            while not wait([building], timeout=_POLL_SECONDS).done:
                for row in watcher.execute(STATEMENTS["build_progress"], {"pid": connection.info.backend_pid}):
                    on_progress(Progress(step=f"{step}: {row['phase']}", done=row["done"], total=row["total"] or None))
        except BaseException:
            if not building.done():
                connection.cancel_safe(timeout=10)
            raise
    building.result()
