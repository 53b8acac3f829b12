"""The registry of embedding models: each has a documents table of its own, so that a new one is built beside the old."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Identifier

from database.errors import GuardError, InvalidInputError, SchemaError
from database.sql import statements
from database.tenancy import DEFAULT_TENANT, list_tenants, schema_of

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class EmbeddingModel:
    """
    A registered model.

    :param name: The registry's name of it.
    :param model: The name that sentence-transformers loads it by.
    :param dimension: Length of its vectors.
    :param table_name: The table of the documents that it embeds.
    :param vector_type: `vector` (float32) or `halfvec` (float16).
    :param language: PostgreSQL text search configuration of the table's keyword index.
    :param partitions: Into how many parts the table is cut, by hash of id; 1 means that it is not.
    :param active: Whether questions go to it.
    """

    name: str
    model: str
    dimension: int
    table_name: str
    vector_type: str = "vector"
    language: str = "english"
    partitions: int = 1
    active: bool = False

    @classmethod
    def named(cls, model: str, *, dimension: int, language: str = "english", partitions: int = 1) -> EmbeddingModel:
        """
        Describe a model, with the registry's usual name, table and vector type for it.

        :param model: As sentence-transformers knows it, with or without its organisation.
        :param dimension: Length of its vectors, 1 to 4000; above 2000 they are kept in half precision.
        :param partitions: Into how many parts its tables are cut, 1 to 1024.
        """
        name = re.sub(r"[^a-z0-9.]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-")
        if not name:
            raise InvalidInputError(f"A model's name has a letter or a digit, but {model!r} has none.")
        table_name = "documents_" + re.sub(r"[^a-z0-9]+", "_", name)[:38]
        vector_type = "vector" if dimension <= 2000 else "halfvec"
        return cls(
            name=name,
            model=model,
            dimension=dimension,
            table_name=table_name,
            vector_type=vector_type,
            language=language,
            partitions=partitions,
        )


def list_models(database: Database) -> list[EmbeddingModel]:
    """All registered models, oldest first."""
    return [EmbeddingModel(**row) for row in database.read(_SQL["list_models"])]


def active_model(database: Database) -> EmbeddingModel:
    """
    The model that questions go to.

    :raises SchemaError: If none is active.
    """
    rows = database.read(_SQL["active_model"])
    if not rows:
        raise SchemaError(
            f"One active embedding model was expected in {database.name}, but there is none.",
            hint="Run `python synapse.py models switch NAME`.",
        )
    return EmbeddingModel(**rows[0])


def registered_model(database: Database, model: str) -> EmbeddingModel:
    """
    The registered model of that name, either the registry's or sentence-transformers'.

    :raises InvalidInputError: If there is none.
    """
    known = list_models(database)
    for found in known:
        if model in (found.name, found.model):
            return found
    raise InvalidInputError(
        f"Model {model!r} is not registered in {database.name}; it has {', '.join(m.name for m in known) or 'none'}.",
        hint=f"Run `python synapse.py models add {model}`.",
    )


def chosen_model(database: Database, model: str | None) -> EmbeddingModel:
    """The registered model of that name, or the active one where none is named."""
    return registered_model(database, model) if model else active_model(database)


def add_model(owner: Database, model: EmbeddingModel) -> None:
    """
    Register a model and create its documents table, with the declared fields of the active one; the first becomes active.

    :param owner: The database, connected as the owner of the schema.
    :raises InvalidInputError: If its name or table is taken.
    """
    for tenant in list_tenants(
        owner
    ):  # a transaction each: a table takes a dozen locks, and a server has some thousands
        if tenant.name != DEFAULT_TENANT:
            with owner.for_tenant(tenant.name).connection() as connection:
                connection.execute(_SQL["create_table"], asdict(model))
    with owner.without_tenant().connection() as connection:
        create_model(connection, model)


def create_model(connection: Connection[Any], model: EmbeddingModel) -> None:
    """`add_model`, in a transaction of the caller's: also for the tenants that have no table of that name yet."""
    from database.metadata_fields import declare_as

    active = connection.execute(_SQL["active_model"]).fetchone()
    taken = connection.execute(_SQL["model_names_and_tables"], asdict(model)).fetchall()
    if taken:
        raise InvalidInputError(
            f"A new name and table were expected, but {taken[0]['name']} has table {taken[0]['table_name']}.",
            hint="Run `python synapse.py models list`; drop the other one first, if it is not needed.",
        )
    connection.execute(_SQL["create_table"], asdict(model))
    connection.execute(_SQL["create_tenants_tables"], asdict(model))
    connection.execute(_SQL["add_model"], asdict(model))
    declare_as(connection, source=active["table_name"] if active else model.table_name, target=model.table_name)


def switch_model(owner: Database, name: str) -> EmbeddingModel:
    """
    Make a model the active one.

    :returns: The model.
    :raises InvalidInputError: If it is not registered.
    """
    model = registered_model(owner, name)
    with owner.connection() as connection:
        connection.execute(_SQL["deactivate"])
        connection.execute(_SQL["activate"], {"name": model.name})
    return model


def drop_model(owner: Database, name: str) -> dict[str, Any]:
    """
    Drop a model with its documents table and its part of the ledger.

    :returns: `{"name", "table", "documents"}`: what is gone.
    :raises GuardError: If it is the active one.
    :raises InvalidInputError: If it is not registered.
    """
    model = registered_model(owner, name)
    if model.active:
        raise GuardError(
            f"{model.name} is the active model, whose documents answer questions; it is not dropped.",
            hint="Run `python synapse.py models switch OTHER` first.",
        )
    documents = 0
    tenants = [tenant.name for tenant in list_tenants(owner) if tenant.name != DEFAULT_TENANT]
    for tenant in [*tenants, DEFAULT_TENANT]:
        with owner.for_tenant(tenant).connection() as connection:
            documents += _drop_tables(connection, model, schema=schema_of(tenant))
            if tenant == DEFAULT_TENANT:
                connection.execute(_SQL["delete_model"], {"name": model.name})
    return {"name": model.name, "table": model.table_name, "documents": documents}


def _drop_tables(connection: Connection[Any], model: EmbeddingModel, *, schema: str) -> int:
    """Remove what one tenant has of a model, and say how many documents went."""
    from database.metadata_fields import forget_table

    tables = [Identifier(schema, f"{model.table_name}{suffix}") for suffix in ("", "_keywords", "_terms")]
    row = connection.execute(SQL("SELECT count(*) AS documents FROM {}").format(tables[0])).fetchone() or {}
    connection.execute(SQL("DROP TABLE {}, {}, {}").format(*tables))
    connection.execute(_SQL["delete_fields"], {"table_name": model.table_name})
    forget_table(connection, model.table_name)
    connection.execute(_SQL["delete_sources"], {"name": model.name})
    return int(row["documents"])
