"""
What a migration of bytea vectors makes beside the user's data, and takes away again.

Statements that need a lock on the table which stops its readers or writers wait for it for 50 ms at most, as everybody else
waits behind them meanwhile; then they let go and try again. Each is one message with its transaction in it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from database.errors import GuardError
from migration.bytea_table import STATE, STATEMENTS, ByteaTable, holder_text
from migration.bytea_values import Packing

if TYPE_CHECKING:
    from psycopg import Connection

LOCK_TIMEOUT_MS = 50
PATIENCE = 600.0
"""Seconds until a lock that never comes free is given up."""

RUN_PATIENCE = 5.0
"""Seconds until another run on the same table is taken to be alive."""

_LOCK_CLASS = 1_398_366_785
"""Of our advisory locks; any number that others hardly take."""

OnWait = Callable[[str], None]
"""Called with a sentence for people about what is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """
    What is known of a migration that has begun.

    :param packing: How the bytes are read.
    :param position: Key of the last row that the backfill has gone through; `None` before its first batch.
    :param index_definition: What the index was asked to be; `None` where none was.
    :param finished: Whether it was made final.
    :param trigger_wanted: Whether the trigger was kept then.
    """

    bytea_column: str
    packing: Packing
    position: list[str] | None
    index_definition: str | None
    finished: bool
    trigger_wanted: bool


def hold_run(connection: Connection[Any], table: ByteaTable) -> None:
    """
    Be the only run on this table for as long as the connection lasts; one that was killed lets go within seconds.

    :raises GuardError: If another run is at work.
    """
    lock = {"class": _LOCK_CLASS, "table": table.oid}
    deadline = time.monotonic() + RUN_PATIENCE
    while not (connection.execute(STATEMENTS["lock_run"], lock).fetchone() or {})["got"]:
        if time.monotonic() > deadline:
            found = connection.execute(STATEMENTS["run_holder"], lock).fetchone() or {"pid": "unknown"}
            raise GuardError(
                f"Table {table.shown} is being migrated by another run, process {found['pid']} of the server.",
                hint="Wait until it is done, or end it with pg_terminate_backend().",
            )
        time.sleep(0.25)


def read_state(connection: Connection[Any], table: ByteaTable) -> State | None:
    """What is known of the migration into this column; `None` if none has begun."""
    if not _state_exists(connection, table):
        return None
    given = {"name": table.name, "target": table.target}
    row = connection.execute(table.compose("read_state"), given).fetchone()
    if row is None:
        return None
    packing = Packing(row.pop("dimension"), big_endian=row.pop("big_endian"))
    return State(packing=packing, **row)


def begin(
    connection: Connection[Any],
    table: ByteaTable,
    packing: Packing,
    *,
    keep_zero: bool,
    trigger: bool,
    on_wait: OnWait,
    own: list[int],
) -> None:
    """
    Make the column and what fills it from now on, as far as they are not there.

    :param connection: In autocommit mode.
    :param keep_zero: Whether vectors of nothing but zeros are taken.
    :param trigger: Whether the trigger is wanted; not any more after it was dropped for good.
    :param own: Process numbers of our own sessions.
    :raises GuardError: If the table's lock never comes free.
    """
    connection.execute(table.compose("create_state"))
    connection.execute(_function(table, packing, keep_zero=keep_zero))
    steps = []
    if not table.has_target:
        parts = {"dimension": Literal(packing.dimension), "big_endian": Literal(packing.big_endian)}
        steps = [table.compose("note_state", **parts), table.compose("add_column", **parts)]
    given = {"table": table.oid, "ours": list(table.trigger_names)}
    made = {row["name"] for row in connection.execute(STATEMENTS["made_triggers"], given)}
    wanted = zip(table.trigger_names, ("insert_trigger", "update_trigger"), strict=True) if trigger else ()
    steps += [table.compose(statement) for name, statement in wanted if name not in made]
    in_short(connection, table, steps, on_wait=on_wait, own=own)


def in_short(
    connection: Connection[Any], table: ByteaTable, steps: Sequence[Composed], *, on_wait: OnWait, own: list[int]
) -> None:
    """
    Run statements in one transaction that waits for no lock longer than `LOCK_TIMEOUT_MS`, as often as it takes.

    :raises GuardError: If it took `PATIENCE`.
    """
    if not steps:
        return
    patience = Literal(f"{LOCK_TIMEOUT_MS}ms")
    message = table.compose("short_transaction", steps=SQL(";\n").join(steps), patience=patience)
    deadline, pause = time.monotonic() + PATIENCE, 0.1
    while True:
        try:
            connection.execute(message)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.execute("ROLLBACK")
            raise
        holders = connection.execute(STATEMENTS["holders"], {"table": table.oid, "ours": own}).fetchall()
        who = "; ".join(map(holder_text, holders)) or "Somebody"
        if time.monotonic() > deadline:
            raise GuardError(
                f"The lock on {table.shown} was expected to come free for a moment within {PATIENCE:.0f} s, but did not: {who}.",
                hint="End long transactions, such as those that are idle in transaction, and run it again.",
            )
        on_wait(f"{who} holds a lock on {table.shown}; tried again")
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.5, 5.0)


