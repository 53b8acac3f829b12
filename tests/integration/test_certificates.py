"""Recall certificates that are kept."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from database import certificates
from database.connection import Database
from database.tenancy import create_tenant, drop_tenant

TABLE = "documents_all_minilm_l6_v2"


@pytest.fixture(autouse=True)
def no_certificates(owner_conninfo: str) -> Iterator[None]:
    """None before, and none after."""
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute("TRUNCATE recall_certificates")
        yield
        connection.execute("TRUNCATE recall_certificates")


def keep(database: Database, *, recall: float, table_name: str = TABLE) -> None:
    certificate = {"rows": 120, "groups": [{"filter": 'lang == "de"'}]}
    certificates.save(
        database, table_name, ef_search=200, top_k=10, recall=recall, lower=recall / 2, certificate=certificate
    )


def test_the_newest_is_given(database: Database) -> None:
    assert certificates.newest(database, TABLE) is None
    for recall in (0.91, 0.93, 0.97):
        keep(database, recall=recall)
    keep(database, recall=0.5, table_name="documents_other")
    found = certificates.newest(database, TABLE)
    assert found is not None
    assert (found.recall, found.lower, found.ef_search, found.top_k, found.rows) == (0.97, 0.485, 200, 10, 120)
    assert found.certificate["groups"] == [{"filter": 'lang == "de"'}]


def test_the_oldest_are_forgotten(database: Database, owner_conninfo: str) -> None:
    keep(database, recall=0.5, table_name="documents_other")
    for number in range(certificates.KEPT + 3):
        keep(database, recall=number / 100)
    with psycopg.connect(owner_conninfo) as connection:
        rows = connection.execute(
            "SELECT table_name, count(*), min(recall) FROM recall_certificates GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert rows == [(TABLE, certificates.KEPT, 0.03), ("documents_other", 1, 0.5)]


def test_each_tenant_has_its_own(database: Database, owner: Database) -> None:
    create_tenant(owner, "certified")
    try:
        keep(database.for_tenant("certified"), recall=0.8)
        assert certificates.newest(database, TABLE) is None
        found = certificates.newest(database.for_tenant("certified"), TABLE)
        assert found is not None
        assert found.recall == 0.8
    finally:
        drop_tenant(owner, "certified")
