"""Recall certificates: what `recall` measured, kept beside the documents, so that others need not measure it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from database.sql import statements
from database.tenancy import DEFAULT_TENANT

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))
KEPT = 20
"""Certificates of a table; older ones go when a new one comes."""


@dataclass(frozen=True, kw_only=True)
class KeptCertificate:
    """
    A certificate that is kept.

    :param recall: The lowest at the configured `ef_search`, over the filters that were measured, 0 to 1.
    :param lower: The lower end of its 95 % interval.
    :param rows: Of the table, when it was measured.
    :param certificate: The whole of it, as `recall --json` prints it.
    """

    table_name: str
    measured_at: datetime
    ef_search: int | None
    top_k: int
    recall: float
    lower: float
    rows: int
    certificate: dict[str, Any]


def save(
    database: Database,
    table_name: str,
    *,
    ef_search: int,
    top_k: int,
    recall: float,
    lower: float,
    certificate: Mapping[str, Any],
) -> None:
    """
    Keep a certificate, and of the older ones of its table the newest 19.

    :param database: The database, as the table's tenant sees it.
    :param table_name: The documents table.
    :param certificate: The whole of it, with `rows`.
    """
    params = {
        "tenant": database.tenant or DEFAULT_TENANT,
        "table_name": table_name,
        "ef_search": ef_search,
        "top_k": top_k,
        "recall": recall,
        "lower": lower,
        "certificate": json.dumps(certificate),
        "kept": KEPT,
    }
    with database.connection() as connection:
        connection.execute(_SQL["save"], params)
        connection.execute(_SQL["forget_oldest"], params)


def newest(database: Database, table_name: str) -> KeptCertificate | None:
    """
    The newest certificate of a table; `None` where it was never measured.

    :param database: The database, as the table's tenant sees it.
    """
    with database.connection() as connection:
        return newest_in(connection, table_name, tenant=database.tenant or DEFAULT_TENANT)


def newest_in(connection: Connection[Any], table_name: str, *, tenant: str) -> KeptCertificate | None:
    """`newest`, in a transaction of the caller's."""
    row = connection.execute(_SQL["newest"], {"table_name": table_name, "tenant": tenant}).fetchone()
    return KeptCertificate(**row) if row else None