def finish(
    connection: Connection[Any],
    table: ByteaTable,
    *,
    constraint: bool,
    keep_trigger: bool,
    on_wait: OnWait,
    own: list[int],
) -> None:
    """
    Make it final: from now on every row with bytes must have a vector.

    :param constraint: Whether that is enforced.
    :param keep_trigger: Whether the trigger stays, for an application that still writes bytes.
    """
    named = {"table": table.oid, "constraint": table.constraint_name}
    found = connection.execute(STATEMENTS["constraint_state"], named).fetchone()
    steps = [table.compose("note_finish", trigger_wanted=Literal(keep_trigger))]
    if not keep_trigger:
        steps += [_drop_trigger(table, name) for name in table.trigger_names]
    if constraint and found is None:
        steps.append(table.compose("add_constraint"))
    in_short(connection, table, steps, on_wait=on_wait, own=own)
    if constraint and not (found and found["valid"]):
        connection.execute(table.compose("validate_constraint"))


def revert(connection: Connection[Any], table: ByteaTable, *, on_wait: OnWait, own: list[int]) -> list[str]:
    """
    Take away what a migration has made, from any state of it; the bytes stay as they are.

    :returns: What was removed, a phrase each; nothing if there was nothing of ours.
    :raises GuardError: If something else depends on the column.
    """
    function = SQL("DROP FUNCTION IF EXISTS {}()").format(Identifier(table.schema, table.made("unpack")))
    removed = []
    if read_state(connection, table) is not None:
        indexes = _drop_indexes(connection, table)
        steps = [_drop_trigger(table, name) for name in table.trigger_names]
        steps += [table.compose("drop_column"), table.compose("forget_state")]
        try:
            in_short(connection, table, steps, on_wait=on_wait, own=own)
        except psycopg.errors.DependentObjectsStillExist as exc:
            raise GuardError(
                f"Column {table.target} of {table.shown} was to be dropped, but is used: {exc.diag.message_detail}.",
                hint="Drop what uses it first.",
            ) from exc
        removed = [*(f"index {name}" for name in indexes), "the triggers", f"column {table.target}"]
    if not table.has_target or removed:
        connection.execute(function)
        _drop_empty_state(connection, table)
    return removed


def _drop_indexes(connection: Connection[Any], table: ByteaTable) -> list[str]:
    given = {"table": table.oid, "column": table.target}
    names = [row["name"] for row in connection.execute(STATEMENTS["indexes"], given)]
    for name in names:
        connection.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(table.schema, name)))
    return names


def _state_exists(connection: Connection[Any], table: ByteaTable) -> bool:
    name = Identifier(table.schema, STATE).as_string()
    return bool((connection.execute(STATEMENTS["state_exists"], {"state": name}).fetchone() or {})["found"])


def _drop_empty_state(connection: Connection[Any], table: ByteaTable) -> None:
    if not _state_exists(connection, table):
        return
    if (connection.execute(table.compose("state_is_empty")).fetchone() or {})["empty"]:
        connection.execute(SQL("DROP TABLE {}").format(Identifier(table.schema, STATE)))


def _drop_trigger(table: ByteaTable, name: str) -> Composed:
    return SQL("DROP TRIGGER IF EXISTS {} ON {}").format(Identifier(name), Identifier(table.schema, table.name))


def _function(table: ByteaTable, packing: Packing, *, keep_zero: bool) -> Composed:
    places = dict(zip(("b0", "b1", "b2", "b3"), (3, 2, 1, 0) if packing.big_endian else (0, 1, 2, 3), strict=True))
    body = table.compose(
        "function_body",
        scales=Literal(_scales()),
        size=Literal(packing.size),
        last=Literal(packing.size - 4),
        keep_zero=SQL("true" if keep_zero else "false"),
        **{name: Literal(place) for name, place in places.items()},
    )
    return table.compose("create_function", body=Literal(body.as_string()))


def _scales() -> str:
    """Powers of two by sign and exponent: the value of a float32's last bit; of exponent 0, those of subnormal numbers."""
    signed = [(sign, exponent) for sign in (1.0, -1.0) for exponent in range(256)]
    texts = ["NULL" if exponent == 255 else repr(sign * 2.0 ** (max(exponent, 1) - 150)) for sign, exponent in signed]
    return f"{{{','.join(texts)}}}"
