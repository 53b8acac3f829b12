"""
Schemas of evaluations, beside the application's own: dropped at their end, or kept under a name.

A schema's comment says what it holds. Each run holds a lock for as long as its connection lives: what nobody holds and is
not kept was left by a run that was killed, and a later run drops it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from database.errors import DatabaseError, InvalidInputError
from database.sql import statements

if TYPE_CHECKING:
    from database.connection import Database

PREFIX = "synapse_evaluation_"
LEFTOVER_AFTER = timedelta(hours=1)
"""Behind a transaction pooler, locks are not what they seem; a young schema is left alone."""

_NAME = re.compile(r"[a-z0-9_]{1,40}")
_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class EvaluationSchema:
    """
    A schema to evaluate in.

    :param name: Its name.
    :param is_new: Whether it was made by this run, and is empty.
    :param dropped: Leftovers of killed runs that were dropped on the way.
    """

    name: str
    is_new: bool
    dropped: list[str]


@contextmanager
def evaluation_schema(
    owner: Database, *, holds: dict[str, Any], keep: str | None = None, reuse: str | None = None
) -> Iterator[EvaluationSchema]:
    """
    A schema for as long as the block runs; however that ends, the schema is dropped unless it is kept.

    :param owner: The database, connected as a role that may create schemas.
    :param holds: What is in it, or will be: a kept schema must hold the same.
    :param keep: Keep it under this name.
    :param reuse: Work in the one that was kept under this name.
    :raises InvalidInputError: If the name is taken, unknown, in use or no name, or if the schema holds something else.
    :raises DatabaseError: If PostgreSQL refuses, for example as the role may not create a schema.
    """
    short = reuse or keep or f"run_{os.urandom(4).hex()}"
    name = _full_name(short)
    with owner.unpooled() as connection:
        if not _held(connection, name):
            raise InvalidInputError(f"Evaluation {short} was expected to be free, but another run works in it.")
        known = _known(connection)
        dropped = _drop_leftovers(connection, known, but=name)
        if reuse:
            _require_same(reuse, known.get(name), known=known, holds=holds)
        else:
            _create(connection, name, taken=name in known, kept=keep is not None, holds=holds)
        try:
            yield EvaluationSchema(name=name, is_new=not reuse, dropped=dropped)
        finally:
            if not (keep or reuse):
                with owner.unpooled() as fresh:  # whatever became of the other connection
                    fresh.execute(_formatted("drop", name))


def drop_evaluation(owner: Database, short: str) -> None:
    """
    Drop an evaluation that was kept.

    :param owner: The database, connected as the role that made it.
    :param short: The name under which it was kept.
    :raises InvalidInputError: If there is none, or a run works in it.
    """
    name = _full_name(short)
    with owner.unpooled() as connection:
        known = _known(connection)
        if name not in known:
            raise _unknown(short, known)
        if not _held(connection, name):
            raise InvalidInputError(f"Evaluation {short} was expected to be free, but another run works in it.")
        connection.execute(_formatted("drop", name))


def embedded_ids(database: Database, *, schema: str, table: str) -> set[str]:
    """The ids of the documents that a table holds with their embeddings."""
    statement = SQL(_SQL["embedded_ids"]).format(table=Identifier(schema, table))
    return {row["id"] for row in database.read(statement)}


def _create(connection: psycopg.Connection[Any], name: str, *, taken: bool, kept: bool, holds: dict[str, Any]) -> None:
    if taken:
        short = name.removeprefix(PREFIX)
        raise InvalidInputError(
            f"A new name was expected, but an evaluation is kept as {short} already.",
            hint=f"Use it with --reuse {short}, or drop it with --drop {short}.",
        )
    description = json.dumps({"kept": kept, "since": datetime.now(UTC).isoformat(), "holds": holds})
    try:
        with connection.transaction():
            connection.execute(_formatted("create", name))
            connection.execute(_formatted("describe", name, description=Literal(description)))
    except psycopg.errors.InsufficientPrivilege as exc:
        raise DatabaseError(
            "An evaluation works in a schema of its own, but this role may not create one.",
            hint="Set DATABASE_OWNER_URL to the owner of the schema.",
        ) from exc


def _require_same(short: str, description: str | None, *, known: dict[str, str], holds: dict[str, Any]) -> None:
    if description is None:
        raise _unknown(short, known)
    held = _described(description).get("holds", {})
    for what, wanted in holds.items():
        if held.get(what) != wanted:
            raise InvalidInputError(
                f"Kept evaluation {short} was expected to hold {what} {wanted}, but holds {held.get(what)}.",
                hint=f"Keep another one with --keep NAME, or drop it with --drop {short}.",
            )


def _drop_leftovers(connection: psycopg.Connection[Any], known: dict[str, str], *, but: str) -> list[str]:
    dropped = []
    for name, text in known.items():
        described = _described(text)
        if name == but or described.get("kept", True) or not _is_old(described.get("since", "")):
            continue
        if _held(connection, name):
            connection.execute(_formatted("drop", name))
            connection.execute(_SQL["release"], {"name": name})
            dropped.append(name)
    return dropped


def _held(connection: psycopg.Connection[Any], name: str) -> bool:
    return bool((connection.execute(_SQL["hold"], {"name": name}).fetchone() or {}).get("held"))


def _known(connection: psycopg.Connection[Any]) -> dict[str, str]:
    return {row["name"]: row["description"] for row in connection.execute(_SQL["known"]).fetchall()}


def _unknown(short: str, known: dict[str, str]) -> InvalidInputError:
    kept = [name.removeprefix(PREFIX) for name, text in known.items() if _described(text).get("kept")]
    return InvalidInputError(
        f"A kept evaluation {short} was expected, but there is none.",
        hint=f"Kept are: {', '.join(kept)}." if kept else "Keep one with --keep NAME.",
    )


def _full_name(short: str) -> str:
    if not _NAME.fullmatch(short):
        raise InvalidInputError(f"A name of up to 40 of a-z, 0-9 and _ was expected, but is {short!r}.")
    return PREFIX + short


def _described(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_old(since: str) -> bool:
    try:
        return datetime.now(UTC) - datetime.fromisoformat(since) > LEFTOVER_AFTER
    except (ValueError, TypeError):
        return False


def _formatted(name: str, schema: str, **parts: Literal) -> Composed:
    return SQL(_SQL[name]).format(schema=Identifier(schema), **parts)
