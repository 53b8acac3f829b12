"""What vacuum and analyze have done, and who keeps them from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from psycopg.sql import SQL, Literal

from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient
from database.sql import statements

SUBJECT = "maintenance"
NEEDS_SCHEMA = True

DEAD_ROWS = Kind(
    code="dead_rows",
    subject=SUBJECT,
    severity="warning",
    means="A third of a table's rows or more are dead: deleted or overwritten, and not cleared away.",
    why="Searches walk over them, also in the HNSW index, and the table grows.",
    mended="`VACUUM (ANALYZE) …`",
)
STATISTICS_MISSING = Kind(
    code="statistics_missing",
    subject=SUBJECT,
    severity="advice",
    means="A documents table was never analysed, or most of it changed since.",
    why="The planner chooses by what it knows: how large the table is, and which values are common.",
    mended="`ANALYZE …`",
)
TABLE_AUTOVACUUM_OFF = Kind(
    code="table_autovacuum_off",
    subject=SUBJECT,
    severity="advice",
    means="Autovacuum is turned off for a table of ours.",
    why="Nobody clears away dead rows, or tells the planner what has changed.",
    mended="`ALTER TABLE … RESET (autovacuum_enabled)`",
)
IDLE_TRANSACTION = Kind(
    code="idle_transaction",
    subject=SUBJECT,
    severity="warning",
    means="A session has begun a transaction and idles in it for more than 5 minutes.",
    why="As long as it is open, no row that it might see is cleared away, in any table, and its locks are held.",
    mended="`SELECT pg_terminate_backend(…)`, and idle_in_transaction_session_timeout for the role.",
)
LONG_TRANSACTION = Kind(
    code="long_transaction",
    subject=SUBJECT,
    severity="advice",
    means="A transaction runs for more than an hour.",
    why="As long as it runs, no row that it might see is cleared away, in any table.",
    mended="Its end; or `SELECT pg_cancel_backend(…)`.",
)
TRANSACTION_AGE = Kind(
    code="transaction_age",
    subject=SUBJECT,
    severity="fault",
    means="The database's oldest transactions are about to run out: more than a billion since the last freeze.",
    why="At about 2 billion PostgreSQL refuses every write.",
    mended="What holds it back ended (long transactions, replication slots), then `VACUUM (FREEZE)`.",
)
SLOT_HOLDS_WAL = Kind(
    code="slot_holds_wal",
    subject=SUBJECT,
    severity="warning",
    means="A replication slot that nobody reads holds back more than 1 GB of write-ahead log.",
    why="The log grows until the disk is full, and then the server stops.",
    mended="The standby started again; or, if it is gone for good, `SELECT pg_drop_replication_slot(…)`.",
)
KINDS = (
    DEAD_ROWS,
    STATISTICS_MISSING,
    TABLE_AUTOVACUUM_OFF,
    IDLE_TRANSACTION,
    LONG_TRANSACTION,
    TRANSACTION_AGE,
    SLOT_HOLDS_WAL,
)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_tables(patient: Patient) -> Iterator[Finding]:
    """Dead rows and statistics of our tables, those of all tenants."""
    names = sorted({table.name for table in patient.tables})
    for row in patient.ask(_SQL["tables"], {"names": names}, as_owner=True):
        if row["off"]:
            yield TABLE_AUTOVACUUM_OFF.sql(
                f"{row['name']} has autovacuum_enabled = false.",
                f"ALTER TABLE {row['name']} RESET (autovacuum_enabled)",
                fixable=True,
            )
        if row["dead"] >= 1000 and row["dead"] * 2 >= row["live"]:
            yield DEAD_ROWS.sql(
                f"{row['name']} has {row['dead']:,} dead rows beside {row['live']:,}; {_last('vacuumed', row['vacuumed'])}.",
                f"VACUUM (ANALYZE) {row['name']}",
                fixable=True,
            )
        elif row["documents"] and row["changed"] >= max(2000, row["live"] // 2):
            yield STATISTICS_MISSING.sql(
                f"{row['changed']:,} rows of {row['name']} changed since it was {_last('analysed', row['analysed'])}.",
                f"ANALYZE {row['name']}",
                fixable=True,
            )
    yield right(SUBJECT, "no table has many dead rows")


def look_at_sessions(patient: Patient) -> Iterator[Finding]:
    """Transactions that are open for long. Others' sessions are shown to some roles alone."""
    limits = patient.limits
    for row in patient.ask(
        _SQL["sessions"], {"idle": limits.idle_transaction, "long": limits.long_transaction}, as_owner=True
    ):
        who = f"Session {row['pid']} of {row['role']} ({row['application'] or 'no name'})"
        if row["idle"]:
            yield IDLE_TRANSACTION.sql(
                f"{who} idles in a transaction for {row['seconds']:,.0f} s.",
                f"SELECT pg_terminate_backend({row['pid']})",
            )
        else:
            yield LONG_TRANSACTION.sql(
                f"{who} has a transaction that runs for {row['seconds']:,.0f} s.",
                f"SELECT pg_cancel_backend({row['pid']})",
            )
    if not patient.is_superuser():
        yield unknown(SUBJECT, "sessions of other roles are not shown to this one")


def look_at_age(patient: Patient) -> Iterator[Finding]:
    """How many transactions the oldest row's is ago, and what replication slots hold back."""
    row = patient.ask(_SQL["age"])[0]
    if row["age"] > patient.limits.transaction_age:
        yield TRANSACTION_AGE.sql(
            f"The oldest transaction of database {row['name']} is {row['age']:,} ago.", "VACUUM (FREEZE)"
        )
    for slot in patient.ask(_SQL["slots"], {"most": patient.limits.slot_bytes}, as_owner=True):
        held = f"holds back {slot['bytes'] / 2**20:,.0f} MB" if slot["bytes"] is not None else "has lost what it needs"
        yield SLOT_HOLDS_WAL.sql(
            f"Replication slot {slot['name']}, which nobody reads, {held}.",
            SQL("SELECT pg_drop_replication_slot({})").format(Literal(slot["name"])).as_string(),
        )


def _last(verb: str, moment: object) -> str:
    return f"last {verb} {moment:%Y-%m-%d %H:%M}" if moment else f"never {verb}"  # type: ignore[str-bytes-safe]


CHECKS = (look_at_tables, look_at_sessions, look_at_age)
