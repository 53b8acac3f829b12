"""Indexing by Ray's workers: the same table as without them, and nothing lost when one is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
import pytest

from config import Settings
from database.connection import Database, open_database
from database.errors import ConfigurationError
from pipelines.api import open_ledger, sync_rules, with_model
from pipelines.indexing_driver import IndexingDriver
from pipelines.indexing_run import SyncResult
from pipelines.ray_indexing import RayDriver
from pipelines.sync import SyncPlan, plan_sync
from tests.tcp_server import APPLICATION_PASSWORD, TcpServer, drop_roles

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILES, PARTS = 60, 4
LEDGER = (
    "SELECT source, content_hash, meta_hash, fingerprint, reason, title, mime_type, chunks FROM sources ORDER BY source"
)
CHUNKS = "SELECT source, position, document_id FROM source_chunks ORDER BY source, position"
TEXTS = "SELECT source, text FROM source_texts ORDER BY source"
DOCUMENTS = "SELECT id, content, meta, embedding FROM documents_all_minilm_l6_v2 ORDER BY id"


@pytest.fixture(scope="module", autouse=True)
def _ray() -> None:
    if not os.environ.get("SYNAPSE_REQUIRE_SYSTEM"):
        pytest.importorskip("ray")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small Markdown files, and one that cannot be converted."""
    folder = tmp_path_factory.mktemp("documents")
    for number in range(FILES):
        parts = [f"# Part {part}\n\n" + f"File {number} has {number * part} stars. " * 8 for part in range(PARTS)]
        (folder / f"{number}.md").write_text("\n\n".join(parts))
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    return folder


@pytest.fixture
def databases(tcp_server: TcpServer) -> Iterator[list[Settings]]:
    """Two databases with our schema and nothing in them."""
    from database import schema

    names = [f"ray_{os.urandom(4).hex()}" for _ in range(2)]
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}")
            schema.upgrade(tcp_server.tcp(dbname=name))
        urls = [tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=name) for name in names]
        schema.grant_login(tcp_server.tcp(dbname=names[0]), application_conninfo=urls[0])
        settings = [Settings(database_url=url, embedding_precision="fp32") for url in urls]
        yield settings
        for one in settings:
            open_database(one).close()
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        drop_roles(connection)


def prepared(settings: Settings, folder: Path) -> tuple[Settings, SyncPlan, Any]:
    ledger = open_ledger(settings)
    settings = with_model(settings, ledger)
    return settings, plan_sync([folder], ledger, rules=sync_rules(settings)), ledger


def contents(database: Database) -> dict[str, Any]:
    return {name: database.read(query) for name, query in (("ledger", LEDGER), ("chunks", CHUNKS), ("texts", TEXTS))}


def assert_same(one: Database, other: Database) -> None:
    """The same rows; embeddings but for the last digits, which depend on what else was in a batch."""
    assert contents(one) == contents(other)
    ours, theirs = one.read(DOCUMENTS), other.read(DOCUMENTS)
    assert len(ours) == FILES * PARTS
    for mine, its in zip(ours, theirs, strict=True):
        assert {**mine, "embedding": None} == {**its, "embedding": None}
        assert np.allclose(mine["embedding"].to_numpy(), its["embedding"].to_numpy(), atol=1e-5)


def test_two_workers_make_the_table_of_a_plain_run_though_one_is_killed(
    databases: list[Settings], folder: Path
) -> None:
    plain, by_ray = databases
    settings, plan, ledger = prepared(plain, folder)
    with IndexingDriver(settings, ledger=ledger) as driver:
        expected = driver.apply(plan)

    settings, plan, ledger = prepared(by_ray, folder)
    killed: list[int] = []
    enough = threading.Event()

    def kill_a_worker() -> None:
        enough.wait(300)
        killed.extend(workers()[:1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    said: list[str] = []

    def watch(result: SyncResult) -> None:
        if result.converted >= 10:
            enough.set()

    with RayDriver(settings, ledger=ledger, workers=2, on_model=said.append) as driver:
        result = driver.apply(plan, on_progress=watch)
    killer.join()

    assert killed
    assert said == ["2 Ray workers on this machine."]
    assert (result.added, result.chunks, result.converted) == (expected.added, expected.chunks, expected.converted)
    assert list(result.failed) == list(expected.failed) == [str(folder / "damaged.pdf")]
    assert_same(open_database(plain), open_database(by_ray))
    _, again, _ = prepared(by_ray, folder)
    assert again.is_empty


def test_files_that_workers_do_not_see_are_kept_out_and_named(databases: list[Settings], folder: Path) -> None:
    settings, plan, ledger = prepared(databases[0], folder)
    missing = replace(plan.added[0], path=str(folder / "not on that machine.md"))
    partly = SyncPlan(roots=plan.roots, added=[missing, plan.added[1]])
    (folder / "not on that machine.md").symlink_to("nowhere")  # there for whoever planned, and not to be opened
    try:
        with RayDriver(settings, ledger=ledger, workers=1) as driver:
            result = driver.apply(partly)
    finally:
        (folder / "not on that machine.md").unlink()
    assert result.added == 1
    assert list(result.failed) == [str(folder / "not on that machine.md")]


def test_a_cluster_needs_a_database_that_it_can_reach(databases: list[Settings]) -> None:
    ledger = open_ledger(databases[0])
    with pytest.raises(ConfigurationError, match="the embedded one"):
        RayDriver(Settings(), ledger=ledger, address="ray://head:10001")


def test_a_cluster_that_is_not_there_is_named(databases: list[Settings], folder: Path) -> None:
    settings, plan, ledger = prepared(databases[0], folder)
    started = time.monotonic()
    with (
        pytest.raises(ConfigurationError, match=r"A Ray cluster was expected at 127.0.0.1:1"),
        RayDriver(settings, ledger=ledger, address="127.0.0.1:1") as driver,
    ):
        driver.apply(plan)
    assert time.monotonic() - started < 60


def workers() -> list[int]:
    """Process ids of Ray's workers that are at work."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any("MapWorker" in part for part in process.info["cmdline"] or [])
    ]
