"""
What migrations made, and how far they are: runs, their parts, and the documents that they put among others.

A run is its source's fingerprint and its targets; begun again, it is the same run. A part's position moves in the
transaction that writes the batch before it, so that a kill at any moment leaves both or neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from database.errors import GuardError, InvalidInputError
from database.models import EmbeddingModel, create_model, drop_model, list_models, switch_model
from database.sql import statements
from database.tenancy import DEFAULT_TENANT, all_tenants

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Run:
    """
    One migration.

    :param id: 12 hexadecimal digits, from the fingerprint and the targets.
    :param source_kind: Such as `chroma directory`.
    :param source: Where it is.
    :param fingerprint: The source's, when the run was begun.
    :param options: What shapes the result: policies and the like.
    :param started_at: When it was begun first.
    :param finished_at: When its receipt was written last; `None` if it never was.
    :param attempts: How often it was begun.
    """

    id: str
    source_kind: str
    source: str
    fingerprint: str
    options: Mapping[str, Any]
    started_at: datetime
    finished_at: datetime | None
    attempts: int


@dataclass(frozen=True, kw_only=True)
class PartState:
    """
    How far a part is.

    :param part: The part's id in its source.
    :param name: Its name.
    :param table_name: Where it goes.
    :param created_model: The registry's name of the model that was made for it; `None` if its table was there.
    :param switched_from: The model that was active until this one took its place.
    :param position: Up to where it is written; `None` before the first batch.
    :param inserted: Rows that were inserted, over all attempts.
    """

    part: str
    name: str
    table_name: str
    created_model: str | None
    switched_from: str | None
    position: Any
    inserted: int


def run_id(fingerprint: str, targets: Mapping[str, str]) -> str:
    """
    The id of a run.

    :param fingerprint: The source's.
    :param targets: Table names by parts' ids.
    """
    text = json.dumps([fingerprint, sorted(targets.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def require_same_options(database: Database, id: str, options: Any) -> None:
    """
    Refuse to go on with a run under other options, once it has written rows.

    :raises GuardError: If it has, under others.
    """
    for row in database.read(_SQL["written_options"], {"id": id}):
        if row["options"] != options:
            raise GuardError(
                f"Run {id} has written rows with the options {_options(row['options'])}; the same were expected, but not "
                f"{_options(options)}.",
                hint=f"Go on with the former, or begin anew after --rollback {id}.",
            )


def begin_run(owner: Database, *, id: str, source_kind: str, source: str, fingerprint: str, options: Any) -> Run:
    """Begin a run, or go on with it."""
    given = {"id": id, "source_kind": source_kind, "source": source, "fingerprint": fingerprint}
    with owner.connection() as connection:
        row = connection.execute(_SQL["begin_run"], {**given, "options": Jsonb(options)}).fetchone() or {}
    return Run(**row)


def list_runs(database: Database) -> list[Run]:
    """All runs, oldest first."""
    return [Run(**row) for row in database.read(_SQL["runs"])]


def find_run(database: Database, id: str) -> Run:
    """
    The run of that id.

    :raises InvalidInputError: If there is none.
    """
    known = list_runs(database)
    for run in known:
        if run.id == id:
            return run
    raise InvalidInputError(
        f"A migration's run was expected, but {database.name} has none named {id!r}; "
        f"it has {', '.join(run.id for run in known) or 'none'}."
    )


def part_states(database: Database, run: str) -> dict[str, PartState]:
    """The parts of a run, by their ids in the source."""
    return {row["part"]: PartState(**row) for row in database.read(_SQL["parts"], {"run": run})}


def add_part(owner: Database, run: str, *, part: str, name: str, model: EmbeddingModel, create: bool) -> None:
    """
    Note a part, and make its model and table in the same transaction.

    :param create: Whether the run makes the model, for this part or for another one before it.
    """
    with owner.connection() as connection:
        if create and connection.execute(_SQL["has_table"], {"table_name": model.table_name}).fetchone() is None:
            create_model(connection, model)
        connection.execute(
            _SQL["add_part"],
            {
                "run": run,
                "part": part,
                "name": name,
                "table_name": model.table_name,
                "created_model": model.name if create else None,
            },
        )


def checkpoint(connection: Connection[Any], run: str, *, part: str, position: Any, inserted: int) -> None:
    """Note in the batch's own transaction that everything up to a position is written."""
    connection.execute(
        _SQL["checkpoint"], {"run": run, "part": part, "position": Jsonb(position), "inserted": inserted}
    )


def note_rows(connection: Connection[Any], run: str, *, table_name: str, ids: Sequence[str]) -> None:
    """Note documents that the run has put among others, in the same transaction."""
    connection.execute(_SQL["note_rows"], {"run": run, "table_name": table_name, "ids": list(ids)})


