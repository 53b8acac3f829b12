"""
The server's settings that matter here.

`random_page_cost` and `jit` are not among them: each search brings its own in its transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from psycopg.sql import SQL, Identifier

from database.connection import POOL_SIZE
from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient, Table
from database.index_build import SPARE, graph_bytes
from database.sql import statements

SUBJECT = "settings"
NEEDS_SCHEMA = True
MANY = 0.9
"""Share of the connections that are in use from which on something is said."""

FSYNC_OFF = Kind(
    code="fsync_off",
    subject=SUBJECT,
    severity="fault",
    means="`fsync` is off.",
    why="After a crash of the machine the data may be damaged beyond repair, all of it.",
    mended="`ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()`",
)
FULL_PAGE_WRITES_OFF = Kind(
    code="full_page_writes_off",
    subject=SUBJECT,
    severity="fault",
    means="`full_page_writes` is off.",
    why="A page that a crash left half-written stays so: the data is damaged.",
    mended="`ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()`",
)
AUTOVACUUM_OFF = Kind(
    code="autovacuum_off",
    subject=SUBJECT,
    severity="warning",
    means="`autovacuum` or `track_counts` is off.",
    why="Dead rows stay in tables and indexes, and the planner does not learn what has changed.",
    mended="`ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()`",
)
MAINTENANCE_MEMORY_SMALL = Kind(
    code="maintenance_memory_small",
    subject=SUBJECT,
    severity="advice",
    means="`maintenance_work_mem` is less than the graph of the largest table's index takes.",
    why="An index build that outgrows it goes on on disk, several times slower.",
    mended="`ALTER SYSTEM SET maintenance_work_mem = …`; `python synapse.py database tune` weighs it against the machine.",
)
PARALLEL_MAINTENANCE_OFF = Kind(
    code="parallel_maintenance_off",
    subject=SUBJECT,
    severity="advice",
    means="`max_parallel_maintenance_workers` is 0.",
    why="One core builds each index, whatever the machine has.",
    mended="`ALTER SYSTEM SET max_parallel_maintenance_workers = 2; SELECT pg_reload_conf()`, or more.",
)
WORK_MEMORY_SMALL = Kind(
    code="work_memory_small",
    subject=SUBJECT,
    severity="advice",
    means="`work_mem` is less than 1 MB.",
    why="Searches sort and join their candidates on disk.",
    mended="`ALTER SYSTEM SET work_mem = '4MB'; SELECT pg_reload_conf()`",
)
CONNECTIONS_FEW = Kind(
    code="connections_few",
    subject=SUBJECT,
    severity="warning",
    means=f"The server, the database or the role allows fewer connections than one process's pool takes, {POOL_SIZE}.",
    why='Under load, requests fail with "too many connections".',
    mended="`max_connections`, or the limit of the database or the role, raised; or a pooler in transaction mode.",
)
CONNECTIONS_NEARLY_USED = Kind(
    code="connections_nearly_used",
    subject=SUBJECT,
    severity="warning",
    means="More than nine tenths of the server's connections are in use.",
    why='Soon requests fail with "too many connections".',
    mended="Fewer processes; `max_connections` raised; or a pooler in transaction mode.",
)
SHARED_MEMORY_SMALL = Kind(
    code="shared_memory_small",
    subject=SUBJECT,
    severity="warning",
    means="/dev/shm is smaller than the graph of the largest table's index.",
    why='Workers of a parallel build share the graph there: the build fails with "could not resize shared memory segment".',
    mended="`shm_size` of the container, as docker-compose.yml has it.",
)
KINDS = (
    FSYNC_OFF,
    FULL_PAGE_WRITES_OFF,
    AUTOVACUUM_OFF,
    MAINTENANCE_MEMORY_SMALL,
    PARALLEL_MAINTENANCE_OFF,
    WORK_MEMORY_SMALL,
    CONNECTIONS_FEW,
    CONNECTIONS_NEARLY_USED,
    SHARED_MEMORY_SMALL,
)

_SQL = statements(Path(__file__).with_suffix(".sql"))
_ON = (
    (FSYNC_OFF, "fsync"),
    (FULL_PAGE_WRITES_OFF, "full_page_writes"),
    (AUTOVACUUM_OFF, "autovacuum"),
    (AUTOVACUUM_OFF, "track_counts"),
)
_SHOWN = ("shared_buffers", "maintenance_work_mem")


def look_at_safety(patient: Patient) -> Iterator[Finding]:
    """What must be on."""
    for kind, name in _ON:
        row = patient.settings.get(name)
        if row is not None and row["setting"] == "off":
            yield patient.mending(kind, f"{name} is off.", setting=name, value="on")
    if hidden := [name for name in (*(name for _, name in _ON), *_SHOWN) if name not in patient.settings]:
        yield unknown(SUBJECT, f"{', '.join(hidden)} are not shown")
    else:
        yield right(SUBJECT, ", ".join(f"{name} {patient.settings[name]['shown']}" for name in _SHOWN))


def look_at_memory(patient: Patient) -> Iterator[Finding]:
    """
    What an index build of the largest table takes, and what searches sort in.

    On this machine's own server, builds bring the memory that they need, up to half of what is free.
    """
    largest = max(patient.present_tables, key=needed_memory, default=None)
    needed = needed_memory(largest) if largest else 0
    allowed, workers = patient.setting("maintenance_work_mem"), patient.setting("max_parallel_maintenance_workers")
    brought = (patient.machine.memory or 0) // 2
    if largest and allowed is not None and needed > max(allowed, brought):
        size = f"{-(-needed // 2**20)}MB"
        yield patient.mending(
            MAINTENANCE_MEMORY_SMALL,
            f"An index of {largest.shown}, about {largest.rows:,} documents, is built in {size}, and maintenance_work_mem is "
            f"{patient.settings['maintenance_work_mem']['shown']}.",
            setting="maintenance_work_mem",
            value=size,
        )
    if workers == 0:
        name = "max_parallel_maintenance_workers"
        yield patient.mending(PARALLEL_MAINTENANCE_OFF, f"{name} is 0.", setting=name, value="2")
    sorting = patient.setting("work_mem")
    if sorting is not None and sorting < 2**20:
        what = f"work_mem is {patient.settings['work_mem']['shown']}."
        yield patient.mending(WORK_MEMORY_SMALL, what, setting="work_mem", value="4MB")
    shared = patient.machine.shared_memory
    if largest and shared is not None and workers and needed > shared:
        yield SHARED_MEMORY_SMALL.text(
            f"An index of {largest.shown} is built in {needed // 2**20} MB, and /dev/shm holds {shared // 2**20} MB.",
            f"Give the container shm_size: {-(-needed // 2**30)}gb, or build with max_parallel_maintenance_workers = 0.",
        )


def look_at_connections(patient: Patient) -> Iterator[Finding]:
    """How many there may be, and how many there are."""
    row = patient.ask(_SQL["connections"])[0]
    limits = (
        (row["server"], "the server", "ALTER SYSTEM SET max_connections = 100, and a restart of the server"),
        (
            row["database"],
            f"database {row['name']}",
            SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(Identifier(row["name"])).as_string(),
        ),
        (
            row["role"],
            f"role {row['me']}",
            SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(Identifier(row["me"])).as_string(),
        ),
    )
    for limit, whose, cure in limits:
        if limit < POOL_SIZE:
            what = f"{whose} allows {limit} connections, and one process takes up to {POOL_SIZE}."
            what = what[:1].upper() + what[1:]
            yield CONNECTIONS_FEW.text(what, f"{cure}.") if whose == "the server" else CONNECTIONS_FEW.sql(what, cure)
    if row["used"] > MANY * row["server"] and row["server"] >= POOL_SIZE:
        yield CONNECTIONS_NEARLY_USED.text(
            f"{row['used']} of {row['server']} connections are in use.",
            "Look in pg_stat_activity for whose they are; raise max_connections, or put a pooler before the server.",
        )


def needed_memory(table: Table) -> int:
    """Bytes that an HNSW graph of a table takes while it is built; nothing is spared for it, as little is known."""
    count = graph_bytes(
        rows=table.rows,
        dimension=table.column_dimension or table.dimension,
        vector_type=table.vector_type,
        definition="WITH (m='8')",
    )
    return count - SPARE


CHECKS = (look_at_safety, look_at_memory, look_at_connections)
