"""Documents tables that are cut into partitions, for the store's own tests."""

from __future__ import annotations

import psycopg
import pytest

PARTITIONS = [pytest.param(1, id="whole"), pytest.param(4, id="partitioned", marks=pytest.mark.slow)]
"""Parameters of a fixture that makes a table."""


def partitioned(owner_conninfo: str, table_name: str, *, dimension: int, partitions: int, m: int = 8) -> None:
    """Make a documents table in so many parts; `create_table()` of a store then leaves it as it is."""
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(
            "SELECT synapse_create_documents_table(%s, %s, m => %s, ef_construction => %s, partitions => %s)",
            (table_name, dimension, m, 6 * m, partitions),
        )