def note_conflicts(owner: Database, run: str, *, table_name: str, ids: Sequence[str]) -> None:
    """Keep rows as they are before the run replaces them, or passes over them."""
    statement = SQL(_SQL["note_conflicts"]).format(table=Identifier(table_name))
    with owner.connection() as connection:
        connection.execute(statement, {"run": run, "table_name": table_name, "ids": list(ids)})


def conflicts(database: Database, run: str, table_name: str) -> list[str]:
    """Ids of rows that were in the table with other contents when the run came to them."""
    rows = database.read(_SQL["conflicts"], {"run": run, "table_name": table_name})
    return [row["document_id"] for row in rows]


def originals(database: Database, run: str, table_name: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows by id, as they were before the run."""
    statement = SQL(_SQL["originals"]).format(table=Identifier(table_name))
    rows = database.read(statement, {"run": run, "table_name": table_name, "ids": list(ids)})
    return {row["id"]: row["original"] for row in rows}


def switch_to(owner: Database, run: str, *, part: str, model: EmbeddingModel, previous: str) -> None:
    """Send questions to what was migrated; a rollback sends them back."""
    switch_model(owner, model.name)
    with owner.connection() as connection:
        connection.execute(_SQL["note_switch"], {"run": run, "part": part, "switched_from": previous})


def finish_run(owner: Database, run: str, receipt: Mapping[str, Any]) -> None:
    """Keep the receipt of a run."""
    with owner.connection() as connection:
        connection.execute(_SQL["finish_run"], {"id": run, "receipt": Jsonb(receipt)})


def roll_back(owner: Database, run: Run) -> list[dict[str, Any]]:
    """
    Take away what a run made, and nothing else.

    Tables that it made are dropped with their models. In tables that were there before, its documents are deleted, and what
    it replaced is put back.

    :returns: `{"table", "dropped", "deleted", "restored"}` per table.
    :raises GuardError: If a table that it made holds documents that others have written, or it went to another tenant;
        nothing is changed.
    """
    tenant = run.options.get("tenant", DEFAULT_TENANT)
    if tenant != (owner.tenant or DEFAULT_TENANT):
        raise GuardError(
            f"Run {run.id} went to the tenant {tenant}, but {owner.tenant or DEFAULT_TENANT} was asked.",
            hint=f"Run it again with SYNAPSE_TENANT={tenant}.",
        )
    states = list(part_states(owner, run.id).values())
    known = {model.table_name for model in list_models(owner)}  # without what a rollback before this one has dropped
    states = [state for state in states if state.table_name in known]
    created = {state.table_name: state.created_model for state in states if state.created_model}
    for table_name in created:
        made = sum(state.inserted for state in states if state.table_name == table_name)
        count = sum(_count(one, table_name) for one in all_tenants(owner))
        if count > made:
            raise GuardError(
                f"Table {table_name} was made by run {run.id} with {made:,} documents, but has {count:,}; "
                "dropping it would lose the others.",
                hint=f"Delete or move them first, or drop everything with `python synapse.py models drop {created[table_name]}`.",
            )
    for state in states:
        if state.switched_from:
            switch_model(owner, state.switched_from)
    done = [_drop(owner, name, table) for table, name in created.items() if name]
    others = {state.table_name for state in states} - set(created)
    replaced = run.options.get("policies", {}).get("conflict") == "keep"
    done += [_undo(owner, run.id, table, restore=replaced) for table in sorted(others)]
    with owner.connection() as connection:
        connection.execute(_SQL["delete_run"], {"id": run.id})
    return done


def _drop(owner: Database, name: str, table_name: str) -> dict[str, Any]:
    gone = drop_model(owner, name)
    return {"table": table_name, "dropped": True, "deleted": gone["documents"], "restored": 0}


def _undo(owner: Database, run: str, table_name: str, *, restore: bool) -> dict[str, Any]:
    vector_type = next(model.vector_type for model in list_models(owner) if model.table_name == table_name)
    parts = {"table": Identifier(table_name), "vector_type": SQL(vector_type)}
    given = {"run": run, "table_name": table_name}
    with owner.connection() as connection:
        deleted = connection.execute(SQL(_SQL["delete_rows"]).format(**parts), given).rowcount
        restored = connection.execute(SQL(_SQL["restore_rows"]).format(**parts), given).rowcount if restore else 0
    return {"table": table_name, "dropped": False, "deleted": deleted, "restored": restored}


def _count(database: Database, table_name: str) -> int:
    return int(database.read(SQL(_SQL["count_rows"]).format(table=Identifier(table_name)))[0]["rows"])


def _options(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)
